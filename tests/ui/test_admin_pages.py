"""An admin's pages, and those that doctors and admins both have, in a browser."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from clinic.accounts import sign_ins
from clinic.analysis.analyse import Analysis, HandedIn, analyse
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations, patients
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.reports import service as reports
from clinic.storage.paging import MAX_ROWS
from tests.support.clinic import PASSWORD, actor, installation_with
from tests.support.running_app import EXAMPLES, running_app, save_small_model
from tests.ui.browsing import DESK, LEAVING, PHONE, fits, sign_in, watched_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RUN = "document.title='run'"
HOSTILE = f'<img src=x onerror="{RUN}">'

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models([str(save_small_model(tmp_path_factory.mktemp("models"), "small-one"))])


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The installation that the app serves, opened beside it; three doctors."""
    with installation_with(tmp_path_factory.mktemp("clinic"), "ada", "grace", "mary") as opened:
        yield opened


@pytest.fixture(scope="module")
def url(clinic: Installation, models: Models) -> Iterator[str]:
    environment = {"BCD_DATA_FOLDER": str(clinic.settings.data)}
    with running_app([models.describe("small-one").folder], environment) as address:
        yield address.rstrip("/")


@pytest.fixture
def visit(browser: Browser, url: str) -> Iterator[Visit]:
    """Opens a page in a browser of its own, signed in; nothing may go elsewhere or go wrong."""
    with ExitStack() as pages:

        def visiting(
            name: str, path: str = "/", password: str = PASSWORD, look: tuple[int, str] = DESK
        ) -> Page:
            page = pages.enter_context(watched_page(browser, url, look, LEAVING))
            page.goto(f"{url}/login?next={path}")
            sign_in(page, name, password)
            page.get_by_role("button", name="Sign out", exact=True).wait_for()
            return page

        yield visiting


def pick(page: Page, label: str, choice: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=choice, exact=True).click()


def cells(page: Page, head: str) -> list[str]:
    return page.locator(f"td[data-label='{head}']").all_inner_texts()


def row(page: Page, name: str) -> list[str]:
    """What the list says of an account, but when it was made."""
    line = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
    return line.get_by_role("cell").all_inner_texts()[:-1]


def test_a_doctor_is_made_signs_in_and_is_closed(
    visit: Visit, clinic: Installation, url: str
) -> None:
    admin = visit("admin")
    expect(admin.get_by_role("button", name="New password")).to_be_disabled()
    admin.get_by_role("button", name="New account").click()
    admin.get_by_label("Name").fill("Eve")
    admin.get_by_role("button", name="Make the account").click()
    expect(admin.get_by_test_id("toast-body")).to_contain_text("2 to 64 small letters")
    admin.get_by_label("Name").fill("eve")
    admin.get_by_role("button", name="Make the account").click()
    said = admin.locator(".bcd-done", has_text="eve is made")
    expect(said).to_contain_text("not shown again")
    password = said.get_by_role("code").inner_text()
    assert row(admin, "eve") == ["eve", "doctor", "yes", "—", "0", "0"]

    eve = visit("eve", password=password)
    for path in ("/audit", "/accounts"):
        refused = eve.context.request.get(f"{url}{path}", headers={"accept": "text/html"})
        assert refused.status == 404
    admin.reload()
    expect(admin.get_by_role("link", name="eve")).to_be_visible()
    expect(admin.get_by_text(password)).to_have_count(0)
    assert row(admin, "eve")[-1] == "1"
    pick(admin, "Account", "eve")
    admin.get_by_role("button", name="Close", exact=True).click()
    expect(admin.locator(".bcd-done")).to_contain_text("eve is closed")
    assert row(admin, "eve") == ["eve", "doctor", "no, closed", "—", "0", "0"]
    eve.goto(f"{url}/account")
    eve.wait_for_url("**/login?next=*")

    admin.get_by_role("link", name="eve").click()
    expect(admin.get_by_role("heading", name="Audit log")).to_be_visible()
    expect(admin.get_by_role("table", name="Acts")).to_be_visible()
    assert cells(admin, "Act") == ["Signed in"]
    admin.get_by_label("Subject").fill("account 5")
    pick(admin, "Who", "anybody")
    expect(admin.locator("td[data-label='Act']")).to_have_text(["Account changed", "Account made"])
    assert cells(admin, "Who") == ["admin", "admin"]
    assert cells(admin, "Subject") == ["account 5, eve"] * 2
    assert cells(admin, "Detail") == ["active no", "role doctor"]
    admin.reload()
    expect(admin.locator("td[data-label='Act']")).to_have_text(["Account changed", "Account made"])
    expect(admin.get_by_label("Subject")).to_have_value("account 5")


