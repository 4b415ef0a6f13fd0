"""Database, disk, model or stored file gone, and a clock set back: told in words, nothing lost."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, select
from starlette.testclient import TestClient

from bcd_models.errors import InputError
from clinic.accounts import accounts, lockout
from clinic.accounts import audit as acts
from clinic.accounts.lockout import TooManyAttempts
from clinic.accounts.sign_ins import MAX_LIFE_FACTOR, find_actor, sign_in
from clinic.analysis.analyse import Analysed, Analysis
from clinic.analysis.models import ModelGone, Models
from clinic.dashboard import analytics
from clinic.dashboard.analytics import Period
from clinic.http.failures import UNREACHABLE
from clinic.installation import Installation, open_installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.reports import service as reports
from clinic.storage import tallies
from clinic.storage.actor import Actor
from clinic.storage.tables import Account, AuditEntry, SignIn
from clinic.upkeep import verify
from clinic.web import DISK_FULL
from tests.conftest import ROOT, absent
from tests.support.clinic import NAMES, PASSWORD, PATCHES, Clock, installation_at, settings_at
from tests.support.postgres import program, running_postgres
from tests.support.running_app import save_small_model
from tests.support.serving import (
    FORM,
    PAGE,
    SignedIn,
    add_account,
    answer,
    in_json,
    serving_at,
    sign_in_doctor,
    start_call,
    upload,
)
from tests.support.serving import sign_in as log_in

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # in Gradio
HERE = "10.0.0.1"


@dataclass
class Ill(SignedIn):
    """A doctor of an app of this module's own, some of which is taken away and given back."""

    folders: dict[str, Path]  # of its models, by name

    def save(self, analysed: tuple[Analysed, ...]) -> str:
        return examinations.save(
            self.clinic, self.actor, self.patient, Analysis(analysed, True), Details()
        )


@pytest.fixture(scope="module")
def ill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ill]:
    root = tmp_path_factory.mktemp("ill")
    backbones = ("mobilenetv2", "efficientnet_b2")
    folders = {
        name: save_small_model(root, name, backbone)
        for name, backbone in zip(NAMES, backbones, strict=True)
    }
    with serving_at(root, Models(list(map(str, folders.values())))) as serving:
        yield Ill(**vars(sign_in_doctor(serving)), folders=folders)


def told(reply: Any, status: int, sentence: str) -> None:
    """A browser gets a page and a script JSON, with the sentence and nothing from inside."""
    assert reply.status_code == status, reply.text
    if "text/html" in reply.headers["content-type"]:
        said = reply.text.replace("&#x27;", "'")
        assert 'role="alert"' in said
    else:
        said = reply.json()["detail"]
    assert sentence in said
    assert "Traceback" not in said
    assert "sqlite" not in said.lower()


def told_both(client: TestClient, path: str, status: int, sentence: str) -> None:
    told(client.get(path, headers=PAGE), status, sentence)
    told(client.get(path), status, sentence)


def failure(client: TestClient, endpoint: str, *data: Any) -> str:
    """What a call that fails tells."""
    number = start_call(client, endpoint, *data)
    stream = client.get(f"/gradio_api/call/{endpoint}/{number}").text
    assert "event: error" in stream, stream
    assert "Traceback" not in stream
    return stream


def examined(ill: Ill, path: str, model: str = NAMES[0]) -> list[Any]:
    """What ``save_examination`` takes."""
    return [ill.patient, [in_json(path)], [model], 0, 0, "H&E", "not known", "", True]


# The database


@contextmanager
def taken_away(file: Path) -> Iterator[Path]:
    """A file or folder that is elsewhere meanwhile."""
    away = file.with_name(f"{file.name}.away")
    file.rename(away)
    try:
        yield away
    finally:
        if away.exists():
            away.rename(file)


def nothing_without_the_database(client: TestClient, owner: Actor, files: list[str]) -> None:
    """Whatever needs the database says so; the rest goes on."""
    for path in ("/", "/patients", *files):
        told_both(client, path, 503, UNREACHABLE)
    told(client.get("/config"), 503, UNREACHABLE)
    call = {"data": ["AB-77", 1957, ""]}
    told(client.post("/gradio_api/call/create_patient", json=call), 503, UNREACHABLE)
    told(log_in(client, owner.name), 503, UNREACHABLE)
    told(log_in(client, owner.name, headers=FORM), 503, UNREACHABLE)
    assert client.get("/healthz").status_code == 503
    assert client.get("/login", headers=PAGE).status_code == 200
    assert client.get("/theme.css").status_code == 200


