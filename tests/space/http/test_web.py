"""Signing in and out, files, uploads and health, as browsers and scripts meet them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import itsdangerous
import psycopg
import pytest
from sqlalchemy import delete
from starlette.testclient import TestClient

from bcd_models.errors import InputError
from clinic import web
from clinic.accounts import accounts, lockout, sign_ins
from clinic.accounts.lockout import TooManyAttempts
from clinic.analysis.analyse import Analysed, Analysis
from clinic.analysis.models import ModelGone, Models
from clinic.http import cookies
from clinic.http.grants import Grants
from clinic.installation import Installation, open_installation
from clinic.records import examinations, export
from clinic.records.examinations import Details
from clinic.records.patients import Conflict
from clinic.reports import service as reports
from clinic.storage import clock
from clinic.storage.actor import Actor, NotAllowed, NotFound, NotSignedIn, Refused
from clinic.storage.files import NotStored, StorageError
from clinic.storage.tables import AuditEntry, Failures
from clinic.ui.files import delete_old_files
from clinic.upkeep import demo, system
from tests.support.clinic import PATCHES, empty_database, settings_at
from tests.support.serving import (
    FORM,
    PAGE,
    PASSWORD,
    Serving,
    add_account,
    answer,
    in_json,
    serving_at,
    sign_in,
    sign_in_doctor,
    upload,
)

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # in Gradio
WRONG = "name or password is wrong"


@pytest.fixture(autouse=True)
def _untried(serving: Serving) -> None:
    """No attempt of another test counts: names that can't be printed are one account to all."""
    with serving.clinic.database.transaction() as session:
        session.execute(delete(Failures))


