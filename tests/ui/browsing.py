"""The steps that browser tests and screenshots share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def running_browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium that asks the network for nothing by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


def choose_example(page: Page, number: int = 2) -> None:
    """Choose a drawn example with tumour and wait until it is shown."""
    page.get_by_role("button", name=f"Synthetic tissue {number}, tumour drawn").click()
    page.get_by_text("Ready to analyse").wait_for()


def analyse(page: Page) -> None:
    """Press Analyse and wait for the answer."""
    page.get_by_role("button", name="Analyse").click()
    page.get_by_role("slider", name="Heat map opacity").wait_for()


def download_report(page: Page, path: Path) -> str:
    """Save the PDF; returns the file name it is offered under."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report (PDF)").click()
    download.value.save_as(path)
    return download.value.suggested_filename