def test_passwords_sessions_and_patients_of_an_account(visit: Visit, clinic: Installation) -> None:
    record = patients.create(clinic, actor(clinic, "mary"), PatientForm())
    admin = visit("admin", look=PHONE)
    admin.get_by_role("link", name="mary").wait_for()
    pick(admin, "Account", "mary")
    admin.get_by_role("button", name="End sessions").click()
    expect(admin.locator(".bcd-done")).to_contain_text("1 session of mary ended")
    admin.get_by_role("button", name="New password").click()
    secret = admin.locator(".bcd-done", has_text="mary has a new password")
    password = secret.get_by_role("code").inner_text()
    assert sign_ins.sign_in(clinic, "mary", password, "10.0.0.9")
    assert fits(admin)
    hand_over = admin.get_by_role("button", name="Hand over")
    expect(hand_over).to_be_hidden()
    admin.get_by_role("button", name="Close", exact=True).click()
    hand_over.click()
    expect(admin.get_by_test_id("toast-body")).to_contain_text("choose an account first")
    pick(admin, "Doctor who takes its patients", "grace")
    hand_over.click()
    expect(admin.locator(".bcd-done")).to_contain_text("1 patient of mary handed over")
    expect(hand_over).to_be_hidden()
    assert patients.view(clinic, actor(clinic, "grace"), record).id == record
    admin.get_by_role("button", name="Open again").click()
    expect(admin.locator(".bcd-done")).to_contain_text("mary is open again")
    admin.get_by_label("Account", exact=True).click()
    expect(admin.get_by_role("option", name="mary")).to_be_visible()
    expect(admin.get_by_role("option", name="admin")).to_have_count(0)


def test_a_long_log_is_paged_and_takes_filters_along(visit: Visit, clinic: Installation) -> None:
    grace = actor(clinic, "grace")
    for _ in range(MAX_ROWS + 2):
        patients.create(clinic, grace, PatientForm())
    admin = visit("admin", "/audit")
    pick(admin, "Act", "Patient made")
    pick(admin, "Who", "grace")
    expect(admin.get_by_text(f"Page 1 of 2, {MAX_ROWS + 2} in all")).to_be_visible()
    admin.get_by_role("link", name="Next page").click()
    expect(admin.get_by_text("Page 2 of 2")).to_be_visible()
    expect(admin.locator("td[data-label='Act']")).to_have_text(["Patient made"] * 2)
    numbers = [int(text) for text in cells(admin, "Number")]
    assert numbers == sorted(numbers, reverse=True)
    admin.go_back()
    expect(admin.get_by_text("Page 1 of 2")).to_be_visible()


def test_an_admin_sees_how_the_installation_is(visit: Visit, clinic: Installation) -> None:
    admin = visit("admin", "/settings", look=PHONE)
    expect(admin.get_by_role("region", name="Health")).to_contain_text("All is well")
    sessions = admin.get_by_role("table", name="Open sessions")
    expect(sessions.get_by_role("row").filter(has_text="admin").first).to_be_visible()
    models = admin.get_by_role("table", name="Models in use")
    expect(models).to_contain_text("small-one")
    expect(admin.get_by_text(str(clinic.settings.data)).first).to_be_visible()
    assert fits(admin)


