"""A doctor's day in a browser: from the guest page to a report, and nothing left after sign-out."""

from __future__ import annotations

import base64
import io
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import handle_file
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pypdf import PdfReader

from bcd_models import BCDClassifier
from bcd_models.prediction import NOTICE
from clinic.analysis.wording import SEEN_BEFORE, figure, heading
from tests.support import synthetic
from tests.support.clinic import PASSWORD, installation_with
from tests.support.running_app import EXAMPLES, running_app, save_small_model
from tests.support.scripts import client_of
from tests.ui.browsing import (
    DESK,
    LEAVING,
    PHONE,
    analyse,
    choose_example,
    fits,
    sign_in,
    unfold,
    watched_page,
)

pytestmark = pytest.mark.browser

PATCH = EXAMPLES / "synthetic-malignant-2.png"
PICTURES_SHOWN = """() => {
  const images = [...document.querySelectorAll('.bcd-picture img')]
  return images.length > 0 && images.every(image => image.complete && image.naturalWidth > 0)
}"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [
        save_small_model(root, "small-one"),
        save_small_model(root, "small-b2", "efficientnet_b2"),
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a doctor's account."""
    folder = tmp_path_factory.mktemp("clinic")
    with installation_with(folder, "ada"):
        return folder


@pytest.fixture(scope="module")
def url(folders: list[Path], data: Path) -> Iterator[str]:
    environment = {"BCD_DATA_FOLDER": str(data), "BCD_LETTERHEAD": "Department of Examples"}
    with running_app(folders, environment) as address:
        yield address


@pytest.fixture(
    params=[pytest.param(DESK, id="desk"), pytest.param(PHONE, id="phone", marks=pytest.mark.slow)]
)
def page(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Page]:
    """A browser; afterwards, nothing may have gone elsewhere or gone wrong."""
    with watched_page(browser, url, request.param, LEAVING) as page:
        yield page