@pytest.fixture
def ada(serving: Serving) -> Actor:
    return add_account(serving.clinic)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, so that no wait passes meanwhile."""
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)


def cookie(reply: Any) -> Any:
    (morsel,) = SimpleCookie(reply.headers["set-cookie"]).values()
    assert morsel.key == cookies.NAME
    return morsel


def is_signed_in(client: TestClient) -> bool:
    """Whether a cookie opens what no guest sees."""
    return client.get("/try", headers=PAGE).status_code == 200


# Signing in


def test_the_page_is_a_form_that_scripts_and_browsers_understand(serving) -> None:
    page = serving.visitor().get("/login", params={"next": '/patient?id=P-1"><script>'})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert '<form method="post" action="/login">' in page.text
    assert 'name="username"' in page.text
    assert 'name="password" type="password"' in page.text
    assert page.text.count("<script>") == 1  # our own
    assert 'href="/"' in page.text  # guests may try
    assert "Hugging Face" not in page.text
    closed = serving.set_up(guests=False).visitor().get("/login")
    assert 'href="/"' not in closed.text


def test_a_demonstration_shows_its_login_and_nothing_else_does(serving) -> None:
    shown = serving.set_up(demo=True)
    name, password = demo.read_login(shown.clinic.settings)
    text = shown.visitor().get("/login", headers=PAGE).text
    assert f"<code>{name}</code>" in text
    assert f"<code>{password}</code>" in text
    assert "every record is synthetic" in text
    assert password not in serving.visitor().get("/login", headers=PAGE).text


def test_a_browser_is_led_to_where_it_wanted(serving, ada) -> None:
    client = serving.visitor()
    reply = sign_in(client, ada.name, data={"next": "/try"}, headers=FORM)
    assert (reply.status_code, reply.headers["location"]) == (303, "/try")
    assert is_signed_in(client)


def test_a_script_gets_json_and_a_cookie(serving, ada) -> None:
    client = serving.visitor()
    reply = sign_in(client, f" {ada.name.upper()} ")
    assert (reply.status_code, reply.json()) == (200, {"success": True})
    assert cookie(reply).value
    assert is_signed_in(client)


@pytest.mark.parametrize("headers", [{}, FORM])
def test_a_wrong_name_and_a_wrong_password_are_told_alike(serving, ada, headers) -> None:
    for name, password in [(ada.name, "wrong"), ("nobody", PASSWORD), ("no\0body", PASSWORD)]:
        reply = sign_in(serving.visitor(), name, password, headers=headers)
        assert reply.status_code == 401
        assert "set-cookie" not in reply.headers
        assert (WRONG in reply.text) if headers else (reply.json() == {"detail": WRONG})


def test_a_form_without_fields_is_a_wrong_name(serving) -> None:
    for more in [{}, {"content": b"%ff%00=\xff"}, {"json": {"username": "ada"}}]:
        reply = serving.visitor().post("/login", **more)
        assert reply.status_code in (401, 429)  # the name "" too is tried too often in the end
        assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("headers", [{}, FORM])
def test_who_guesses_has_to_wait(serving, ada, still, headers) -> None:
    client = serving.visitor()
    for _ in range(lockout.FREE_ATTEMPTS["account"]):
        assert sign_in(client, ada.name, "wrong", headers=headers).status_code == 401
    reply = sign_in(client, ada.name, headers=headers)  # even with the right one
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert "too many attempts: wait" in reply.text
    assert "set-cookie" not in reply.headers


def test_an_address_has_to_wait_whoever_it_tries(serving, ada, still, monkeypatch) -> None:
    monkeypatch.setitem(lockout.FREE_ATTEMPTS, "address", 2)
    behind = serving.set_up(proxies=("10.0.0.5",))
    guesser = {"x-forwarded-for": "8.8.8.8, 198.51.100.1"}
    for number in range(2):
        proxied = behind.visitor(address="10.0.0.5", **guesser)
        assert sign_in(proxied, f"nobody-{number}").status_code == 401
    assert sign_in(proxied, ada.name).status_code == 429
    other = behind.visitor(address="10.0.0.5", **{"x-forwarded-for": "198.51.100.1, 8.8.8.8"})
    assert sign_in(other, ada.name).status_code == 200


def test_who_is_no_proxy_can_not_choose_an_address(serving, still, monkeypatch) -> None:
    monkeypatch.setitem(lockout.FREE_ATTEMPTS, "address", 1)
    client = serving.visitor()
    for number, status in enumerate((401, 429)):
        forged = {"x-forwarded-for": f"203.0.113.{number}"}
        assert sign_in(client, f"no-{number}", headers=forged).status_code == status


# The session


def test_each_sign_in_is_a_new_session_in_place_of_the_old(serving, ada) -> None:
    client = serving.visitor()
    client.cookies.set(cookies.NAME, "chosen-by-somebody-else")
    first = cookie(sign_in(client, ada.name)).value
    second = cookie(sign_in(client, ada.name)).value
    assert len({first, second, "chosen-by-somebody-else"}) == 3
    assert [with_token(serving, token) for token in (first, second)] == [False, True]


def with_token(serving: Serving, token: str) -> bool:
    client = serving.visitor()
    client.cookies.set(cookies.NAME, token)
    return is_signed_in(client)


def test_other_cookies_do_not_hide_the_session(serving, ada) -> None:
    token = cookie(sign_in(serving.visitor(), ada.name)).value
    odd = f'theme={{"dark": 1}}; a b=c; {cookies.NAME}={token}; last="'
    assert is_signed_in(serving.visitor(cookie=odd))


def test_signing_out_ends_the_session(serving, ada) -> None:
    client = serving.visitor(ada)
    token = client.cookies[cookies.NAME]
    assert client.get("/logout").status_code == 405
    assert is_signed_in(client)
    reply = client.post("/logout", headers=PAGE)
    assert (reply.status_code, reply.headers["location"]) == (303, "/login?out=1")
    assert reply.headers["clear-site-data"] == '"cache"'
    assert cookie(reply)["max-age"] == "0"
    assert cookies.NAME not in client.cookies
    assert not with_token(serving, token)
    assert "You are signed out." in client.get("/login?out=1").text
    assert client.post("/logout").json() == {"success": True}  # twice does no harm


def test_a_new_password_ends_the_sessions(serving, ada) -> None:
    client = serving.visitor(ada)
    accounts.change_password(serving.clinic, ada, PASSWORD, "another battery")
    assert not is_signed_in(client)


def test_a_session_ends_without_use(serving, ada, monkeypatch) -> None:
    client = serving.visitor(ada)
    later = clock.now() + timedelta(hours=serving.clinic.settings.session_hours)
    monkeypatch.setattr(clock, "now", lambda: later)
    page = client.get("/patient?id=P-1", headers=PAGE)
    assert (page.status_code, page.headers["location"]) == (
        303,
        "/login?next=%2Fpatient%3Fid%3DP-1",
    )
    assert cookie(page)["max-age"] == "0"


def test_what_a_page_asks_after_its_session_is_refused_and_no_guest_s(serving, ada) -> None:
    client = serving.visitor(ada)
    sign_ins.end_sessions(serving.clinic, ada, ada.account_id)
    for path in ("/config", "/gradio_api/info", "/manifest.json"):
        reply = client.get(path)
        assert (reply.status_code, reply.json()) == (401, {"detail": "sign in first"})
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401


def test_sessions_outlive_a_restart(serving, small_models, ada) -> None:
    token = serving.visitor(ada).cookies[cookies.NAME]
    with serving_at(serving.folder.parent, small_models) as restarted:
        assert with_token(restarted, token)


# Its cookie


@pytest.mark.parametrize(
    ("address", "proto", "secure"),
    [("10.0.0.5", "https", True), ("10.0.0.5", "http", False), ("192.0.2.7", "https", False)],
)
def test_the_cookie_is_secure_behind_https(serving, ada, address, proto, secure) -> None:
    behind = serving.set_up(proxies=("10.0.0.5",))
    client = behind.visitor(address=address, **{"x-forwarded-proto": proto})
    kept = cookie(sign_in(client, ada.name))
    assert (kept["httponly"], kept["samesite"], kept["path"]) == (True, "Lax", "/")
    assert (kept["max-age"], kept["expires"], kept["domain"]) == ("", "", "")
    assert bool(kept["secure"]) is secure
    gone = cookie(client.post("/logout"))
    assert bool(gone["secure"]) is secure


def test_in_a_space_the_cookie_works_in_the_hub_s_frame(serving, ada, monkeypatch) -> None:
    monkeypatch.setenv("SPACE_ID", "org/name")
    kept = sign_in(serving.visitor(), ada.name).headers["set-cookie"]
    assert kept.endswith("; Path=/; HttpOnly; SameSite=None; Secure; Partitioned")


# Where a sign-in leads


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        "/a\\b",
        "https://evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "/\r\nset-cookie: a=b",
        "/ä",
        "",
        "try",
    ],
)
def test_a_sign_in_never_leads_elsewhere(serving, ada, wanted) -> None:
    assert led_to(serving, ada, wanted) == "/"


@pytest.mark.parametrize("wanted", ["/try", "/patient?id=P-1&sheet=2", "/%0d%0a", "/%2f/evil"])
def test_a_sign_in_leads_to_any_page_of_ours(serving, ada, wanted) -> None:
    assert led_to(serving, ada, wanted) == wanted


def led_to(serving: Serving, actor: Actor, wanted: str) -> str:
    reply = sign_in(serving.visitor(), actor.name, data={"next": wanted}, headers=FORM)
    assert reply.status_code == 303
    return reply.headers["location"]


# Patients' files


@pytest.fixture(scope="module")
def records(serving: Serving, analysed: tuple[Analysed, ...]) -> dict[str, Any]:
    doctor = sign_in_doctor(serving)
    owner, patient = doctor.actor, doctor.patient
    made = examinations.save(serving.clinic, owner, patient, Analysis(analysed, True), Details())
    return {"owner": owner, "patient": patient, "examination": made}


def paths_of(records: dict[str, Any], models: Models) -> list[str]:
    examination = f"/files/examinations/{records['examination']}"
    return [
        f"{examination}/1/image.png",
        f"{examination}/1/heat/{models.names[0]}.png",
        f"{examination}/report.pdf",
        f"/files/patients/{records['patient']}.zip",
    ]


def test_a_doctor_has_the_files_of_the_own_patients(serving, records, small_models) -> None:
    client = serving.visitor(records["owner"])
    image, heat, report, record = map(client.get, paths_of(records, small_models))
    assert [one.status_code for one in (image, heat, report, record)] == [200] * 4
    assert image.content == PATCHES[0].read_bytes()
    assert heat.headers["content-type"] == "image/png"
    assert report.content.startswith(b"%PDF")
    named = re.fullmatch(
        r'attachment; filename="([\w-]+)\.pdf"', report.headers["content-disposition"]
    )
    assert named
    sha256 = hashlib.sha256(report.content).hexdigest()
    assert reports.check_report(serving.clinic, records["owner"], sha256)
    assert record.content.startswith(b"PK")
    assert {one.headers["cache-control"] for one in (image, heat, report, record)} == {"no-store"}


def test_nobody_else_has_them(serving, records, small_models) -> None:
    admin = add_account(serving.clinic, "admin")
    others = [
        (serving.visitor(add_account(serving.clinic)), 404),
        (serving.visitor(admin), 403),
        (serving.visitor(), 401),
    ]
    for path in paths_of(records, small_models):
        for client, status in others:
            assert client.get(path).status_code == status, path
        page = serving.visitor().get(path, headers=PAGE)
        assert page.headers["location"].startswith("/login?next=%2Ffiles%2F")


def test_answers_leave_as_csv_to_their_doctor_alone(serving, records, keys) -> None:
    def asked(actor: Actor | None, **other: str) -> Any:
        today = str(clock.now().date())
        query = {"model": keys[0], "first": today, "last": today, **other}
        return serving.visitor(actor).get("/files/answers.csv", params=query)

    reply = asked(records["owner"])
    assert (reply.status_code, reply.headers["cache-control"]) == (200, "no-store")
    assert reply.headers["content-type"] == "text/csv; charset=utf-8"
    assert reply.text.count(records["examination"]) == 2
    assert records["examination"] not in asked(add_account(serving.clinic)).text
    assert asked(add_account(serving.clinic, "admin")).status_code == 403
    assert asked(None).status_code == 401
    for wrong in ({"model": "none"}, {"first": "2026-13-01"}, {"first": "9999-01-01"}):
        assert asked(records["owner"], **wrong).status_code in (400, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/files/examinations/{examination}/99999999999999999999/image.png",
        "/files/examinations/{examination}/0/image.png",
        "/files/examinations/{examination}/one/image.png",
        "/files/examinations/%00/1/image.png",
        "/files/examinations/..%2f..%2fetc/report.pdf",
        "/files/examinations/{examination}/1/heat/..%2f..%2fx.png",
        "/files/patients/' OR 1=1 --.zip",
        "/files/patients/E-0000000000.zip",
        "/files/",
        "/files/nothing",
    ],
)
def test_what_is_no_file_is_refused(serving, records, path) -> None:
    client = serving.visitor(records["owner"])
    assert client.get(path.format(**records)).status_code in (404, 422)


class Unlisted(Conflict):
    """Has no status of its own."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("no"), 400),
        (NotSignedIn("no"), 401),
        (NotAllowed("no"), 403),
        (NotFound("no"), 404),
        (Refused(Actor(1, "ada", "doctor", ""), "patient", "P-1"), 404),
        (Conflict("no"), 409),
        (Unlisted("no"), 409),
        (TooManyAttempts(1), 429),
        (StorageError("no"), 500),
        (NotStored("no"), 503),
        (ModelGone("no"), 503),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_failure_has_its_status_or_its_base_s(
    serving, records, monkeypatch, error: Exception, status: int
) -> None:
    def fail(*_: object) -> bytes:
        raise error

    client = serving.visitor(records["owner"])
    monkeypatch.setattr(export, "export", fail)
    reply = client.get(f"/files/patients/{records['patient']}.zip")
    assert reply.status_code == status
    assert str(error) in reply.text


