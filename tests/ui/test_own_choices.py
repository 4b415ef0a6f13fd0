"""A doctor's own choices: a default operating point, and an answer all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from pypdf import PdfReader

from clinic.records import patients
from clinic.records.patient_fields import PatientForm
from tests.support.clinic import PASSWORD, actor_named, draw_photograph, installation_with
from tests.support.running_app import POINTS, read_suitability, running_app, save_small_model
from tests.ui.browsing import DESK, LEAVING, PHONE, fits, sign_in, watched_page

pytestmark = pytest.mark.browser

TOLD = "Answered all the same, at the user's request, although the image looks unsuitable"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clinic")


@pytest.fixture(scope="module")
def patient(data: Path) -> str:
    with installation_with(data, "ada") as clinic:
        return patients.create(clinic, actor_named(clinic, "ada"), PatientForm())


@pytest.fixture(scope="module")
def url(data: Path, patient: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root, suitability = tmp_path_factory.mktemp("models"), read_suitability()
    model = save_small_model(root, "small-judge", points=POINTS, suitability=suitability)
    with running_app([model], {"BCD_DATA_FOLDER": str(data), "BCD_POINT": "none"}) as address:
        yield address.rstrip("/")


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, url: str) -> Iterator[Page]:
    """A doctor's browser at "Account"; afterwards, nothing may have gone elsewhere or wrong."""
    with watched_page(browser, url, request.param, LEAVING) as page:
        page.goto(f"{url}/login?next=/account")
        sign_in(page, "ada", PASSWORD)
        page.get_by_role("button", name="Keep as my default").wait_for()
        yield page


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name).check()
    page.get_by_role("button", name="Keep as my default").click()
    page.get_by_text("Kept.").wait_for()


def test_pages_begin_with_the_doctor_s_own_operating_point(page: Page, url: str) -> None:
    choose(page, "the administrator's choice, now none")
    page.goto(f"{url}/try")
    expect(page.get_by_role("radio", name="none")).to_be_checked()
    for name in ("all", "balanced"):
        page.goto(f"{url}/account")
        choose(page, name)
        for path in ("/try", "/slide", "/account"):
            page.goto(url + path)
            expect(page.get_by_role("radio", name=name)).to_be_checked()
            assert fits(page)


def test_an_examination_is_answered_all_the_same_and_says_so(
    page: Page, url: str, patient: str, tmp_path: Path
) -> None:
    choose(page, "all")
    page.goto(f"{url}/examine?patient={patient}")
    expect(page.get_by_role("radio", name="all")).to_be_checked()
    photograph = {"name": "cat.png", "mimeType": "image/png", "buffer": draw_photograph()}
    page.locator("input[type=file]").first.set_input_files([photograph])
    page.get_by_text("Ready to analyse").wait_for()
    page.get_by_role("button", name="Analyse").click()
    mind = page.locator(".bcd-mind")
    expect(mind).to_contain_text("the image looks unsuitable: drawn or photographed")
    page.get_by_role("button", name="Answer all the same").click()
    expect(mind).to_contain_text("answered all the same, at the user's request")
    assert fits(page)
    page.get_by_role("button", name="Save examination").click()
    page.get_by_role("button", name="Show the models' answers").wait_for()
    expect(mind).to_contain_text("answered all the same")
    page.get_by_role("button", name="Show the models' answers").click()
    expect(page.get_by_text(TOLD)).to_be_visible()
    expect(page.get_by_text("(operating point “all”)")).to_be_visible()
    assert fits(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Report (PDF)").click()
    download.value.save_as(tmp_path / "report.pdf")
    words = " ".join(
        word
        for sheet in PdfReader(tmp_path / "report.pdf").pages
        for word in sheet.extract_text().split()
    )
    assert TOLD in words
