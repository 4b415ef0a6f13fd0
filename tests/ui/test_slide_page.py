"""The page for whole slides, in a browser."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from skimage.data import chelsea

from bcd_models import BCDClassifier
from clinic.analysis.slide_jobs import FILE_NAME
from clinic.ui.doctor.slide_page import describe_answer
from tests.support.clinic import PASSWORD, installation_with
from tests.support.running_app import read_suitability, running_app
from tests.support.slides import (
    SMALL_MPP,
    draw_layout,
    drawn_layout,
    small_slides,
    write_repeated,
    write_slide,
)
from tests.ui.browsing import DESK, LEAVING, PHONE, fits, sign_in, watched_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READY = "Ready to analyse"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return small_slides(tmp_path_factory.mktemp("slides"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The app's folder."""
    return tmp_path_factory.mktemp("clinic")


@pytest.fixture(scope="module")
def judging(telling: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, telling tissue from what is none."""
    folder = tmp_path_factory.mktemp("models") / "judging"
    model = BCDClassifier.from_pretrained(telling)
    changes = {"name": "judging", "suitability": read_suitability()}
    model.config = model.config.model_copy(update=changes)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def url(telling: Path, judging: Path, data: Path) -> Iterator[str]:
    with installation_with(data, "ada"):
        pass
    settings = {"BCD_DATA_FOLDER": str(data), "BCD_RUNTIME": "torch", "TMPDIR": str(data)}
    with running_app([telling, judging], settings) as address:
        yield address.rstrip("/")


@pytest.fixture(params=[pytest.param(DESK, id="desk"), pytest.param(PHONE, id="phone")])
def page(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Page]:
    """A doctor's browser at the page; afterwards, nothing may have gone elsewhere or wrong."""
    with watched_page(browser, url, request.param, LEAVING) as page:
        page.goto(f"{url}/login?next=/slide")
        sign_in(page, "ada", PASSWORD)
        expect(page.locator(".bcd-out")).to_contain_text("ada")
        yield page


def hand_in(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


def test_a_slide_is_mapped(
    page: Page, telling: Path, drawn: dict[str, Path], tmp_path: Path
) -> None:
    expected = BCDClassifier.from_pretrained(telling).predict_slide(drawn["sized"])
    analyse = page.get_by_role("button", name="Analyse")
    expect(analyse).to_be_disabled()

    hand_in(page, drawn["unsized"])
    expect(page.get_by_role("alert")).to_contain_text("type the micrometres of a pixel")
    expect(analyse).to_be_disabled()
    page.get_by_label("Micrometres of a pixel").fill("four")
    expect(page.get_by_role("alert")).to_contain_text("type a number such as 0.5")
    page.get_by_label("Micrometres of a pixel").fill("4,0")
    page.get_by_text(READY).wait_for()
    expect(page.locator(".bcd-card dl")).to_contain_text("4 × 4 µm, as typed")

    page.get_by_label("Micrometres of a pixel").fill("")
    page.get_by_role("alert").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("The map appears here").wait_for()
    hand_in(page, drawn["sized"])
    expect(page.locator(".bcd-card dl")).to_contain_text("as the slide says")
    expect(page.locator(".bcd-card dl")).to_contain_text("without a profile")
    analyse.click()
    expect(page.locator("h2.bcd-answer")).to_contain_text(describe_answer(expected))
    slider = page.get_by_role("slider", name="Heat map opacity")
    slider.press("End")
    expect(page.locator(".bcd-heat")).to_have_css("opacity", "1")
    rows = page.get_by_role("table", name="Largest regions").get_by_role("row")
    expect(rows).to_have_count(1 + min(10, len(expected.regions("malignant"))))
    assert fits(page)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download map").click()
    assert "Miller" not in download.value.suggested_filename
    download.value.save_as(tmp_path / "files.zip")
    with zipfile.ZipFile(tmp_path / "files.zip") as archive:
        assert "slide-telling.geojson" in archive.namelist()

    page.get_by_role("button", name="Clear").click()
    page.get_by_text("The map appears here").wait_for()
    expect(page.get_by_role("button", name="Download map")).to_have_count(0)


def test_fields_that_look_unsuitable_are_marked_and_counted_only_where_asked(
    page: Page, tmp_path: Path
) -> None:
    glued = draw_layout(drawn_layout(), SMALL_MPP, seed=3).copy()
    glued[200:250, 250:300] = np.asarray(Image.fromarray(chelsea()).resize((50, 50)))
    page.get_by_role("radio", name="MobileNetV2").nth(1).check()
    hand_in(page, write_slide(tmp_path / "glued.tif", glued, SMALL_MPP))
    page.get_by_text(READY).wait_for()
    page.get_by_role("button", name="Analyse").click()
    expect(page.locator(".bcd-mind")).to_contain_text("left out (drawn or photographed")
    expect(page.get_by_text("struck through in grey look unsuitable")).to_be_visible()
    page.get_by_role("button", name="Answer all the same").click()
    expect(page.locator(".bcd-mind")).to_contain_text("counted all the same (drawn")
    expect(page.get_by_text("framed in grey look unsuitable")).to_be_visible()
    expect(page.get_by_role("button", name="Answer all the same")).to_be_hidden()
    assert fits(page)


def test_an_analysis_that_nobody_waits_for_ends(page: Page, data: Path, tmp_path: Path) -> None:
    """It would take all cores for a while, its slide would lie there as long."""
    hand_in(page, write_repeated(tmp_path / "long.tif", 16_384, mpp=1.2, downsamples=(1, 4)))
    page.get_by_text(READY).wait_for()
    page.get_by_role("button", name="Analyse").click()
    page.get_by_text("Looking at tissue").wait_for()
    assert laid(data)
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("The map appears here").wait_for()
    given_up = time.monotonic() + 10  # the whole takes half a minute
    while laid(data) and time.monotonic() < given_up:
        time.sleep(0.1)
    assert not laid(data)


def laid(data: Path) -> list[Path]:
    """Slides that are being looked at."""
    return [path for path in data.rglob(FILE_NAME) if path.is_file()]