def test_a_browser_reads_why_there_is_no_file(serving, records, small_models) -> None:
    client = serving.visitor(add_account(serving.clinic))
    page = client.get(paths_of(records, small_models)[0], headers=PAGE)
    assert page.status_code == 404
    assert "there is no such examination" in page.text


# Uploads


def test_an_upload_keeps_no_name_and_is_gone_after_its_use(serving) -> None:
    client, before = serving.visitor(), serving.files()
    path = upload(client, PATCHES[0].read_bytes(), "Jane Doe 1957.png")
    assert Path(path).read_bytes() == PATCHES[0].read_bytes()
    assert Path(path).name == "upload"
    (said,) = answer(client, "predict", in_json(path), serving.models.names[0])
    assert said["name"] == "image"
    assert not Path(path).parent.exists()
    assert serving.files() == before


def test_several_files_at_once_stay_in_order(serving) -> None:
    some = [path.read_bytes() for path in PATCHES[:3]]
    reply = serving.visitor().post("/gradio_api/upload", files=[("files", one) for one in some])
    assert [Path(path).read_bytes() for path in reply.json()] == some


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({}, 422),
        ({"json": {}}, 422),
        ({"files": [("other", b"x")]}, 422),
        ({"data": {"files": "x"}, "files": [("more", b"x")]}, 422),
        ({"files": [("files", b"x")] * 65}, 413),
        ({"files": [("files", b"x")] * 1001}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400),
    ],
)
def test_what_is_no_upload_is_refused_and_leaves_nothing(serving, request_, status) -> None:
    before = serving.files()
    assert serving.visitor().post("/gradio_api/upload", **request_).status_code == status
    assert serving.files() == before


