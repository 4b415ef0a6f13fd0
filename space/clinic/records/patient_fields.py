"""What is asked of a patient: each field declared once, in ``PatientForm``; none of them a name.

Form, page, list, search, export, report and endpoint go through ``FIELDS``. One more field is one
more line at the end of ``PatientForm``, and a column of its name with a migration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bcd_models.errors import InputError
from clinic.records.texts import check_text
from clinic.settings import Settings
from clinic.storage import clock

MIN_BIRTH_YEAR = 1900
MAX_EXTERNAL_ID = 64  # characters, as the column takes them

Parse = Callable[[str, Settings], Any]


def show_value(value: object) -> str:
    """Return a value as people read it, "" where there is none."""
    return "" if value is None else str(value)


@dataclass(frozen=True)
class PatientField:
    """How a field is asked for, kept and shown."""

    label: str  # what pages, lists and reports call it
    # from what was typed, "" where that is nothing, to what is kept; raises InputError
    parse: Parse
    # from what is kept to text, "" where there is none; ``parse`` takes that back
    show: Callable[[Any], str] = show_value
    form_label: str = ""  # what the form calls it; "": as ``label``
    # what a script leaves it empty with: "", or 0 where it is a number
    script_default: str | int = ""
    names_patient: bool = False  # whether it stands in headings, beside the patient's id
    # whether it takes several lines: it is on the patient's page, in no list or report
    is_long: bool = False
    is_searched: bool = True  # whether a search looks into it
    name: str = ""  # of the column, of the endpoint's argument and of the export's key


def ask(default: object, label: str, parse: Parse, **more: Any) -> Any:
    """Declare a field of ``PatientForm``: what is kept where nothing was typed, and the rest."""
    return field(default=default, metadata={"field": PatientField(label, parse, **more)})


def fields_of(form: type[PatientForm]) -> tuple[PatientField, ...]:
    """Return the fields that a form declares, in order."""
    return tuple(replace(one.metadata["field"], name=one.name) for one in fields(form))


def parse_external_id(text: str, settings: Settings) -> str | None:
    """Return a department's own pseudonym; InputError where it doesn't match the pattern."""
    text, pattern = text.strip(), settings.external_id
    if text and (len(text) > MAX_EXTERNAL_ID or not re.fullmatch(pattern, text)):
        raise InputError(
            f"an external id must look like {pattern}: it is a pseudonym, and names are not asked "
            "for, so that none can get out"
        )
    return text or None


def parse_birth_year(text: str, _settings: Settings) -> int | None:
    """Return a year; InputError where it is none, or nobody alive was born in it."""
    text = text.strip()
    if not text:
        return None
    if not re.fullmatch("[0-9]{4}", text):
        raise InputError("a year of birth has four digits, such as 1957")
    if not MIN_BIRTH_YEAR <= int(text) <= clock.now().year:
        raise InputError(f"a year of birth lies between {MIN_BIRTH_YEAR} and {clock.now().year}")
    return int(text)


def parse_note(text: str, _settings: Settings) -> str:
    """Return free text; InputError where it is too long or holds control characters."""
    return check_text(text, "note")


@dataclass(frozen=True)
class PatientForm:
    """What is asked of a patient, as it is kept."""

    external_id: str | None = ask(None, "External id", parse_external_id, names_patient=True)
    birth_year: int | None = ask(
        None, "Year of birth", parse_birth_year, script_default=0, is_searched=False
    )
    note: str = ask("", "Note", parse_note, form_label="Note, without names", is_long=True)


FIELDS = fields_of(PatientForm)


def parse_form(settings: Settings, typed: Iterable[str]) -> PatientForm:
    """Return what was typed into each of ``FIELDS`` as it is kept; InputError where it can't be."""
    pairs = zip(FIELDS, typed, strict=True)
    return PatientForm(**{one.name: one.parse(text, settings) for one, text in pairs})


def show_form(form: object) -> list[str]:
    """Return the text of each of ``FIELDS``, of a form or of anything with its attributes."""
    return [one.show(getattr(form, one.name)) for one in FIELDS]