def test_the_address_of_the_log_runs_nothing(visit: Visit, url: str) -> None:
    admin = visit("admin", "/audit", look=PHONE)
    admin.get_by_role("table", name="Acts").wait_for()
    assert fits(admin)
    admin.goto(f"{url}/audit?account={HOSTILE}&action={HOSTILE}&subject={HOSTILE}&sheet=-1")
    expect(admin.get_by_text("No such act")).to_be_visible()
    expect(admin.get_by_label("Who")).to_have_value(HOSTILE)
    assert admin.title() != "run"


def test_changing_the_password_ends_all_sessions(visit: Visit, url: str) -> None:
    new = "another good password"
    page, other = visit("ada", "/account", look=PHONE), visit("ada", "/account")
    typed = [
        ("wrong", new, new, "the present password is wrong"),
        (PASSWORD, new, f"{new}!", "not the same in both fields"),
        (PASSWORD, "short", "short", "10 to 256 characters"),
    ]
    for present, first, second, told in typed:
        fill_passwords(page, present, first, second)
        expect(page.get_by_test_id("toast-body").filter(has_text=told)).to_be_visible()
    assert fits(page)
    fill_passwords(page, PASSWORD, new, new)
    expect(page.get_by_text("The password is changed")).to_be_visible()
    page.wait_for_url(f"{url}/login?out=1")
    other.goto(f"{url}/account")
    other.wait_for_url("**/login*")
    sign_in(other, "ada", new)
    other.get_by_role("button", name="Sign out everywhere").click()
    expect(other.get_by_text("All sessions have ended")).to_be_visible()
    other.wait_for_url(f"{url}/login?out=1")


def fill_passwords(page: Page, present: str, new: str, again: str) -> None:
    page.get_by_label("Present password").fill(present)
    page.get_by_label("New password", exact=True).fill(new)
    page.get_by_label("New password again").fill(again)
    page.get_by_role("button", name="Change the password").click()


@pytest.fixture(scope="module")
def handed_out(clinic: Installation, models: Models) -> tuple[str, bytes]:
    """A report's id and bytes."""
    grace = actor(clinic, "grace")
    handed_in = [HandedIn((EXAMPLES / "synthetic-benign-1.png").read_bytes())]
    analysed = analyse(models, handed_in, models.names)
    patient = patients.create(clinic, grace, PatientForm())
    saved = examinations.save(clinic, grace, patient, Analysis(analysed, True), Details())
    return reports.issue_report(clinic, grace, models, saved)


@pytest.mark.parametrize(("name", "look"), [("admin", DESK), ("grace", PHONE)])
def test_a_report_is_known_again(
    visit: Visit, handed_out: tuple[str, bytes], name: str, look: tuple[int, str]
) -> None:
    report_id, pdf = handed_out
    page = visit(name, "/check", look=look)
    hand_in(page, pdf)
    expect(page.get_by_role("heading", name="Genuine", exact=True)).to_be_visible()
    expect(page.locator(".bcd-card")).to_contain_text(f"This is report {report_id}")
    expect(page.get_by_label("SHA-256")).to_have_value(hashlib.sha256(pdf).hexdigest())
    page.get_by_label("Report id").fill("R-0000000000")
    expect(page.get_by_text("The answer appears here")).to_be_visible()
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("heading", name="Not genuine")).to_be_visible()
    page.get_by_label("Report id").fill(report_id.lower())
    hand_in(page, other := pdf + b"\n")
    expect(page.get_by_label("SHA-256")).to_have_value(hashlib.sha256(other).hexdigest())
    expect(page.get_by_role("heading", name="Not genuine")).to_be_visible()
    page.get_by_label("SHA-256").fill(f"{hashlib.sha256(pdf).hexdigest().upper()}  report.pdf")
    page.get_by_label("SHA-256").press("Enter")
    expect(page.get_by_role("heading", name="Genuine", exact=True)).to_be_visible()
    page.get_by_label("SHA-256").fill("12ab")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("type its SHA-256")
    assert fits(page)


def hand_in(page: Page, pdf: bytes) -> None:
    file = {"name": "Eva Muster.pdf", "mimeType": "application/pdf", "buffer": pdf}
    page.locator("input[type=file]").first.set_input_files(file)