def test_an_upload_is_refused_before_it_is_whole(serving) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        yield b'--y\r\ncontent-disposition: form-data; name="files"; filename="x"\r\n\r\n'
        while True:
            sent += 1 << 20
            yield bytes(1 << 20)

    kind = {"content-type": "multipart/form-data; boundary=y"}
    before = serving.files()
    status, text = serving.raw("POST", "/gradio_api/upload", kind, chunks())
    assert (status, json.loads(text)) == (413, {"detail": "a request holds at most 64 MB"})
    assert sent <= 66 << 20
    assert serving.files() == before


@pytest.mark.parametrize("path", ["/login", "/gradio_api/call/predict", "/gradio_api/queue/join"])
def test_other_requests_are_small(serving, path) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    body = [b"username=", *[b"x" * (1 << 19)] * 3]
    assert serving.raw("POST", path, kind, body)[0] == 413


def test_a_full_disk_takes_no_uploads(serving, monkeypatch) -> None:
    monkeypatch.setattr(system, "MIN_FREE_BYTES", 1 << 60)
    reply = serving.visitor().post("/gradio_api/upload", files={"files": b"x"})
    assert (reply.status_code, reply.json()["detail"][:17]) == (503, "the server's disk")


def test_nobody_waits_for_the_progress_of_an_upload(serving) -> None:
    reply = serving.visitor().get("/gradio_api/upload_progress?upload_id=x")
    assert reply.text == 'data: {"msg": "done"}\n\n'