@pytest.mark.parametrize("back", ["moved", "copied"])
def test_without_the_database_s_file_nothing_is_saved_and_nothing_lost(
    ill: Ill, analysed: tuple[Analysed, ...], back: str
) -> None:
    file = ill.clinic.database.sqlite_file
    assert file
    number = ill.save(analysed)
    paths = [f"/files/examinations/{number}/report.pdf", f"/files/patients/{ill.patient}.zip"]
    with taken_away(file) as away:
        nothing_without_the_database(ill.client, ill.actor, paths)
        with pytest.raises(Exception, match="unable to open"):
            ill.save(analysed)
        assert not file.exists()
        if back == "copied":
            shutil.copy(away, file)
            away.unlink()
    assert ill.client.get("/patients", headers=PAGE).status_code == 200
    assert ill.client.get(paths[0]).content.startswith(b"%PDF")
    ill.save(analysed)
    assert verify.verify(ill.clinic).broken == ()
    assert not verify.verify(ill.clinic).miscounted


def test_a_start_makes_no_empty_database_in_place_of_one_that_is_gone(tmp_path: Path) -> None:
    with installation_at(tmp_path) as clinic:
        accounts.create_first_admin(clinic)
        file = clinic.database.sqlite_file
        assert file
    with taken_away(file):
        with pytest.raises(InputError, match=r"clinic\.db is gone"):
            open_installation(settings_at(tmp_path))
        assert not file.exists()
    with installation_at(tmp_path) as clinic:
        assert accounts.create_first_admin(clinic) is None


class Server:
    """A PostgreSQL server that can be stopped, and started as it was."""

    def __init__(self, url: str) -> None:
        self.url = url
        with closing(psycopg.connect(url)) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
        assert row
        self._data = row[0]

    def stop(self) -> None:
        self._control("stop", "-m", "fast")

    def start(self) -> None:
        self._control("restart", "-l", os.devnull)  # which starts it with the options it had

    def _control(self, *words: str) -> None:
        owner = os.stat(self._data)
        them = {"user": owner.st_uid, "group": owner.st_gid} if os.getuid() == 0 else {}
        command = [str(program("pg_ctl")), "-D", self._data, "-w", *words]
        # Not to a pipe: the server would keep it open.
        with open(os.devnull, "w") as nowhere:
            subprocess.run(
                command, cwd="/", stdout=nowhere, stderr=nowhere, check=True, timeout=600, **them
            )


