"""A doctor's patients, in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from clinic.installation import Installation
from clinic.records import patients
from clinic.records.patient_fields import PatientForm
from clinic.storage.actor import Actor, NotFound
from tests.support.clinic import PASSWORD, actor, installation_with
from tests.support.running_app import running_app, save_small_model
from tests.ui.browsing import DESK, LEAVING, PHONE, fits, sign_in, unfold, watched_page

pytestmark = pytest.mark.browser

RUN = "document.title='run'"
HOSTILE = f'<img src=x onerror="{RUN}">\n<script>{RUN}</script> ${{7*7}}'


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The installation that the app serves, opened beside it."""
    with installation_with(tmp_path_factory.mktemp("clinic"), "ada", "grace") as opened:
        yield opened


@pytest.fixture(scope="module")
def ada(clinic: Installation) -> Actor:
    return actor(clinic, "ada")


@pytest.fixture(scope="module")
def url(clinic: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = save_small_model(tmp_path_factory.mktemp("models"), "small-one")
    with running_app([model], {"BCD_DATA_FOLDER": str(clinic.settings.data)}) as address:
        yield address.rstrip("/")


@pytest.fixture(scope="module")
def signed_in(browser: Browser, url: str) -> Any:
    """The browser's storage after a doctor's sign-in."""
    page = browser.new_page()
    page.goto(f"{url}/login")
    sign_in(page, "ada", PASSWORD)
    page.get_by_role("heading", name="Examinations without a read").wait_for()
    state = page.context.storage_state()
    page.context.close()
    return state


@pytest.fixture
def page(
    request: pytest.FixtureRequest, browser: Browser, url: str, signed_in: Any
) -> Iterator[Page]:
    """A doctor's browser; afterwards, nothing may have gone elsewhere or gone wrong."""
    look = getattr(request, "param", DESK)
    options = {"storage_state": signed_in, "base_url": url}
    with watched_page(browser, url, look, LEAVING, **options) as page:
        yield page


def arrived(page: Page) -> None:
    """Wait for the head, so that leaving the page cuts nothing off."""
    expect(page.locator(".bcd-out")).to_contain_text("ada")


def opened(page: Page, patient_id: str) -> None:
    """Open a patient's page and wait until it is filled."""
    page.goto(f"/patient?id={patient_id}")
    page.get_by_role("heading", name=f"Patient {patient_id}").wait_for()
    arrived(page)


def searched(page: Page, words: str) -> None:
    """Search the patients; what is searched for is nobody's to read in an address."""
    page.goto("/patients")
    arrived(page)
    page.get_by_label("Words in id").fill(words)
    page.get_by_label("Words in id").press("Enter")
    expect(page).to_have_url(re.compile("/patients$"))


def told(page: Page, sentence: str) -> None:
    """A toast tells something; it is then taken away."""
    toast = page.get_by_test_id("toast-body")
    expect(toast).to_contain_text(sentence)
    toast.get_by_test_id("toast-close").click()
    expect(toast).to_have_count(0)


@pytest.mark.parametrize("page", [DESK, PHONE], indirect=True, ids=["desk", "phone"])
def test_a_record_is_made_and_shown(page: Page, clinic: Installation, ada: Actor) -> None:
    page.goto("/patients")
    arrived(page)
    unfold(page, "New patient")
    expect(page.get_by_text("No field asks for a name")).to_contain_text("so that none can get out")
    expect(page.get_by_text("It must match")).to_contain_text(clinic.settings.external_id)
    page.get_by_label("External id", exact=True).fill("Miller")
    page.get_by_label("Year of birth").fill("1957")
    page.get_by_label("Note, without names").fill(HOSTILE)
    page.get_by_role("button", name="Make the record").click()
    told(page, "an external id must look like")
    expect(page.get_by_label("External id", exact=True)).to_have_value("Miller")
    expect(page.get_by_label("Note, without names")).to_have_value(HOSTILE)
    assert fits(page)

    page.get_by_label("External id", exact=True).fill("")
    page.get_by_role("button", name="Make the record").click()
    page.wait_for_url(re.compile(r"/patient\?id=P-"))
    patient_id = page.url.rpartition("=")[2]
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Patient {patient_id}")
    facts = page.locator(".bcd-facts")
    expect(facts).to_contain_text("1957")
    for line in HOSTILE.splitlines():
        expect(facts).to_contain_text(line)
    expect(facts.locator("img, script")).to_have_count(0)
    expect(page.get_by_text("No examinations yet")).to_be_visible()
    unfold(page, "Edit")
    expect(page.get_by_label("Note, without names")).to_have_value(HOSTILE)
    assert page.title() != "run"
    assert fits(page)
    assert patients.view(clinic, ada, patient_id).note == HOSTILE


def test_a_search_finds_and_says_where_it_does_not(
    page: Page, clinic: Installation, ada: Actor
) -> None:
    made = [
        patients.create(clinic, ada, PatientForm(f"SE-{number}", note="sought"))
        for number in range(10, 37)
    ]
    words, rows = page.get_by_label("Words in id"), page.get_by_role("row")
    searched(page, "sought SE-10")
    expect(rows).to_have_count(2)
    page.get_by_role("link", name=made[0]).click()
    page.get_by_role("heading", name=f"Patient {made[0]}, SE-10").wait_for()
    arrived(page)
    page.go_back()
    expect(rows).to_have_count(2)
    arrived(page)
    expect(words).to_have_value("sought SE-10")

    words.fill("sought")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("Page 1 of 2, 27 in all")).to_be_visible()
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_text("Page 2 of 2, 27 in all")).to_be_visible()
    expect(rows).to_have_count(3)
    expect(page).to_have_url(re.compile(r"/patients\?sheet=2$"))

    words.fill("no such words")
    words.press("Enter")
    expect(page.get_by_text("No patient found")).to_be_visible()
    page.get_by_label("Only those put aside").check()
    expect(page.get_by_text("None that is put aside has all these words")).to_be_visible()