def test_the_sweep_takes_old_leftovers_and_makes_the_folder_anew(tmp_path) -> None:
    folder = tmp_path / "gradio"
    delete_old_files(folder, 60)
    for name, age in (("old", 120), ("new", 10)):
        (folder / name).mkdir()
        (folder / name / "upload").touch()
        (folder / f"{name}.pdf").touch()
        then = clock.now().timestamp() - age
        os.utime(folder / name, (then, then))
        os.utime(folder / f"{name}.pdf", (then, then))
    (folder / "dangling").symlink_to(folder / "gone")  # cannot be looked at
    delete_old_files(folder, 60)
    assert sorted(path.name for path in folder.iterdir()) == ["dangling", "new", "new.pdf"]


# Health


@contextmanager
def own_alone(clinic: Installation, models: Models, folder: Path) -> Iterator[TestClient]:
    with TestClient(web.build_own_app(clinic, models, folder, Grants())) as client:
        yield client


def test_health_tells_where_the_database_s_file_is_gone(small_models, tmp_path) -> None:
    clinic = open_installation(settings_at(tmp_path))
    file = clinic.database.sqlite_file
    assert file
    with own_alone(clinic, small_models, tmp_path) as client:
        assert client.get("/healthz").json() == {"status": "ok", "audit_log": "ok"}
        file.rename(tmp_path / "away.db")
        ill = client.get("/healthz")
        assert (ill.status_code, ill.json()) == (503, {"status": "the database can't be reached"})
        (tmp_path / "away.db").rename(file)
        assert client.get("/healthz").status_code == 200
    clinic.database.engine.dispose()


def test_health_tells_for_good_that_the_log_was_cut(clinic, small_models, tmp_path) -> None:
    for _ in range(3):
        add_patient_view(clinic)
    with own_alone(clinic, small_models, tmp_path) as client:
        assert client.get("/healthz").json()["audit_log"] == "ok"
        with clinic.database.transaction() as session:
            session.execute(delete(AuditEntry).where(AuditEntry.number > 1))
        for _ in range(3):
            reply = client.get("/healthz")
            assert (reply.status_code, reply.json()["status"]) == (200, "ok")
            assert reply.json()["audit_log"] == "rows were cut off: run python -m clinic verify"
            add_patient_view(clinic)


