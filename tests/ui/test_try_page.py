"""The page "Try an image", walked through in a browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from pypdf import PdfReader

from bcd_models import BCDClassifier
from bcd_models.prediction import NOTICE
from clinic.analysis.analyse import MAX_IMAGES
from clinic.analysis.wording import NO_ANSWER, REMEDIES, figure, heading
from tests.support.clinic import draw_photograph
from tests.support.running_app import (
    EXAMPLES,
    POINTS,
    read_suitability,
    running_app,
    save_small_model,
)
from tests.ui.browsing import (
    DESK,
    PHONE,
    analyse,
    choose_example,
    download_report,
    fits,
    unfold,
    watched_page,
)

pytestmark = pytest.mark.browser

EXAMPLE = EXAMPLES / "synthetic-malignant-2.png"
HOSTILE = "${7*7} {{7*7}} <img src=x onerror=alert(1)> &amp; patch.png"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [
        save_small_model(root, "small-one", points=POINTS),
        save_small_model(root, "small-b2", "efficientnet_b2", suitability=read_suitability()),
    ]


@pytest.fixture(scope="module")
def url(folders) -> Iterator[str]:
    with running_app(folders) as address:
        yield address


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(request, browser, url) -> Iterator[Page]:
    """The open page; afterwards, nothing may have gone elsewhere or gone wrong."""
    with watched_page(browser, url, request.param) as page:
        page.goto(url)
        page.get_by_role("button", name="Analyse").wait_for()
        yield page


def upload(page: Page, name: str, data: bytes) -> None:
    file = {"name": name, "mimeType": "image/png", "buffer": data}
    page.locator("input[type=file]").first.set_input_files(file)


def test_from_an_example_to_the_report(page, folders, tmp_path):
    expected = BCDClassifier.from_pretrained(folders[0]).predict(EXAMPLE)
    expect(page.get_by_role("note")).to_have_text(NOTICE)
    expect(page.get_by_role("button", name="Analyse")).to_be_disabled()

    choose_example(page)
    analyse(page)
    expect(page.get_by_role("heading", level=2)).to_contain_text(heading(expected))
    expect(page.locator(".bcd-here")).to_have_text(figure(expected.probability))
    page.get_by_text("Model and settings").click()
    expect(page.get_by_text(expected.weights_sha256)).to_be_visible()

    name = download_report(page, tmp_path / "report.pdf")
    (sheet,) = PdfReader(tmp_path / "report.pdf").pages
    assert name.startswith("bcd-report-")
    assert heading(expected) in sheet.extract_text()
    assert expected.weights_sha256 in sheet.extract_text()
    assert fits(page)


def test_the_heat_map_fades_by_keyboard_without_the_server(page):
    choose_example(page)
    analyse(page)
    heat = page.locator(".bcd-heat")
    expect(heat).to_have_css("opacity", "0.5")
    requests = []
    page.on("request", lambda r: requests.append(r.url) if r.method == "POST" else None)
    slider = page.get_by_role("slider", name="Heat map opacity")
    for key, opacity in (("End", "1"), ("Home", "0"), ("ArrowRight", "0.05")):
        slider.press(key)
        expect(heat).to_have_css("opacity", opacity)
    assert not requests


def test_a_broken_file_is_told_and_the_page_goes_on(page):
    upload(page, HOSTILE, b"not an image")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("image is not a PNG, JPEG, TIFF, BMP or WEBP image")
    expect(page.locator("body")).not_to_contain_text("patch.png")  # the name stays with the user
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("The answer appears here")).to_be_visible()
    upload(page, "patch.png", EXAMPLE.read_bytes())
    expect(page.get_by_text("Ready to analyse")).to_be_visible()


def test_several_images_and_a_bad_one_costs_itself_only(page, folders, tmp_path):
    model = BCDClassifier.from_pretrained(folders[0])
    files = [EXAMPLE, EXAMPLES / "synthetic-benign-1.png"]
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"not an image"}
    good = [
        {"name": "patch.png", "mimeType": "image/png", "buffer": file.read_bytes()}
        for file in files
    ]
    page.locator("input[type=file]").first.set_input_files([good[0], broken, good[1]])
    expect(page.get_by_text("Image 3 of 3: ready to analyse")).to_be_visible()
    page.get_by_role("button", name="Analyse").click()
    page.get_by_role("slider", name="Heat map opacity").first.wait_for()
    expect(page.locator(".bcd-here")).to_have_text(
        [figure(model.predict(file).probability) for file in files]
    )
    expect(page.get_by_role("alert")).to_contain_text("Image 2 of 3: No result")
    download_report(page, tmp_path / "report.pdf")
    assert len(PdfReader(tmp_path / "report.pdf").pages) == 2


def test_a_large_field_needs_its_scale_which_the_microscope_s_numbers_give(page):
    with Image.open(EXAMPLE) as patch:
        large = Image.fromarray(np.tile(np.asarray(patch.convert("RGB")), (16, 24, 1)))
    data = io.BytesIO()
    large.save(data, "JPEG")
    upload(page, "large.jpg", data.getvalue())
    expect(page.get_by_text("the file does not state a scale")).to_be_visible()
    analyse(page)
    expect(page.get_by_role("heading", level=2)).to_contain_text("Unclear")
    expect(page.get_by_text("the image's scale is unknown: give")).to_be_visible()

    mpp = page.get_by_label("Micrometres a pixel (empty")
    unfold(page, "From the microscope")
    page.get_by_role("button", name="Fill in").click()
    expect(page.get_by_role("alert")).to_contain_text("type all three numbers")
    for label, typed in (("Objective", "4"), ("Camera pixel", "3,45"), ("Adapter", "0.5")):
        page.get_by_label(label).fill(typed)
    page.get_by_role("button", name="Fill in").click()
    expect(mpp).to_have_value("1.725")
    expect(page.get_by_text("Ready to analyse")).to_be_visible()
    analyse(page)
    expect(page.get_by_text("1.73 µm a pixel, from objective and camera")).to_be_visible()
    expect(page.get_by_text("Tiles labelled")).to_contain_text("of 77")
    assert fits(page)

    mpp.fill("fifty")
    expect(page.get_by_text("Ready to analyse")).to_be_visible()
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_role("alert")).to_contain_text("type a number such as 0.5")


def test_more_images_than_are_taken_are_told(page):
    one = {"name": "patch.png", "mimeType": "image/png", "buffer": EXAMPLE.read_bytes()}
    page.locator("input[type=file]").first.set_input_files([one] * (MAX_IMAGES + 1))
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text(f"At most {MAX_IMAGES} images at once: the last 1 are left out")
    last = f"Image {MAX_IMAGES} of {MAX_IMAGES}: ready to analyse"
    expect(page.get_by_text(last)).to_be_visible()


def test_the_operating_point_decides_and_what_its_answers_are_worth_is_told(page, tmp_path):
    choose_example(page)
    page.get_by_role("radio", name="none").check()
    analyse(page)
    expect(page.get_by_role("heading", level=2)).to_contain_text("No invasive carcinoma pattern")
    sentence = "At this operating point (none) the model missed 75 of 100 carcinoma patches"
    expect(page.get_by_text(sentence)).to_be_visible()
    download_report(page, tmp_path / "report.pdf")
    (sheet,) = PdfReader(tmp_path / "report.pdf").pages
    assert sentence in " ".join(sheet.extract_text().split())

    page.get_by_role("radio", name="balanced").check()
    expect(page.get_by_text("Ready to analyse")).to_be_visible()
    expect(page.get_by_text(sentence)).to_have_count(0)
    unfold(page, "What answers are worth here")
    share = page.get_by_role("spinbutton")
    expect(share).to_have_value("25")  # as measured on
    share.fill("20")
    share.press("Enter")
    expect(page.get_by_text("“invasive carcinoma pattern”, 53 show it")).to_be_visible()
    expect(page.get_by_text("never of patients")).to_be_visible()
    share.fill("0")
    expect(page.get_by_text("a number from 1 to 99")).to_be_visible()
    expect(page.get_by_text("show it")).to_have_count(0)
    share.fill("50")
    expect(page.get_by_text("“invasive carcinoma pattern”, 82 show it")).to_be_visible()
    assert fits(page)


def test_a_photograph_has_no_answer_until_one_is_asked_for_all_the_same(page, tmp_path):
    page.get_by_role("radio", name="EfficientNet-B2").check()
    upload(page, "cat.png", draw_photograph())
    page.get_by_text("Ready to analyse").wait_for()
    anyway = page.get_by_role("button", name="Answer all the same")
    expect(anyway).to_be_hidden()
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(NO_ANSWER)
    expect(page.get_by_text("the image looks unsuitable: drawn or photographed")).to_be_visible()
    expect(page.get_by_text(REMEDIES["picture"])).to_be_visible()
    expect(page.get_by_text("Estimated probability")).to_have_count(0)
    expect(page.get_by_role("slider", name="Heat map opacity")).to_have_count(0)
    assert fits(page)
    anyway.click()
    told = "Answered all the same, at the user's request, although the image looks unsuitable"
    expect(page.get_by_text(told)).to_be_visible()
    expect(page.get_by_text("Estimated probability")).to_be_visible()
    expect(anyway).to_be_hidden()
    download_report(page, tmp_path / "report.pdf")
    (sheet,) = PdfReader(tmp_path / "report.pdf").pages
    assert told in " ".join(sheet.extract_text().split())
    page.get_by_role("button", name="Analyse").click()
    expect(page.get_by_role("heading", level=2)).to_contain_text(NO_ANSWER)


def test_another_model_takes_the_answer_away(page):
    choose_example(page)
    analyse(page)
    page.get_by_role("radio", name="EfficientNet-B2").check()
    expect(page.get_by_text("Ready to analyse")).to_be_visible()
    expect(page.get_by_role("heading", level=2)).to_have_count(0)
    expect(page.get_by_role("button", name="Download report (PDF)")).to_be_hidden()
    analyse(page)
    expect(page.get_by_text("analysed by small-b2 1.2.3")).to_be_visible()