@pytest.fixture
def server() -> Iterator[Server]:
    if not program("initdb"):
        absent("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgres() as url:
        found = Server(url)
        yield found
        with suppress(subprocess.CalledProcessError):
            found.stop()


@pytest.mark.slow
def test_a_server_that_was_stopped_and_started_is_used_again(
    ill: Ill, analysed: tuple[Analysed, ...], server: Server, tmp_path: Path
) -> None:
    with installation_at(tmp_path, server.url) as clinic:
        serving = replace(ill.serving, clinic=clinic).set_up()
        doctor = sign_in_doctor(serving)
        owner, client, patient = doctor.actor, doctor.client, doctor.patient
        number = examinations.save(clinic, owner, patient, Analysis(analysed, True), Details())
        paths = [f"/files/examinations/{number}/report.pdf", f"/files/patients/{patient}.zip"]
        server.stop()
        nothing_without_the_database(client, owner, paths)
        server.start()
        assert client.get("/patients", headers=PAGE).status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.get(paths[0]).content.startswith(b"%PDF")
        examinations.save(clinic, owner, patient, Analysis(analysed, True), Details())
        assert verify.verify(clinic).problems == []


# The disk


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing_and_room_is_all_it_takes(
    ill: Ill, analysed: tuple[Analysed, ...]
) -> None:
    number = ill.save(analysed)
    before = len(examinations.list_examinations(ill.clinic, ill.actor, ill.patient))
    path = upload(ill.client, PATCHES[0].read_bytes())
    image, report = (f"/files/examinations/{number}/{one}" for one in ("1/image.png", "report.pdf"))
    gradios = ill.serving.files()
    with full_disk():
        assert UNREACHABLE in failure(ill.client, "save_examination", *examined(ill, path))
        told(ill.client.post("/gradio_api/upload", files={"files": b"x" * 5000}), 503, DISK_FULL)
        told_both(ill.client, report, 503, "a file can't be stored: File too large")
        told_both(ill.client, f"/files/patients/{ill.patient}.zip", 503, UNREACHABLE)
        told(log_in(ill.serving.visitor(), ill.actor.name, headers=FORM), 503, UNREACHABLE)
        with pytest.raises(Exception, match=r"disk|stored"):
            ill.save(analysed)
        # What only reads goes on.
        assert ill.client.get(image).content == PATCHES[0].read_bytes()
        assert ill.client.get("/patients", headers=PAGE).status_code == 200
        assert ill.client.get("/healthz").status_code == 200
    assert not set(ill.serving.files()) - set(gradios)
    path = upload(ill.client, PATCHES[0].read_bytes())
    (saved,) = answer(ill.client, "save_examination", *examined(ill, path))
    assert ill.client.get(image.replace(number, saved["examination"])).status_code == 200
    assert ill.client.get(report).content.startswith(b"%PDF")
    assert len(examinations.list_examinations(ill.clinic, ill.actor, ill.patient)) == before + 1
    assert verify.verify(ill.clinic, repair=True).broken == ()
    assert verify.verify(ill.clinic).problems == []


def test_an_act_that_was_done_is_not_told_as_failed(
    clinic: Installation, ada: Actor, saved: Callable[..., str]
) -> None:
    """Nor done twice then, where only the log's heads could not be written."""
    heads = clinic.settings.data / "audit.heads"
    away, behind = heads.with_name("away"), clinic.log.read_head().number

    @event.listens_for(clinic.database.engine, "commit", once=True)
    def block(_connection: Any) -> None:
        heads.rename(away)
        heads.mkdir()  # in the place of the file, once the act has read it

    number = saved()
    heads.rmdir()
    away.rename(heads)
    assert clinic.log.read_head().number == behind
    assert verify.verify(clinic).problems == []
    examinations.view(clinic, ada, number)
    assert clinic.log.read_head().number > behind + 1
    assert verify.verify(clinic).problems == []


def test_a_look_beside_a_busy_app_finds_nothing_wrong(
    clinic: Installation, ada: Actor, saved: Callable[..., str]
) -> None:
    """An act while it looks is no row that was cut off, whatever it has looked at before."""
    saved()
    acted = []

    @event.listens_for(clinic.database.engine, "after_cursor_execute")
    def act(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "examined_image.sha256" in statement and not acted:
            acted.append(statement)
            with clinic.database.transaction() as session:
                clinic.log.write(session, "patient_viewed", actor=ada)

    assert verify.verify(clinic).problems == []
    assert acted


# The models


def spoil_model(folder: Path, how: str, other: Path) -> None:
    """Damage a model's folder, or put another model in its place."""
    if how == "gone":
        shutil.rmtree(folder)
    elif how == "cut":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "no config":
        (folder / "config.json").write_text("{")
    else:
        shutil.copytree(other, folder, dirs_exist_ok=True)


@pytest.mark.parametrize("how", ["gone", "cut", "no config", "another"])
def test_a_model_that_changed_since_the_start_is_not_loaded(
    ill: Ill, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copies" / NAMES[0]
    shutil.copytree(ill.folders[NAMES[0]], copy)
    models = Models([str(copy)])
    spoil_model(copy, how, ill.folders[NAMES[1]])
    with pytest.raises(ModelGone, match=f"the model {NAMES[0]} (can't be loaded|was changed)") as e:
        models.load(NAMES[0])
    assert str(tmp_path) not in str(e.value)
    assert str(copy) in caplog.text
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ill.folders[NAMES[0]], copy)
    assert models.load(NAMES[0]).weights_sha256 == models.describe(NAMES[0]).weights_sha256


def test_a_relative_folder_that_went_is_no_hub_id(
    ill: Ill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ill.folders[NAMES[0]], tmp_path / "org" / NAMES[0])
    monkeypatch.chdir(tmp_path)
    models = Models([f"org/{NAMES[0]}"])
    shutil.rmtree("org")
    assert models.describe(NAMES[0]).folder.is_absolute()
    with pytest.raises(ModelGone):
        models.load(NAMES[0])


def test_a_model_that_went_stops_no_other(ill: Ill) -> None:
    guest, gone = ill.serving.visitor(), NAMES[1]
    with taken_away(ill.folders[gone]):
        for client in (guest, ill.client):
            path = upload(client, PATCHES[0].read_bytes())
            said = failure(client, "predict", in_json(path), gone)
            assert f"the model {gone} can't be loaded" in said
            assert str(ill.folders[gone].parent) not in said
        path = upload(ill.client, PATCHES[0].read_bytes())
        said = failure(ill.client, "save_examination", *examined(ill, path, gone))
        assert f"the model {gone} can't be loaded" in said
        path = upload(guest, PATCHES[0].read_bytes())
        assert answer(guest, "predict", in_json(path), NAMES[0])
        assert guest.get("/", headers=PAGE).status_code == 200
    path = upload(guest, PATCHES[0].read_bytes())
    assert answer(guest, "predict", in_json(path), gone)[0]["model"] == gone


START = """
import os, sys, app
for folder in sys.argv[2:]:
    os.environ["BCD_MODELS"] = folder
    try:
        app.main(["--port", sys.argv[1]])
    except SystemExit as end:
        print(end)
"""


@pytest.mark.slow
def test_a_start_with_a_model_that_can_not_be_used_ends_in_one_line(
    ill: Ill, tmp_path: Path
) -> None:
    ways = ("gone", "cut", "no config")
    folders = [tmp_path / way / NAMES[0] for way in ways]
    for way, folder in zip(ways, folders, strict=True):
        shutil.copytree(ill.folders[NAMES[0]], folder)
        spoil_model(folder, way, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {
        "BCD_DATA_FOLDER": str(tmp_path / "data"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'space'}",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", START, port, *map(str, folders)],
        env=environment,
        text=True,
        capture_output=True,
        timeout=600,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(ways), done.stdout + done.stderr
    for line, folder in zip(lines, folders, strict=True):
        assert line.startswith("error: ")
        assert str(folder) in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


# Stored files


def spoil_file(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_an_image_that_went_is_told_and_stops_nothing_else(
    ill: Ill, analysed: tuple[Analysed, ...], how: str
) -> None:
    number, other = ill.save(analysed[:1]), ill.save(analysed[1:])
    found, _ = examinations.view(ill.clinic, ill.actor, number)
    sha256 = found.images[0].sha256
    spoil_file(ill.clinic.storage.path(sha256), how)
    sentence = {
        "gone": f"stored file {sha256[:12]} can't be read: No such file or directory",
        "damaged": f"stored file {sha256[:12]} is damaged: restore it from a backup",
    }[how]
    files = f"/files/examinations/{number}"
    for path in (f"{files}/1/image.png", f"{files}/report.pdf"):
        told_both(ill.client, path, 500, sentence)
    told_both(ill.client, f"/files/patients/{ill.patient}.zip", 500, sentence)
    assert sentence[:40] in failure(ill.client, "examination_report", number)
    assert any(sentence in problem for problem in verify.verify(ill.clinic, repair=True).broken)
    # All else goes on: this one's heat map, its page and a read; another's report.
    assert ill.client.get(f"{files}/1/heat/{NAMES[0]}.png").content.startswith(b"\x89PNG")
    assert ill.client.get(f"/examination?id={number}", headers=PAGE).status_code == 200
    assert answer(ill.client, "record_read", number, "none", "", "")[0]["read"] == 1
    assert ill.client.get(f"/files/examinations/{other}/report.pdf").status_code == 200
    # Saved once more, the same image is whole again, for the first examination too.
    assert ill.save(analysed[:1])
    assert ill.client.get(f"{files}/1/image.png").status_code == 200
    assert ill.client.get(f"{files}/report.pdf").status_code == 200
    assert verify.verify(ill.clinic).problems == []


# The clock


BACK = {"an hour": {"hours": -1}, "a day": {"days": -1}, "a year": {"days": -366}}


@pytest.fixture(params=BACK)
def back(request: pytest.FixtureRequest) -> dict[str, float]:
    """How far the clock is set back."""
    return BACK[request.param]


@pytest.fixture
def named(clinic: Installation) -> str:
    """Name of a doctor with a password."""
    return add_account(clinic).name


def hours_used(clinic: Installation, token: str, time: Clock) -> int:
    """How many hours a session lasts that is used each hour, and at most two days."""
    for hour in range(48):
        if find_actor(clinic, token, HERE) is None:
            return hour
        time.move(hours=1)
    return 48


def test_a_session_lasts_no_longer_than_it_may(
    clinic: Installation, named: str, time: Clock, back: dict[str, float]
) -> None:
    used, unused = (sign_in(clinic, named, PASSWORD, HERE) for _ in range(2))
    time.move(**back)
    longest = MAX_LIFE_FACTOR * clinic.settings.session_hours
    assert hours_used(clinic, used, time) <= longest
    assert find_actor(clinic, unused, HERE) is None
    fresh = sign_in(clinic, named, PASSWORD, HERE)
    assert hours_used(clinic, fresh, time) == longest


def test_a_clock_that_is_put_right_by_an_hour_signs_nobody_out(
    clinic: Installation, named: str, time: Clock
) -> None:
    token = sign_in(clinic, named, PASSWORD, HERE)
    time.move(hours=-1)
    assert find_actor(clinic, token, HERE)
    with clinic.database.snapshot() as session:
        (kept,) = session.scalars(select(SignIn))
        idle = timedelta(hours=clinic.settings.session_hours)
        assert kept.created_at <= kept.seen_at == time.at
        assert kept.expires_at == time.at + idle
    time.move(hours=1)
    assert find_actor(clinic, token, HERE)


def locked_for(clinic: Installation, name: str) -> int:
    """Try, which counts unless it has to wait; returns for how many seconds."""
    try:
        with clinic.database.transaction() as session:
            lockout.count_attempt(session, name, HERE)
    except TooManyAttempts as wait:
        return wait.seconds
    return 0


def test_a_lockout_lasts_no_longer_than_its_delay(
    clinic: Installation, time: Clock, back: dict[str, float]
) -> None:
    tries = lockout.FREE_ATTEMPTS["account"] + 3
    for _ in range(tries):
        while wait := locked_for(clinic, "ada"):
            time.move(seconds=wait)
    delay = 2 ** (tries - lockout.FREE_ATTEMPTS["account"])
    assert locked_for(clinic, "ada") == delay + 1
    time.move(**back)
    waited = 0
    while (wait := locked_for(clinic, "ada")) and waited <= delay:
        time.move(seconds=wait)
        waited += wait
    assert waited <= delay + 1
    # And guessing has become no quicker: the attempts count as before.
    assert locked_for(clinic, "ada") == 2 * delay + 1


def test_records_keep_their_order(
    clinic: Installation,
    doctors: dict[str, Actor],
    patient: str,
    saved: Callable[..., str],
    small_models: Models,
    keys: list[str],
    time: Clock,
    back: dict[str, float],
) -> None:
    ada, day = doctors["ada"], time.at.date()
    first, late = saved(), time.at
    assert reads.record(clinic, ada, first, "none") == 1
    before = reports.issue_report(clinic, ada, small_models, first)
    time.move(**back)
    second = saved()
    assert reads.record(clinic, ada, first, "invasive", reason="seen again") == 2
    found, _ = examinations.view(clinic, ada, first)
    assert [(read.number, read.verdict) for read in found.reads] == [(1, "none"), (2, "invasive")]
    assert found.created_at == late
    after = reports.issue_report(clinic, ada, small_models, first)
    assert after[0] != before[0]
    for _, pdf in (before, after):
        assert reports.check_report(clinic, ada, reports.hash_report(pdf)).genuine
    # By the clock, which is all a record knows: the worklist, and a patient's examinations.
    third = saved()
    assert {row.id for row in examinations.list_unread(clinic, ada).rows} == {second, third}
    listed = examinations.list_examinations(clinic, ada, patient)
    assert listed[0].id == first
    assert {row.id for row in listed} == {first, second, third}
    patients.edit(clinic, ada, patient, PatientForm("AB-1235"), 1)
    assert patients.search_patients(clinic, ada).rows[0].id == patient
    with clinic.database.snapshot() as session:
        rows = list(session.scalars(select(AuditEntry).order_by(AuditEntry.number)))
        assert tallies.are_sound(session)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert any(one.at > two.at for one, two in pairwise(rows))
    assert acts.search_acts(clinic, doctors["admin"]).rows[0].number == len(rows)
    whole = Period(time.at.date(), day)
    assert analytics.count_period(clinic, ada, keys[0], whole).answered == 3
    assert verify.verify(clinic).problems == []


def test_an_account_goes_on_whatever_the_clock(
    clinic: Installation, named: str, time: Clock, back: dict[str, float]
) -> None:
    token = sign_in(clinic, named, PASSWORD, HERE)
    actor = find_actor(clinic, token, HERE)
    assert actor
    time.move(**back)
    accounts.change_password(clinic, actor, PASSWORD, "another battery")
    assert find_actor(clinic, token, HERE) is None
    token = sign_in(clinic, named, "another battery", HERE)
    assert find_actor(clinic, token, HERE) == actor
    with clinic.database.snapshot() as session:
        account = session.get_one(Account, actor.account_id)
        assert account.password_changed_at == time.at
