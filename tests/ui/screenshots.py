"""Takes the README's pictures: `python -m tests.ui.screenshots --out docs`.

Writes app-1280.png and app-390.png of an answer about synthetic tissue, report.png, the downloaded
PDF's page drawn by pdftoppm, and examination-1280.png and dashboard-1280.png of the demonstration's
records.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from tests.support.running_app import running_app
from tests.ui.browsing import analyse, choose_example, download_report, running_browser, sign_in

WIDTHS = (1280, 390)
REPORT_DPI = "110"
SHOWN = "DEMO-05"  # a patient whose examination has been read


def main(arguments: list[str] | None = None) -> None:
    """Start the app, walk through the page at both widths and save what it looks like."""
    parser = argparse.ArgumentParser(description="Take the README's pictures of the app.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--models", nargs="*", default=[], help="model folders, default: the checkout's cards"
    )
    parser.add_argument(
        "--chromium", default=os.environ.get("BCD_CHROMIUM") or shutil.which("chromium")
    )
    parser.add_argument("--example", type=int, default=2, help="which drawn tumour, 1 to 3")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    demo = {"BCD_DEMO": "1"}
    with running_app(options.models, demo) as url, running_browser(options.chromium) as browser:
        for width in WIDTHS:
            _picture(browser, url, width, options)
        _records(browser, url, options.out)


def _picture(browser: Browser, url: str, width: int, options: argparse.Namespace) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(url)
    choose_example(page, options.example)
    analyse(page)
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)  # for colours that fade
    page.screenshot(path=options.out / f"app-{width}.png", full_page=True)
    if width == WIDTHS[0]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.pdf"
            download_report(page, report)
            target = options.out / "report"
            draw = ["pdftoppm", "-r", REPORT_DPI, "-png", "-singlefile", str(report), str(target)]
            subprocess.run(draw, check=True)
    context.close()


def _records(browser: Browser, url: str, out: Path) -> None:
    """An examination of the demonstration and its dashboard, once all its patients are made."""
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 900})
    page.goto(f"{url}login?next=/patients")
    name, password = page.locator(".demo code").all_inner_texts()
    sign_in(page, name, password)
    last = page.get_by_role("row", name="DEMO-08")
    page.get_by_role("table").or_(page.get_by_text("No patients yet")).wait_for()
    while not last.count():
        page.wait_for_timeout(5000)
        page.reload()
        page.get_by_role("table").or_(page.get_by_text("No patients yet")).wait_for()
    page.get_by_role("row", name=SHOWN).get_by_role("link").click()
    page.get_by_role("row", name="read").last.get_by_role("link").click()
    page.get_by_role("slider", name="Heat map opacity").first.wait_for()
    page.wait_for_timeout(2000)  # for pictures to load and colours to fade
    page.screenshot(path=out / f"examination-{WIDTHS[0]}.png", full_page=True)
    page.get_by_label("Pages").get_by_role("link", name="Dashboard").click()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=out / f"dashboard-{WIDTHS[0]}.png", full_page=True)
    page.context.close()


if __name__ == "__main__":
    main()
