"""A read is blind only where no answer about its images was shown to the reader, on any page."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from sqlalchemy import MetaData, select, text
from starlette.testclient import TestClient

from bcd_models.images.open import open_image
from clinic.accounts import accounts, sign_ins
from clinic.analysis.analyse import Analysed, Analysis, HandedIn
from clinic.analysis.models import Models
from clinic.analysis.wording import SEEN_BEFORE
from clinic.dashboard import analytics, answer_table
from clinic.dashboard.analytics import Period
from clinic.installation import Installation
from clinic.records import examinations, export, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.reports import service as reports
from clinic.reports.layout import HIDDEN
from clinic.storage import clock, migrations, shown_images
from clinic.storage.actor import Actor
from clinic.storage.database import Database
from clinic.storage.tables import Account, ShownImage
from clinic.storage.tallies import AFTER, BEFORE
from clinic.upkeep import verify
from tests.space.reports.test_service import text_of
from tests.support import synthetic
from tests.support.clinic import NAMES, PASSWORD, PATCHES
from tests.support.serving import (
    Serving,
    SignedIn,
    answer,
    in_json,
    serving_at,
    sign_in_doctor,
    start_call,
    upload,
)
from tests.support.slides import SMALL_MPP, draw_layout, drawn_layout, write_slide

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")  # in Gradio

HIDE = "Read first: keep the models' answers hidden until I ask"
TODAY = Period(clock.now().date() - timedelta(days=1), clock.now().date() + timedelta(days=1))


def rows_of(clinic: Installation) -> set[tuple[int, str]]:
    """Who was shown an answer about which image."""
    with clinic.database.snapshot() as session:
        return {(one.account_id, one.sha256) for one in session.scalars(select(ShownImage))}


def show(clinic: Installation, actor: Actor, *paths: Path) -> None:
    """As the pages do that show answers."""
    shown_images.note_shown_to(clinic.database, actor, map(open_image, paths))


def is_after(clinic: Installation, actor: Actor, examination: str) -> bool:
    """Read an examination; returns whether that is filed as after the answers."""
    found, _ = examinations.view(clinic, actor, examination)
    reads.record(clinic, actor, examination, "none", "", "again" if found.reads else "")
    found, _ = examinations.view(clinic, actor, examination)
    return found.reads[-1].result_shown


# What counts as the same image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_image_is_known_by_its_pixels_in_whatever_file(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    drawn = Image.fromarray(synthetic.patch("malignant", seed=5))
    jpeg = encoded(drawn, "JPEG", quality=60)
    decoded = open_image(jpeg)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files = {
        "JPEG": jpeg,
        "PNG": encoded(decoded, "PNG"),
        "TIFF": encoded(decoded, "TIFF", compression="tiff_lzw"),
        "BMP": encoded(decoded, "BMP"),
        "WebP": encoded(decoded, "WEBP", lossless=True),
        "with a note": encoded(decoded, "PNG", dpi=(96, 96)),
    }
    hashes = {
        name: shown_images.hash_png(shown_images.encode_png(open_image(data)))
        for name, data in files.items()
    }
    assert len(set(hashes.values())) == 1
    for said in ({"icc_profile": profile}, {"transparency": (250, 250, 250)}):
        opened = open_image(encoded(decoded, "PNG", **said))
        bare = Image.fromarray(np.asarray(opened))
        assert shown_images.encode_png(opened) == shown_images.encode_png(bare)
    analysis = examinations.analyse_for_patient(
        clinic, ada, small_models, patient, [HandedIn(files["PNG"])], NAMES[:1], False
    )
    number = examinations.save(clinic, ada, patient, analysis, Details())
    found, _ = examinations.view(clinic, ada, number)
    assert found.images[0].sha256 == hashes["JPEG"]


# What is kept, and when


def test_it_is_kept_once_whoever_comes_together(clinic: Installation, ada: Actor) -> None:
    names = [f"{number:064x}" for number in range(20)]

    def note(number: int) -> None:
        mine = names[number:] + names[:number]
        with clinic.database.transaction() as session:
            shown_images.note_shown(session, ada.account_id, mine + mine[:3])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(16)))
    assert rows_of(clinic) == {(ada.account_id, name) for name in names}
    with clinic.database.snapshot() as session:
        assert shown_images.were_shown(session, ada.account_id, ["f" * 64, names[3]])
        assert not shown_images.were_shown(session, ada.account_id, ["f" * 64])
        assert not shown_images.were_shown(session, ada.account_id, [])


def test_an_analysis_says_what_was_shown_and_is_saved_so(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    handed_in = [HandedIn(path.read_bytes()) for path in PATCHES[:2]]

    def analyse(shown: bool) -> Analysis:
        return examinations.analyse_for_patient(
            clinic, ada, small_models, patient, handed_in, NAMES[:1], shown
        )

    hidden = analyse(shown=False)
    assert (hidden.shown, hidden.shown_before) == (False, False)
    assert rows_of(clinic) == set()
    shown = analyse(shown=True)
    assert (shown.shown, shown.shown_before) == (True, False)
    assert len(rows_of(clinic)) == 2
    assert analyse(shown=False).shown_before
    _, may_see = examinations.view(
        clinic, ada, examinations.save(clinic, ada, patient, shown, Details())
    )
    assert may_see
    number = examinations.save(clinic, ada, patient, hidden, Details())
    assert not examinations.view(clinic, ada, number)[1]  # they stay hidden until asked for
    assert is_after(clinic, ada, number)


def test_no_answer_goes_out_that_is_not_kept(
    clinic: Installation, ada: Actor, patient: str, small_models: Models
) -> None:
    with clinic.database.engine.begin() as connection:
        connection.execute(text("DROP TABLE shown_image"))
    handed_in = [HandedIn(PATCHES[0].read_bytes())]
    with pytest.raises(Exception, match="shown_image"):
        examinations.analyse_for_patient(
            clinic, ada, small_models, patient, handed_in, NAMES[:1], True
        )
    with pytest.raises(Exception, match="shown_image"):
        show(clinic, ada, PATCHES[0])
    shown_images.note_shown_to(clinic.database, None, map(open_image, [b"not even an image"]))


# How reads are filed


def test_what_was_shown_elsewhere_files_a_read_as_after(
    clinic: Installation, ada: Actor, saved: Callable[..., str]
) -> None:
    blind = saved(shown=False)
    assert not examinations.answers_were_seen(clinic, ada, blind)
    assert not is_after(clinic, ada, blind)
    show(clinic, ada, PATCHES[1])  # one of the examination's two
    assert examinations.answers_were_seen(clinic, ada, blind)
    assert is_after(clinic, ada, blind)
    assert is_after(clinic, ada, saved(shown=False))
    found, may_see = examinations.view(clinic, ada, blind)
    assert not may_see
    assert [read.result_shown for read in found.reads] == [False, True]


def test_another_image_and_another_account_s_look_leave_a_read_blind(
    clinic: Installation, doctors: dict[str, Actor], saved: Callable[..., str]
) -> None:
    show(clinic, doctors["ada"], PATCHES[2])
    show(clinic, doctors["grace"], PATCHES[0])
    assert not is_after(clinic, doctors["ada"], saved(shown=False))


def test_dashboard_table_and_report_follow(
    clinic: Installation,
    ada: Actor,
    saved: Callable[..., str],
    small_models: Models,
    keys: list[str],
) -> None:
    def counted() -> dict[str, int]:
        shown = analytics.count_period(clinic, ada, keys[0], TODAY).agreement
        return {name: shown[name].compared for name in (BEFORE, AFTER)}

    blind, tried = saved(shown=False), saved(shown=False)
    assert not is_after(clinic, ada, blind)
    show(clinic, ada, PATCHES[0])
    assert is_after(clinic, ada, tried)
    assert counted() == {BEFORE: 1, AFTER: 1}
    told = text_of(reports.issue_report(clinic, ada, small_models, tried)[1])
    assert HIDDEN in told
    assert "after the models' answers were shown" in told
    assert "Estimated probability" not in told
    told = text_of(reports.issue_report(clinic, ada, small_models, blind)[1])
    assert HIDDEN in told
    assert "before the models' answers were shown" in told
    for one in (blind, tried):
        examinations.view(clinic, ada, one, reveal=True)
    table = (
        answer_table.export_answers(clinic, ada, keys[0], TODAY).decode("utf-8-sig").splitlines()
    )
    filed = {line.split(",")[0]: line.split(",")[12] for line in table[1:]}
    assert filed == {blind: "False", tried: "True"}
    assert verify.verify(clinic).problems == []


def test_an_export_shows_hidden_answers(
    clinic: Installation, ada: Actor, patient: str, saved: Callable[..., str]
) -> None:
    number = saved(shown=False)
    before = export.export(clinic, ada, patient)
    assert not examinations.view(clinic, ada, number)[1]
    assert is_after(clinic, ada, number)
    assert len(before) > 1000


# How long it is kept


def test_it_goes_with_the_last_record_of_the_image(
    clinic: Installation, doctors: dict[str, Actor], analysed: tuple[Analysed, ...]
) -> None:
    ada, grace = doctors["ada"], doctors["grace"]
    hers, other = (patients.create(clinic, ada, PatientForm()) for _ in range(2))
    examinations.save(clinic, ada, hers, Analysis(analysed, True), Details())
    examinations.save(clinic, ada, other, Analysis(analysed[:1], False), Details())
    show(clinic, grace, PATCHES[1])
    show(clinic, ada, PATCHES[3])  # tried, and never saved
    assert len(rows_of(clinic)) == 4
    patients.delete(clinic, ada, hers, hers)
    named, tried = (
        shown_images.hash_png(shown_images.encode_png(open_image(PATCHES[number])))
        for number in (0, 3)
    )
    assert rows_of(clinic) == {(ada.account_id, named), (ada.account_id, tried)}
    patients.delete(clinic, ada, other, other)
    assert rows_of(clinic) == {(ada.account_id, tried)}


def test_what_was_only_tried_goes_after_90_days_with_a_sign_in(
    clinic: Installation,
    doctors: dict[str, Actor],
    saved: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada = doctors["ada"]
    accounts.create(clinic, doctors["admin"], "mary", "doctor", PASSWORD)
    saved()
    kept = rows_of(clinic)
    show(clinic, ada, PATCHES[3])
    began = clock.now()
    for days, left in ((89, 3), (91, 2)):
        monkeypatch.setattr(clock, "now", lambda days=days: began + timedelta(days=days))
        sign_ins.sign_in(clinic, "mary", PASSWORD, "10.0.0.1")
        assert len(rows_of(clinic)) == left
    assert rows_of(clinic) == kept


def test_who_takes_patients_over_has_seen_nothing(
    clinic: Installation, doctors: dict[str, Actor], saved: Callable[..., str]
) -> None:
    ada, grace = doctors["ada"], doctors["grace"]
    number = saved()
    with clinic.database.transaction() as session:
        session.get_one(Account, ada.account_id).active = False
    patients.hand_over(clinic, doctors["admin"], ada.account_id, grace.account_id)
    assert not is_after(clinic, grace, number)


def test_what_earlier_releases_showed_is_taken_over(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url or f"sqlite:///{tmp_path / 'clinic.db'}")
    migrations.migrate(database, "0002")
    tables = MetaData()
    tables.reflect(database.engine)
    first, last = clock.now() - timedelta(days=2), clock.now()
    account = {"role": "doctor", "active": True, "created_at": first}
    examination = {"patient_id": "P-1", "made_by": 1, "created_at": first, "comment": ""}
    examination |= {"stain": "H&E", "specimen": "other"}
    image = {"position": 1, "format": "PNG", "width": 50, "height": 50}
    rows: dict[str, list[dict[str, Any]]] = {
        "account": [{"id": 1, "name": "ada", **account}, {"id": 2, "name": "grace", **account}],
        "patient": [
            {"id": "P-1", "owner_id": 1, "note": "", "synthetic": False, "version": 1}
            | {"created_at": first, "changed_at": first}
        ],
        "examination": [{"id": f"E-{number}", **examination} for number in (1, 2, 3)],
        "examined_image": [
            {"examination_id": "E-1", "sha256": "a" * 64, **image},
            {"examination_id": "E-1", "sha256": "b" * 64, **image, "position": 2},
            {"examination_id": "E-2", "sha256": "a" * 64, **image},
            {"examination_id": "E-3", "sha256": "c" * 64, **image},
        ],
        "look": [
            {"examination_id": "E-1", "account_id": 1, "at": first},
            {"examination_id": "E-2", "account_id": 1, "at": last},
            {"examination_id": "E-2", "account_id": 2, "at": first},
        ],
    }
    with database.engine.begin() as connection:
        for name, some in rows.items():
            connection.execute(tables.tables[name].insert(), some)
    migrations.migrate(database)
    with database.snapshot() as session:
        found = {(one.account_id, one.sha256[0], one.at) for one in session.query(ShownImage)}
    assert found == {(1, "a", last), (1, "b", first), (2, "a", first)}
    database.engine.dispose()


# Through the running app


class RawPage:
    """One page of the app in a session of its own, called past what its browser would hold back."""

    def __init__(self, client: TestClient, page: str, **query: str) -> None:
        self._client, self._query, self._session = client, query, secrets.token_hex(8)
        config = client.get("/config").json()
        known = config["page"][page]["components"]
        self._parts = {one["id"]: one for one in config["components"] if one["id"] in known}
        mine = config["page"][page]["dependencies"]
        self._listeners = [
            one for one in config["dependencies"] if one["id"] in mine and one["backend_fn"]
        ]

    def default_of(self, label: str) -> Any:
        return next(
            part["props"]["value"]
            for part in self._parts.values()
            if part["props"].get("label") == label
        )

    def call(self, words: str, event: str, **values: Any) -> list[Any]:
        """Call the listener of what ``words`` stand on; returns its outputs, or what failed.

        Args:
            words: Label or inscription.
            event: Such as "click".
            values: Of inputs by label, in place of their defaults; ``state`` is sent for states.
        """
        on = {
            (key, event)
            for key, part in self._parts.items()
            if words in (part["props"].get("label"), part["props"].get("value"))
        }
        (listener,) = (one for one in self._listeners if on & {*map(tuple, one["targets"])})
        return self._ask(listener, values)

    def load(self) -> str:
        """What the page shows at first."""
        begun = (one for one in self._listeners if {on for _, on in one["targets"]} == {"load"})
        return "".join(str(self._ask(one, {})) for one in begun)

    def _ask(self, listener: dict[str, Any], values: dict[str, Any]) -> list[Any]:
        data = [self._value(self._parts[key], values) for key in listener["inputs"]]
        asked = {"data": data, "fn_index": listener["id"], "session_hash": self._session}
        joined = self._client.post("/gradio_api/queue/join", params=self._query, json=asked)
        assert joined.status_code == 200, joined.text
        stream = self._client.get(
            "/gradio_api/queue/data", params={"session_hash": self._session}
        ).text
        messages = [json.loads(line[6:]) for line in stream.splitlines() if line[:6] == "data: "]
        (done,) = (one for one in messages if one["msg"] == "process_completed")
        return list(done["output"]["data"]) if done["success"] else [done["output"]["error"]]

    def _value(self, part: dict[str, Any], values: dict[str, Any]) -> Any:
        if part["type"] == "state":
            return values.get("state")
        empty = "" if part["type"] == "textbox" else None  # as a browser sends it
        first = part["props"].get("value")
        return values.get(part["props"].get("label"), empty if first is None else first)


def draw_image() -> bytes:
    seed = secrets.randbelow(1 << 30)
    return encoded(Image.fromarray(synthetic.patch("malignant", seed=seed)), "PNG")


@dataclass
class Reader(SignedIn):
    """A doctor of the running app with an image that nobody else has."""

    image: bytes = field(default_factory=draw_image)

    def hand_in(self, client: TestClient | None = None) -> dict[str, Any]:
        return in_json(upload(client or self.client, self.image))

    def examined(self, shown: bool) -> list[Any]:
        """What ``save_examination`` takes."""
        return [self.patient, [self.hand_in()], NAMES[:1], 0, 0, "H&E", "not known", "", shown]

    def save_hidden(self) -> str:
        (saved,) = answer(self.client, "save_examination", *self.examined(shown=False))
        assert saved["images"][0]["answers"] == []
        return str(saved["examination"])

    def analyse(self, hide: bool) -> tuple[RawPage, str]:
        """Hand in and analyse on the page; returns it, and what it shows then."""
        page = RawPage(self.client, "examine", patient=self.patient)
        page.call("Images", "upload", Images=[self.hand_in()])
        return page, str(page.call("Analyse", "click", **{HIDE: hide})[0])


@pytest.fixture
def reader(serving: Serving) -> Reader:
    return Reader(**vars(sign_in_doctor(serving)))


def try_page(reader: Reader, client: TestClient, name: str = "try") -> None:
    page = RawPage(client, name)
    page.call("Images", "upload", Images=[reader.hand_in(client)])
    assert "bcd-answer" in page.call("Analyse", "click")[0]


DOORS: dict[str, Callable[[Reader], object]] = {
    "the page to try images": lambda r: try_page(r, r.client),
    "/predict": lambda r: answer(r.client, "predict", r.hand_in(), NAMES[0]),
    "/explain": lambda r: answer(r.client, "explain", r.hand_in(), NAMES[0], "predicted", 0.5),
    "/report": lambda r: answer(r.client, "report", r.hand_in(), NAMES[0]),
    "/save_examination": lambda r: answer(r.client, "save_examination", *r.examined(shown=True)),
    "the page to examine, nothing saved": lambda r: r.analyse(hide=False),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("when", ["before it is saved", "between saving and reading"])
def test_an_answer_by_any_door_ends_blindness(reader: Reader, door: str, when: str) -> None:
    if when == "before it is saved":
        DOORS[door](reader)
        number = reader.save_hidden()
    else:
        number = reader.save_hidden()
        DOORS[door](reader)
    assert is_after(reader.clinic, reader.actor, number)
    assert not examinations.view(reader.clinic, reader.actor, number)[1]


def test_without_any_a_read_is_blind(reader: Reader) -> None:
    page, shown = reader.analyse(hide=True)
    assert "bcd-answer" not in shown
    assert SEEN_BEFORE not in shown
    assert reader.actor.account_id not in {account for account, _ in rows_of(reader.clinic)}
    (number,) = page.call("Save examination", "click")
    opened = RawPage(reader.client, "examination", id=number).load()
    assert "have not been shown to you" in opened
    assert not is_after(reader.clinic, reader.actor, number)


def test_a_guest_s_answer_is_nobody_s(serving: Serving, reader: Reader) -> None:
    guest, before = serving.visitor(), rows_of(reader.clinic)
    try_page(reader, guest, "")
    answer(guest, "predict", reader.hand_in(guest), NAMES[0])
    answer(guest, "explain", reader.hand_in(guest), NAMES[0], "predicted", 0.5)
    answer(guest, "report", reader.hand_in(guest), NAMES[0])
    assert rows_of(reader.clinic) == before


def test_what_fails_shows_nothing(reader: Reader) -> None:
    before = rows_of(reader.clinic)
    event = start_call(reader.client, "predict", reader.hand_in(), "other")
    assert "event: error" in reader.client.get(f"/gradio_api/call/predict/{event}").text
    assert rows_of(reader.clinic) == before


@pytest.mark.parametrize("at_analysing", [False, True])
def test_the_analysis_decides_and_no_tick_at_saving(reader: Reader, at_analysing: bool) -> None:
    page, shown = reader.analyse(hide=at_analysing)
    assert ("bcd-answer" in shown) is not at_analysing
    claimed = {"images": [], "shown": not at_analysing}  # a state that no server would take
    (number,) = page.call("Save examination", "click", **{HIDE: not at_analysing}, state=claimed)
    _, may_see = examinations.view(reader.clinic, reader.actor, number)
    assert may_see is not at_analysing
    assert is_after(reader.clinic, reader.actor, number) is not at_analysing


def test_pages_say_that_answers_were_seen_before(reader: Reader) -> None:
    reader.analyse(hide=False)
    page, shown = reader.analyse(hide=True)
    assert "bcd-answer" not in shown
    assert SEEN_BEFORE in shown
    (number,) = page.call("Save examination", "click")
    opened = RawPage(reader.client, "examination", id=number).load()
    assert SEEN_BEFORE in opened
    assert "have not been shown to you" not in opened
    assert "bcd-answer" not in opened


def test_reading_first_is_the_default(reader: Reader) -> None:
    page = RawPage(reader.client, "examine", patient=reader.patient)
    assert page.default_of(HIDE) is True


def test_a_slide_that_is_an_image_too_is_one(
    serving: Serving, reader: Reader, tmp_path: Path
) -> None:
    drawn = draw_layout(drawn_layout()[:6, :6], SMALL_MPP)
    slide = write_slide(tmp_path / "slide.tif", drawn, SMALL_MPP, downsamples=[1]).read_bytes()
    reader.image = encoded(open_image(slide), "PNG")
    page = RawPage(reader.client, "slide")
    page.call("Slide", "upload", Slide=in_json(upload(reader.client, slide)))
    assert "bcd-answer" in page.call("Analyse", "click")[0]
    assert is_after(reader.clinic, reader.actor, reader.save_hidden())


def test_no_answer_goes_out_of_the_app_that_is_not_kept(
    small_models: Models, tmp_path: Path
) -> None:
    with serving_at(tmp_path, small_models) as serving:
        reader, guest = Reader(**vars(sign_in_doctor(serving))), serving.visitor()
        with serving.clinic.database.engine.begin() as connection:
            connection.execute(text("DROP TABLE shown_image"))
        asked = {
            "predict": [NAMES[0]],
            "explain": [NAMES[0], "predicted", 0.5],
            "report": [NAMES[0]],
        }
        for endpoint, more in asked.items():
            event = start_call(reader.client, endpoint, reader.hand_in(), *more)
            stream = reader.client.get(f"/gradio_api/call/{endpoint}/{event}").text
            assert "event: error" in stream
            assert "probability" not in stream
            answer(guest, endpoint, reader.hand_in(guest), *more)
        _, shown = reader.analyse(hide=False)
        assert "bcd-answer" not in shown
        page = RawPage(reader.client, "try")
        page.call("Images", "upload", Images=[reader.hand_in()])
        assert "bcd-answer" not in page.call("Analyse", "click")[0]
