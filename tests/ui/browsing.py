"""The steps that browser tests and screenshots share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

expect.set_options(timeout=120_000)

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

DESK, PHONE = (1280, "light"), (390, "dark")  # width in pixels, and colours
# What Gradio tells when it ends its own listening because the page is left.
LEAVING = (
    "AbortError: signal is aborted",
    "AbortError: BodyStreamBuffer was aborted",
    "Unexpected error Connection errored out",
)


@contextmanager
def running_browser(chromium: str) -> Iterator[Browser]:
    """A headless Chromium that asks the network for nothing by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def watched_page(
    browser: Browser,
    url: str,
    look: tuple[int, str] = DESK,
    forgiven: tuple[str, ...] = (),
    **options: Any,
) -> Iterator[Page]:
    """A page; at its end, nothing may have gone to another host or gone wrong.

    Args:
        browser: That it is a page of, in a context of its own.
        url: The app's.
        look: Width and colours.
        forgiven: How errors begin that say nothing.
        options: Of the context, besides.
    """
    width, scheme = look
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, **options
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    elsewhere, errors = [], []
    own = (url, "data:", "blob:")

    def note_fault(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(forgiven):
            errors.append(message.text)

    page.on("request", lambda r: None if r.url.startswith(own) else elsewhere.append(r.url))
    page.on("console", note_fault)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not elsewhere
    assert not errors, errors


def sign_in(page: Page, name: str, password: str) -> None:
    """Fill in the sign-in page and send it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def unfold(page: Page, name: str) -> None:
    """Open an accordion; Gradio may reset a field in the moment that it appears."""
    page.get_by_role("button", name=name).click()
    page.wait_for_timeout(300)


def fits(page: Page) -> bool:
    """Whether nothing lies beside the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


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
