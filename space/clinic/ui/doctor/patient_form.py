"""The form of a patient, as both pages ask for it: to make a record, and to change one."""

from __future__ import annotations

import re
from html import escape

import gradio as gr

from clinic.records.patient_fields import FIELDS, PatientField

EXAMPLE = "AB-1234"  # of an external id


def add_fields(pattern: str) -> list[gr.Textbox]:
    """Add the fields under what they ask for.

    Args:
        pattern: That an external id must match.

    Returns:
        One for each of ``FIELDS``, in their order.
    """
    example = EXAMPLE if re.fullmatch(pattern, EXAMPLE) else ""
    gr.HTML(_explain_fields(pattern, example))
    boxes: dict[str, gr.Textbox] = {}
    with gr.Row():
        boxes |= {one.name: _box(one) for one in FIELDS if not one.is_long}
    boxes |= {one.name: _box(one, lines=3) for one in FIELDS if one.is_long}
    return [boxes[one.name] for one in FIELDS]


def _box(one: PatientField, lines: int = 1) -> gr.Textbox:
    typed = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)
    return gr.Textbox(label=one.form_label or one.label, lines=lines, html_attributes=typed)


def _explain_fields(pattern: str, example: str) -> str:
    such = f", such as <code>{example}</code>" if example else ""
    return f"""
<p class="bcd-quiet">No field asks for a name, so that none can get out: here a patient is known by
  the id that the app issues. Write no name into the note either. Any field may stay empty.</p>
<p class="bcd-quiet">The external id is your department's own pseudonym. It must match
  <code>{escape(pattern)}</code>{such}.</p>
"""