def test_what_others_changed_meanwhile_is_not_lost_silently(
    page: Page, clinic: Installation, ada: Actor
) -> None:
    patient_id = patients.create(clinic, ada, PatientForm("CO-10", 1957, "first"))
    opened(page, patient_id)
    version = patients.view(clinic, ada, patient_id).version
    patients.edit(clinic, ada, patient_id, PatientForm("CO-10", 1957, "elsewhere"), version)
    note = page.get_by_label("Note, without names")
    unfold(page, "Edit")
    note.fill("typed here")
    # Another act on the page must not hide that the form is old.
    page.get_by_role("button", name="Put aside").click()
    expect(page.get_by_text("This patient is put aside")).to_be_visible()

    page.get_by_role("button", name="Save").click()
    told(page, "was changed meanwhile, and nothing was saved")
    expect(page.locator(".bcd-facts")).to_contain_text("elsewhere")
    expect(note).to_have_value("typed here")
    assert patients.view(clinic, ada, patient_id).note == "elsewhere"

    page.get_by_label("Year of birth").fill("nineteen")
    page.get_by_role("button", name="Save").click()
    told(page, "a year of birth has four digits")
    page.get_by_label("Year of birth").fill("")
    page.get_by_role("button", name="Save").click()
    told(page, "Saved")
    expect(page.locator(".bcd-facts")).to_contain_text("typed here")
    kept = patients.view(clinic, ada, patient_id)
    assert (kept.birth_year, kept.note) == (None, "typed here")


def test_put_aside_and_taken_back(page: Page, clinic: Installation, ada: Actor) -> None:
    patient_id = patients.create(clinic, ada, PatientForm("AS-10"), synthetic=True)
    opened(page, patient_id)
    examine = page.get_by_role("link", name="Examine images")
    expect(examine).to_have_attribute("href", f"/examine?patient={patient_id}")
    expect(page.locator(".bcd-facts")).to_contain_text("of no patient, drawn by a program")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as zip").click()
    assert download.value.suggested_filename == f"{patient_id}.zip"

    page.get_by_role("button", name="Put aside").click()
    expect(page.get_by_text("This patient is put aside")).to_be_visible()
    expect(examine).to_have_count(0)
    page.goto(f"/examine?patient={patient_id}")
    expect(page.get_by_text("This patient is put aside")).to_be_visible()
    expect(page.get_by_role("button", name="Analyse")).to_have_count(0)
    arrived(page)
    searched(page, "AS-10")
    expect(page.get_by_text("No patient found")).to_be_visible()
    arrived(page)
    page.get_by_label("Only those put aside").check()
    expect(page.get_by_role("row", name=patient_id)).to_contain_text("synthetic")

    opened(page, patient_id)
    page.get_by_role("button", name="Take back").click()
    expect(examine).to_be_visible()
    unfold(page, "Edit")
    page.get_by_label("Note, without names").fill("back")
    page.get_by_role("button", name="Save").click()
    told(page, "Saved")


def test_deleting_needs_the_id(page: Page, clinic: Installation, ada: Actor) -> None:
    patient_id = patients.create(clinic, ada, PatientForm("DE-10"))
    opened(page, patient_id)
    unfold(page, "Delete")
    confirmation = page.get_by_label("Type the patient's id")
    confirmation.fill("DE-10")
    page.get_by_role("button", name="Delete for good").click()
    told(page, f"to delete this patient, type its id: {patient_id}")
    expect(confirmation).to_have_value("DE-10")
    assert patients.view(clinic, ada, patient_id)

    confirmation.fill(patient_id)
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_role("heading", name="Patients").wait_for()
    page.wait_for_url("**/patients")
    with pytest.raises(NotFound):
        patients.view(clinic, ada, patient_id)


def test_anothers_patient_reads_as_none(page: Page, clinic: Installation) -> None:
    theirs = patients.create(clinic, actor(clinic, "grace"), PatientForm("GR-10", note="hers"))
    for address in (f"/patient?id={theirs}", "/patient?id=P-0000000000", "/patient"):
        page.goto(address)
        expect(page.get_by_role("alert")).to_contain_text("there is no such patient")
        arrived(page)
        expect(page.get_by_role("heading", level=1)).to_have_count(0)
        for name in ("Edit", "Delete", "Put aside", "Take back"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        assert "hers" not in page.locator("body").inner_text()
    searched(page, "GR-10")
    expect(page.get_by_text("No patient found")).to_be_visible()
