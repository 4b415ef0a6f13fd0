"""The form of a patient, as both pages ask for it: to make a record, and to change one."""

from __future__ import annotations

import re
from html import escape

import gradio as gr

from bcd_models.errors import InputError
from clinic.records.patients import PatientForm, PatientRow

EXAMPLE = "AB-1234"  # of an external id


def add_fields(pattern: str) -> list[gr.Textbox]:
    """Add the fields under what they ask for.

    Args:
        pattern: That an external id must match.

    Returns:
        External id, year of birth, note.
    """
    example = EXAMPLE if re.fullmatch(pattern, EXAMPLE) else ""
    gr.HTML(_asked_for(pattern, example))
    typed = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)
    with gr.Row():
        external_id = gr.Textbox(label="External id", html_attributes=typed)
        birth_year = gr.Textbox(label="Year of birth", html_attributes=typed)
    note = gr.Textbox(label="Note, without names", lines=3, html_attributes=typed)
    return [external_id, birth_year, note]


def form_of(external_id: str, birth_year: str, note: str) -> PatientForm:
    """What was typed; InputError where the year is no number."""
    year = birth_year.strip()
    if year and not re.fullmatch("[0-9]{4}", year):
        raise InputError("a year of birth has four digits, such as 1957")
    return PatientForm(external_id, int(year) if year else None, note)


def filled(patient: PatientRow) -> tuple[str, str, str]:
    """What the fields hold of a patient."""
    return patient.external_id or "", str(patient.birth_year or ""), patient.note


def _asked_for(pattern: str, example: str) -> str:
    such = f", such as <code>{example}</code>" if example else ""
    return f"""
<p class="bcd-quiet">No field asks for a name, so that none can get out: here a patient is known by
  the id that the app issues. Write no name into the note either. Any field may stay empty.</p>
<p class="bcd-quiet">The external id is your department's own pseudonym. It must match
  <code>{escape(pattern)}</code>{such}.</p>
"""