def add_patient_view(clinic: Installation) -> None:
    """A row of the audit log."""
    with clinic.database.transaction() as session:
        clinic.log.write(session, "patient_viewed", actor=None, subject="patient P-1")


def test_health_comes_back_with_the_server(small_models, tmp_path, postgres) -> None:
    with empty_database(postgres) as url:
        clinic = open_installation(settings_at(tmp_path, url))
        name = url.rpartition("/")[2]
        with own_alone(clinic, small_models, tmp_path) as client:
            assert client.get("/healthz").status_code == 200
            with psycopg.connect(postgres, autocommit=True) as server:
                server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )
                assert client.get("/healthz").status_code == 503
                server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            assert client.get("/healthz").status_code == 200
        clinic.database.engine.dispose()


# Hub accounts

SECRET = "a Space's own"


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Hub sets in a Space with `hf_oauth: true`."""
    monkeypatch.setenv("SPACE_ID", "org/name")
    for name, text in {
        "OAUTH_CLIENT_ID": "id",
        "OAUTH_CLIENT_SECRET": SECRET,
        "OAUTH_SCOPES": "openid profile",
        "OPENID_PROVIDER_URL": "https://huggingface.co",
    }.items():
        monkeypatch.setenv(name, text)
        monkeypatch.setattr(huggingface_hub.constants, name, text)


def from_hub(name: str) -> str:
    """The cookie that huggingface_hub's OAuth routes would set for an account."""
    key = hashlib.sha256(f"{SECRET}-v1".encode()).hexdigest()
    said = {"oauth_info": {"expires_at": 1e10, "userinfo": {"preferred_username": name}}}
    return itsdangerous.TimestampSigner(key).sign(b64encode(json.dumps(said).encode())).decode()


@pytest.mark.parametrize("absent", ["SPACE_ID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"])
def test_hub_accounts_are_refused_where_the_hub_does_not_vouch(
    serving, space, monkeypatch, absent
) -> None:
    monkeypatch.setenv(absent, "")
    with pytest.raises(InputError, match=rf"BCD_HUB_ACCOUNTS .*hf_oauth: true.* {absent} not set"):
        serving.set_up(hub_accounts=("ada",))


def test_without_hub_accounts_there_is_no_such_way_in(serving) -> None:
    client = serving.visitor()
    for path in ("/hub", "/oauth/huggingface/login", "/oauth/huggingface/callback"):
        assert client.get(path).status_code == 404


def test_a_hub_account_on_the_list_signs_in_as_a_doctor(serving, space) -> None:
    hub = serving.set_up(hub_accounts=("Ada",))
    assert "/oauth/huggingface/login?_target_url=/hub" in hub.visitor().get("/login").text
    client = hub.visitor(cookie=f"session={from_hub('ada')}")
    reply = client.get("/hub")
    assert (reply.status_code, reply.headers["location"]) == (303, "/")
    ours, hubs = reply.headers.get_list("set-cookie")
    assert ours.startswith(f"{cookies.NAME}=")
    assert hubs.startswith("session=null;")  # the Hub's own token stays no longer
    actor = sign_ins.find_actor(serving.clinic, cookies.read_token(ours), "")
    assert actor
    assert (actor.name, actor.role) == ("hub:ada", "doctor")


def test_other_hub_accounts_do_not(serving, space) -> None:
    hub = serving.set_up(hub_accounts=("ada",))
    refused = hub.visitor(cookie=f"session={from_hub('mallory')}").get("/hub", headers=PAGE)
    assert refused.status_code == 403
    assert "this Hub account may not sign in here" in refused.text
    forged = from_hub("ada")[::-1]
    for cookie_ in ("", f"session={forged}"):
        reply = hub.visitor(cookie=cookie_).get("/hub")
        assert (reply.status_code, reply.headers["location"]) == (303, "/login")
        assert cookies.NAME not in reply.headers.get("set-cookie", "")


def test_the_hub_s_routes_lead_nowhere_else(serving, space) -> None:
    client = serving.set_up(hub_accounts=("ada",)).visitor()
    for path in ("login", "callback"):
        for target in ("https://evil.example", "/hub&_target_url=//evil.example"):
            reply = client.get(f"/oauth/huggingface/{path}?_target_url={target}")
            assert reply.status_code == 400
    assert client.get("/oauth/huggingface/logout?_target_url=/hub").status_code == 404
