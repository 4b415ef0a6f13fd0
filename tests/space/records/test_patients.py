"""Patients on both databases: found, changed, archived, deleted, handed over; own ones alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bcd_models.errors import InputError
from clinic.accounts.accounts import set_active
from clinic.installation import Installation
from clinic.records import patients
from clinic.records.patient_fields import PatientForm
from clinic.records.patients import Conflict
from clinic.storage import clock
from clinic.storage.actor import Actor, NotAllowed, NotFound, NotSignedIn
from clinic.storage.tables import AuditEntry, Examination, ExaminedImage, Patient, Read, Result

Doctors = dict[str, Actor]


def examined(clinic: Installation, doctor: Actor, patient_id: str, data: bytes) -> list[str]:
    """An examination without models; returns the hashes of its files."""
    files = [data, data + b" heat"]
    with clinic.storage.lock_for_saving(), clinic.database.transaction() as session:
        image_sha256, heat_sha256 = (clinic.storage.put(each) for each in files)
        result = Result(
            made_at=clock.now(), model="m", model_version="1", weights_sha256="0" * 64,
            label="benign", probability=0.2, decision="benign", reasons=[], threshold=0.5,
            heat_sha256=heat_sha256,
        )  # fmt: skip
        image = ExaminedImage(
            position=1, sha256=image_sha256, format="PNG", width=5, height=5, results=[result]
        )
        session.add(
            Examination(
                id=f"E-{patient_id[2:]}", patient_id=patient_id, made_by=doctor.account_id,
                created_at=clock.now(), stain="H&E", specimen="core", images=[image],
            )
        )  # fmt: skip
    return [image_sha256, heat_sha256]


def test_a_record_is_made_and_shown(clinic: Installation, ada: Actor) -> None:
    form = PatientForm(" AB-1234 ", 1957, "left breast\n<b>bold</b>")
    number = patients.create(clinic, ada, form)
    row = patients.view(clinic, ada, number)
    assert number.startswith("P-")
    assert (row.external_id, row.birth_year, row.note) == ("AB-1234", 1957, form.note)
    assert (row.examinations, row.unread, row.synthetic, row.version) == (0, 0, False, 1)
    examined(clinic, ada, number, b"image")
    row = patients.view(clinic, ada, number)
    assert (row.examinations, row.unread) == (1, 1)
    with clinic.database.transaction() as session:
        session.add(
            Read(
                examination_id=f"E-{number[2:]}", number=1, verdict="none", by=ada.account_id,
                at=clock.now(), result_shown=False,
            )
        )  # fmt: skip
    assert patients.view(clinic, ada, number).unread == 0


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (PatientForm("Ada Lovelace"), "names are not asked"),
        (PatientForm("AB-1234\nx"), "must look like"),
        (PatientForm("AB-" + "1" * 80), "must look like"),
        (PatientForm(birth_year=1850), "year of birth"),
        (PatientForm(birth_year=3000), "year of birth"),
        (PatientForm(note="x" * 2001), "at most 2000"),
        (PatientForm(note="a\x00b"), "control characters"),
        (PatientForm(note="a\u202eb"), "control characters"),
    ],
)
def test_what_can_not_be_accepted(
    clinic: Installation, ada: Actor, form: PatientForm, says: str
) -> None:
    number = patients.create(clinic, ada, PatientForm())
    with pytest.raises(InputError, match=says):
        patients.create(clinic, ada, form)
    with pytest.raises(InputError, match=says):
        patients.edit(clinic, ada, number, form, 1)


def test_an_external_id_is_given_once_a_doctor(clinic: Installation, doctors: Doctors) -> None:
    form = PatientForm("AB-1234")
    first, other = (patients.create(clinic, doctors[name], form) for name in ("ada", "grace"))
    assert first != other
    with pytest.raises(InputError, match=first):
        patients.create(clinic, doctors["ada"], form)
    patients.edit(clinic, doctors["ada"], first, form, 1)


def test_words_are_found_as_they_are_written(clinic: Installation, doctors: Doctors) -> None:
    ada = doctors["ada"]
    notes = {"100% sure": "AB-1", "under_score": None, "Größe": "CD-22", "plain": "CD-33"}
    made = {}
    for note, external_id in notes.items():
        external_id = external_id and external_id.replace("AB-1", "AB-11")
        made[note] = patients.create(clinic, ada, PatientForm(external_id, note=note))
    patients.create(clinic, doctors["grace"], PatientForm(note="100% sure"))

    def notes_of(words: str) -> set[str]:
        return {row.note for row in patients.search_patients(clinic, ada, words).rows}

    assert notes_of("") == set(notes)
    assert notes_of("%") == {"100% sure"}
    assert notes_of("_") == {"under_score"}
    assert notes_of("größe") == {"Größe"}
    assert notes_of("cd- PLAIN") == {"plain"}
    assert notes_of(made["plain"][2:].lower()) == {"plain"}
    assert notes_of("nothing") == set()


def test_pages(clinic: Installation, ada: Actor) -> None:
    for _ in range(27):
        patients.create(clinic, ada, PatientForm())
    first, second, beyond = (patients.search_patients(clinic, ada, page=page) for page in (1, 2, 9))
    assert (len(first.rows), len(second.rows), first.total, first.pages) == (25, 2, 27, 2)
    assert beyond == second
    assert len({row.id for row in first.rows + second.rows}) == 27


def test_a_change_on_an_old_version_is_refused(clinic: Installation, ada: Actor) -> None:
    number = patients.create(clinic, ada, PatientForm(note="one"))
    patients.edit(clinic, ada, number, PatientForm(note="two"), 1)
    with pytest.raises(Conflict, match="meanwhile"):
        patients.edit(clinic, ada, number, PatientForm(note="three"), 1)
    assert patients.view(clinic, ada, number).note == "two"


def test_archived_and_restored(clinic: Installation, ada: Actor) -> None:
    number = patients.create(clinic, ada, PatientForm())
    patients.archive(clinic, ada, number)
    assert patients.search_patients(clinic, ada).total == 0
    assert [row.id for row in patients.search_patients(clinic, ada, archived=True).rows] == [number]
    patients.restore(clinic, ada, number)
    assert patients.search_patients(clinic, ada).total == 1


def test_deleting_takes_everything_below_and_no_file_of_others(
    clinic: Installation, ada: Actor
) -> None:
    number, other = (patients.create(clinic, ada, PatientForm()) for _ in range(2))
    files = examined(clinic, ada, number, b"own")
    shared = examined(clinic, ada, other, b"other")
    with clinic.database.transaction() as session:
        image = session.get_one(Examination, f"E-{number[2:]}").images[0]
        image.sha256 = shared[0]
    with pytest.raises(InputError, match=number):
        patients.delete(clinic, ada, number, "yes")
    patients.delete(clinic, ada, number, number)
    with clinic.database.snapshot() as session:
        for table in (Patient, Examination, ExaminedImage, Result):
            assert session.query(table).count() == 1
    assert sorted(clinic.storage.list_hashes()) == sorted(
        [*shared, files[0]]
    )  # that was never its own
    with pytest.raises(NotFound):
        patients.view(clinic, ada, number)


def test_a_closed_doctors_patients_are_handed_over(clinic: Installation, doctors: Doctors) -> None:
    ada, grace, admin = doctors["ada"], doctors["grace"], doctors["admin"]
    number = patients.create(clinic, ada, PatientForm("AB-11"))
    pair = (ada.account_id, grace.account_id)
    with pytest.raises(InputError, match="close it first"):
        patients.hand_over(clinic, admin, *pair)
    set_active(clinic, admin, ada.account_id, False)
    with pytest.raises(InputError, match="who may sign in"):
        patients.hand_over(clinic, admin, ada.account_id, admin.account_id)
    own = patients.create(clinic, grace, PatientForm("AB-11"))
    with pytest.raises(InputError, match="same external id: 1"):
        patients.hand_over(clinic, admin, *pair)
    patients.edit(clinic, grace, own, PatientForm("AB-12"), 1)
    assert patients.hand_over(clinic, admin, *pair) == 1
    assert patients.view(clinic, grace, number).external_id == "AB-11"


ACTS: dict[str, Callable] = {
    "create": lambda clinic, actor, _: patients.create(clinic, actor, PatientForm()),
    "found": lambda clinic, actor, _: patients.search_patients(clinic, actor),
    "view": patients.view,
    "edit": lambda clinic, actor, number: patients.edit(clinic, actor, number, PatientForm(), 1),
    "archive": patients.archive,
    "restore": patients.restore,
    "delete": lambda clinic, actor, number: patients.delete(clinic, actor, number, number),
}
OF_NOBODY = ("create", "found")


@pytest.mark.parametrize("act", ACTS)
def test_nobody_else_reaches_a_patient(clinic: Installation, doctors: Doctors, act: str) -> None:
    number = patients.create(clinic, doctors["ada"], PatientForm(note="hers"))
    with pytest.raises(NotSignedIn):
        ACTS[act](clinic, None, number)
    with pytest.raises(NotAllowed):
        ACTS[act](clinic, doctors["admin"], number)
    if act not in OF_NOBODY:
        with pytest.raises(NotFound) as theirs:
            ACTS[act](clinic, doctors["grace"], number)
        with pytest.raises(NotFound) as nobodys:
            ACTS[act](clinic, doctors["grace"], "P-0000000000")
        assert str(theirs.value) == str(nobodys.value)
    with pytest.raises(NotAllowed):
        patients.hand_over(clinic, doctors["ada"], 1, 2)
    assert patients.view(clinic, doctors["ada"], number).version == 1


def test_every_act_is_logged_without_words(clinic: Installation, ada: Actor) -> None:
    number = patients.create(clinic, ada, PatientForm("AB-11", 1950, "a secret"))
    patients.view(clinic, ada, number)
    patients.edit(clinic, ada, number, PatientForm("AB-12", 1950, "another secret"), 1)
    patients.archive(clinic, ada, number)
    patients.restore(clinic, ada, number)
    patients.delete(clinic, ada, number, number)
    with clinic.database.snapshot() as session:
        rows = [
            r for r in session.query(AuditEntry).order_by(AuditEntry.number) if number in r.subject
        ]
        assert clinic.log.find_problems(session) == []
    assert [row.action.removeprefix("patient_") for row in rows] == [
        "made", "viewed", "changed", "archived", "restored", "deleted",
    ]  # fmt: skip
    assert rows[2].detail == {"fields": ["external_id", "note"]}
    assert not any("secret" in str(row.detail) or "AB-1" in str(row.detail) for row in rows)
