"""Role by act by ownership, through the services: every act, every kind of actor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest

from clinic.accounts import accounts, audit, sign_ins
from clinic.analysis import points, slide_jobs
from clinic.analysis.analyse import Analysed, Analysis, HandedIn
from clinic.analysis.models import Models
from clinic.dashboard import analytics, answer_table
from clinic.installation import Installation
from clinic.records import examinations, export, patients, reads
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.reports import service
from clinic.storage import clock
from clinic.storage.actor import Actor, NotAllowed, NotFound, NotSignedIn
from clinic.storage.tables import Account
from clinic.upkeep import system
from tests.support.clinic import PATCHES

Act = Callable[..., object]
FORM = PatientForm("AB-7777", 1960, "")

# Acts on somebody's patient P, examination E: theirs who owns them, nobody else's.
OWNED: dict[str, Act] = {
    "patients.view": lambda c, a, k: patients.view(c, a, k.patient),
    "patients.edit": lambda c, a, k: patients.edit(c, a, k.patient, FORM, 1),
    "patients.archive": lambda c, a, k: patients.archive(c, a, k.patient),
    "patients.restore": lambda c, a, k: patients.restore(c, a, k.patient),
    "patients.delete": lambda c, a, k: patients.delete(c, a, k.patient, k.patient),
    "export.export": lambda c, a, k: export.export(c, a, k.patient),
    "examinations.analyse_for_patient": lambda c, a, k: examinations.analyse_for_patient(
        c, a, k.models, k.patient, [HandedIn(PATCHES[0].read_bytes())], k.models.names, True
    ),
    "examinations.save": lambda c, a, k: examinations.save(
        c, a, k.patient, Analysis(k.analysed, True), Details()
    ),
    "examinations.view": lambda c, a, k: examinations.view(c, a, k.examination),
    "examinations.answers_were_seen": lambda c, a, k: examinations.answers_were_seen(
        c, a, k.examination
    ),
    "examinations.list_examinations": lambda c, a, k: examinations.list_examinations(
        c, a, k.patient
    ),
    "examinations.read_image": lambda c, a, k: examinations.read_image(c, a, k.examination, 1),
    "examinations.read_heat_map": lambda c, a, k: examinations.read_heat_map(
        c, a, k.examination, 1, k.model
    ),
    "reads.record": lambda c, a, k: reads.record(c, a, k.examination, "none"),
    "service.issue_report": lambda c, a, k: service.issue_report(c, a, k.models, k.examination),
}
# Acts of any doctor, which reach that doctor's own records alone.
DOCTORS: dict[str, Act] = {
    "patients.create": lambda c, a, _k: patients.create(c, a, FORM),
    "patients.search_patients": lambda c, a, _k: patients.search_patients(c, a),
    "examinations.list_unread": lambda c, a, _k: examinations.list_unread(c, a),
    "points.read_own_point": lambda c, a, k: points.read_own_point(c, k.models, a),
    "points.choose_own_point": lambda c, a, k: points.choose_own_point(c, k.models, a, None),
}
ADMINS: dict[str, Act] = {
    "accounts.create": lambda c, a, _k: accounts.create(c, a, "new", "doctor", "correct horse"),
    "accounts.list_accounts": lambda c, a, _k: accounts.list_accounts(c, a),
    "accounts.reset_password": lambda c, a, k: accounts.reset_password(c, a, k.other),
    "accounts.set_active": lambda c, a, k: accounts.set_active(c, a, k.other, False),
    "audit.search_acts": lambda c, a, _k: audit.search_acts(c, a),
    "audit.list_filters": lambda c, a, _k: audit.list_filters(c, a),
    "patients.hand_over": lambda c, a, k: patients.hand_over(c, a, k.closed, k.other),
    "sign_ins.list_open_sessions": lambda c, a, _k: sign_ins.list_open_sessions(c, a),
    "system.check_health": lambda c, a, k: system.check_health(c, a, k.models),
    "system.list_settings": lambda c, a, _k: system.list_settings(c, a),
    "system.list_models_in_use": lambda c, a, k: system.list_models_in_use(c, a, k.models),
    "system.measure_room": lambda c, a, _k: system.measure_room(c, a),
    "sign_ins.end_sessions": lambda c, a, k: sign_ins.end_sessions(c, a, k.closed),
}
ANYONES: dict[str, Act] = {
    "accounts.change_password": lambda _c, _a, _k: None,  # of one's own: test_accounts.py
    # Of own patients, or for an admin numbers alone: test_analytics.py, test_answer_table.py
    **dict.fromkeys(
        (
            "analytics.find_first_day",
            "analytics.list_models_used",
            "analytics.count_period",
            "answer_table.export_answers",
        ),
        lambda _c, _a, _k: None,
    ),
    "service.check_report": lambda c, a, _k: service.check_report(c, a, "0" * 64),
    # A doctor's, of no record: test_slide_jobs.py
    **dict.fromkeys(("slide_jobs.inspect_slide", "slide_jobs.map_slide"), lambda _c, _a, _k: None),
}


class Known:
    """What the acts are about."""

    def __init__(self, **things: object) -> None:
        self.__dict__.update(things)


@pytest.fixture
def known(
    clinic: Installation,
    doctors: dict[str, Actor],
    patient: str,
    saved: Callable[..., str],
    analysed: tuple[Analysed, ...],
    small_models: Models,
) -> Known:
    with clinic.database.transaction() as session:
        closed = Account(name="closed", role="doctor", active=False, created_at=clock.now())
        session.add(closed)
        session.flush()
        number = closed.id
    return Known(
        patient=patient,
        examination=saved(),
        analysed=analysed,
        models=small_models,
        model=small_models.names[0],
        other=doctors["grace"].account_id,
        closed=number,
    )


def refuses(act: Act, clinic: Installation, other_role: Actor, known: Known) -> None:
    """An act is neither a stranger's nor the other role's."""
    with pytest.raises(NotSignedIn):
        act(clinic, None, known)
    with pytest.raises(NotAllowed):
        act(clinic, other_role, known)


@pytest.mark.parametrize("act", OWNED)
def test_an_act_on_a_record_is_its_owner_s(
    clinic: Installation, doctors: dict[str, Actor], known: Known, act: str
) -> None:
    refuses(OWNED[act], clinic, doctors["admin"], known)
    with pytest.raises(NotFound) as told:
        OWNED[act](clinic, doctors["grace"], known)
    known_id, known.patient = known.patient, "P-0000000000"
    examination, known.examination = known.examination, "E-0000000000"
    with pytest.raises(NotFound) as absent:
        OWNED[act](clinic, doctors["grace"], known)
    assert str(told.value) == str(absent.value)  # another's reads like none
    known.patient, known.examination = known_id, examination
    OWNED[act](clinic, doctors["ada"], known)


@pytest.mark.parametrize("act", DOCTORS)
def test_an_act_of_doctors_reaches_their_own_records(
    clinic: Installation, doctors: dict[str, Actor], known: Known, act: str
) -> None:
    refuses(DOCTORS[act], clinic, doctors["admin"], known)
    own = DOCTORS[act](clinic, doctors["ada"], known)
    others = DOCTORS[act](clinic, doctors["grace"], known)
    if act.startswith(("patients.search", "examinations")):
        assert (own.total, others.total) == (1, 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize("act", ADMINS)
def test_an_act_of_admins_is_nobody_else_s(
    clinic: Installation, doctors: dict[str, Actor], known: Known, act: str
) -> None:
    refuses(ADMINS[act], clinic, doctors["ada"], known)
    ADMINS[act](clinic, doctors["admin"], known)


def test_checking_a_report_takes_a_sign_in(
    clinic: Installation, doctors: dict[str, Actor], known: Known
) -> None:
    with pytest.raises(NotSignedIn):
        ANYONES["service.check_report"](clinic, None, known)
    for name in ("ada", "admin"):
        ANYONES["service.check_report"](clinic, doctors[name], known)


@pytest.mark.parametrize(
    "service",
    [
        accounts,
        analytics,
        answer_table,
        audit,
        examinations,
        export,
        patients,
        points,
        reads,
        service,
        sign_ins,
        slide_jobs,
        system,
    ],
)
def test_no_act_is_left_out(service: ModuleType) -> None:
    """Whatever takes an actor who may be nobody is in one of the tables."""
    name = service.__name__.rpartition(".")[2]
    found = {
        f"{name}.{function}"
        for function, value in inspect.getmembers(service, inspect.isfunction)
        if value.__module__ == service.__name__
        and not function.startswith("_")
        and "Actor | None" in str(inspect.signature(value).parameters.get("actor"))
    }
    assert found
    assert found <= {*OWNED, *DOCTORS, *ADMINS, *ANYONES}