def test_from_guest_to_report_and_out(
    page: Page, url: str, folders: list[Path], tmp_path: Path
) -> None:
    expected = BCDClassifier.from_pretrained(folders[0]).predict(PATCH)

    page.goto(url)
    choose_example(page)
    analyse(page)
    expect(page.get_by_role("heading", level=2)).to_contain_text(heading(expected))
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "ada", PASSWORD)
    page.get_by_role("heading", name="Examinations without a read").wait_for()

    page.get_by_label("Pages").get_by_role("link", name="Patients").click()
    unfold(page, "New patient")
    page.get_by_label("Year of birth").fill("1957")
    page.get_by_role("button", name="Make the record").click()
    page.get_by_role("link", name="Examine images").click()

    page.locator("input[type=file]").first.set_input_files(PATCH)
    page.get_by_text("Ready to analyse").wait_for()
    page.get_by_label("Micrometres a pixel (empty").fill("2,5")
    page.get_by_label("Read first").uncheck()
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text("Unclear")
    expect(page.get_by_text("2.5 µm a pixel, as given")).to_be_visible()
    expect(page.get_by_text("hand in a larger field")).to_be_visible()
    page.get_by_label("Micrometres a pixel (empty").fill("4")
    page.get_by_text("Ready to analyse").wait_for()
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(heading(expected))
    expect(page.get_by_text("4 µm a pixel, as given")).to_be_visible()
    page.get_by_role("button", name="Save examination").click()

    page.get_by_role("button", name="Record read").wait_for()
    expect(page.locator(".bcd-here")).to_have_text(figure(expected.probability))
    slider = page.get_by_role("slider", name="Heat map opacity")
    slider.press("End")
    expect(page.locator(".bcd-heat")).to_have_css("opacity", "1")
    page.wait_for_function(PICTURES_SHOWN)
    assert fits(page)

    page.get_by_label("Indeterminate").check()
    page.get_by_label("Comment, without names").fill("<b>too</b> small")
    page.get_by_role("button", name="Record read").click()
    expect(page.get_by_label("Reads")).to_contain_text("after the models' answers were shown")
    expect(page.get_by_label("Reads")).to_contain_text("<b>too</b> small")

    with page.expect_download() as download:
        page.get_by_role("link", name="Report (PDF)").click()
    download.value.save_as(tmp_path / "report.pdf")
    text = "".join(sheet.extract_text() for sheet in PdfReader(tmp_path / "report.pdf").pages)
    assert "Department of Examples" in text
    assert "Indeterminate" in text
    assert expected.weights_sha256 in text
    assert text.count(NOTICE) >= 2

    examination = page.url
    page.get_by_label("Pages").get_by_role("link", name="Dashboard").click()
    row = page.get_by_role("row", name="after they were shown")
    expect(row).to_contain_text(re.compile("[12]$"))  # both walks leave an indeterminate read
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(page.get_by_text("holds no distribution to compare with")).to_be_visible()
    assert fits(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the answers").click()
    table = Path(download.value.path()).read_text("utf-8-sig")
    assert "indeterminate" in table
    assert "<b>too</b> small" in table
    page.get_by_label("Period").click()
    page.get_by_role("option", name="own dates").click()
    page.get_by_label("First day").fill("2020-01-01")
    page.get_by_label("First day").press("Enter")
    expect(page.locator(".bcd-facts")).to_contain_text("2020-01-01 to")
    page.get_by_label("Last day").fill("2020-12-31")
    page.get_by_label("Last day").press("Enter")
    expect(page.get_by_text("Nothing in this time")).to_be_visible()

    page.get_by_label("Pages").get_by_role("link", name="Patients").click()
    page.get_by_label("Words in id").fill("1957")
    page.get_by_label("Words in id").press("Enter")
    expect(page.get_by_text("No patient found")).to_be_visible()
    page.wait_for_function("sessionStorage.length === 1")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    page.wait_for_function("sessionStorage.length === 0")
    page.go_back()
    page.get_by_label("Password").wait_for()
    assert "E-" not in page.locator("body").inner_text()
    page.goto(examination)
    expect(page.get_by_label("Password")).to_be_visible()


def test_answers_stay_hidden_until_asked_for(page: Page, url: str, tmp_path: Path) -> None:
    images = [tmp_path / f"{kind}.png" for kind in ("malignant", "benign")]
    for path in images:  # of this walk alone: what was shown of an image is remembered
        drawn = synthetic.patch(path.stem, seed=secrets.randbelow(1 << 30))
        Image.fromarray(drawn).save(path)
    page.goto(f"{url}login?next=/patients")
    sign_in(page, "ada", PASSWORD)
    unfold(page, "New patient")
    page.get_by_role("button", name="Make the record").click()
    page.get_by_role("link", name="Examine images").click()
    expect(page.get_by_label("Read first")).to_be_checked()
    page.locator("input[type=file]").first.set_input_files(images)
    page.get_by_text("Image 2 of 2: ready to analyse").wait_for()
    examine = page.url
    page.get_by_role("button", name="Analyse").click()
    page.get_by_text("kept for after your read").wait_for()
    expect(page.get_by_text(SEEN_BEFORE)).to_have_count(0)
    page.get_by_role("button", name="Save examination").click()

    page.get_by_role("button", name="Record read").wait_for()
    expect(page.locator(".bcd-here")).to_have_count(0)
    expect(page.get_by_text("have not been shown to you")).to_be_visible()
    page.get_by_label("No pattern of invasive carcinoma").check()
    page.get_by_role("button", name="Record read").click()
    expect(page.get_by_label("Reads")).to_contain_text("before the models' answers were shown")
    page.get_by_role("button", name="Show the models' answers").click()
    expect(page.locator(".bcd-here")).to_have_count(2)

    page.get_by_label("Indeterminate").check()
    page.get_by_role("button", name="Record read").click()
    expect(page.get_by_test_id("toast-body")).to_contain_text("say why the read is amended")
    page.get_by_label("Why the read is amended").fill("seen again")
    page.get_by_role("button", name="Record read").click()
    expect(page.get_by_label("Reads")).to_contain_text("Amended because: seen again")

    page.goto(examine)
    page.locator("input[type=file]").first.set_input_files(images[1:])
    page.get_by_text("Ready to analyse").wait_for()
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_text(SEEN_BEFORE)).to_be_visible()
    page.get_by_role("button", name="Save examination").click()
    page.get_by_role("button", name="Record read").wait_for()
    expect(page.get_by_text(SEEN_BEFORE)).to_be_visible()
    expect(page.locator(".bcd-here")).to_have_count(0)
    assert fits(page)


def test_the_same_walk_by_script(url: str, folders: list[Path]) -> None:
    with client_of(url, auth=("ada", PASSWORD)) as app:
        expected = BCDClassifier.from_pretrained(folders[1]).predict(PATCH, mpp=2)
        patient = app.predict("AB-1234", 1957, "synthetic", api_name="/create_patient")["patient"]
        saved = app.predict(
            patient, [handle_file(PATCH)], ["small-b2"], 100, api_name="/save_examination"
        )
        (image,) = saved["images"]
        assert image["answers"][0]["probability"] == pytest.approx(expected.probability, abs=1e-9)
        assert image["warnings"] == list(expected.reasons[:1])
        assert "hand in a larger field" in expected.reasons[0]
        read = app.predict(saved["examination"], "none", "", api_name="/record_read")
        assert read == {"examination": saved["examination"], "read": 1}
        report = app.predict(saved["examination"], api_name="/examination_report")
        again = app.predict(saved["examination"], api_name="/examination_report")
        assert report == again
        pdf = PdfReader(io.BytesIO(base64.b64decode(report["pdf"])))
        assert report["report"] in pdf.pages[0].extract_text()
