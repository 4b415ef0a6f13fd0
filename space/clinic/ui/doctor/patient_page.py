"""One patient: what is kept of the record, its examinations, and what may be done with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.records import examinations, patients
from clinic.records.examinations import ExaminationRow
from clinic.records.patient_fields import FIELDS, parse_form, show_form
from clinic.records.patients import Conflict, PatientRow
from clinic.storage.actor import Actor
from clinic.ui.doctor.patient_form import add_fields
from clinic.ui.doctor.patients_page import SYNTHETIC
from clinic.ui.frame import PRIVATE, QUICK, alert, get_actor, read_query
from clinic.ui.tables import cell, empty, facts, lines, link, moment, table

HEADS = ("Examination", "Saved", "Images", "Read")
CHANGED = (
    "This patient was changed meanwhile, and nothing was saved. The page now shows the record as "
    "it is; the form still holds what you typed. Save again to put that in its place."
)
DELETES = """
<p class="bcd-quiet">Deletes the record for good, with its examinations, images, reads and reports;
  reports that were handed out are then no longer known under “Check a report”. Export what is to
  be kept first.</p>
"""
ARCHIVED = """
<p class="bcd-quiet">This patient is put aside: take the record back before images are examined.</p>
"""
LEAVE = "() => window.location.assign('/patients')"

Update = dict[Any, Any]  # by component


def add_patient_page(app: gr.Blocks, clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    head = gr.HTML(elem_classes="bcd-heading")
    version = gr.Number(visible=False, precision=0)  # of the record that the form was filled with
    with gr.Column(visible=False) as record:
        size: dict[str, Any] = {"min_width": 160, "size": "md"}
        with gr.Row():
            examine = gr.Button("Examine images", variant="primary", **size)
            export = gr.Button("Export as zip", **size)
            archive = gr.Button("Put aside", **size)
            restore = gr.Button("Take back", **size)
        with gr.Accordion("Edit", open=False):
            fields = add_fields(clinic.settings.external_id)
            save = gr.Button("Save", variant="primary", elem_classes="bcd-do")
        listed = gr.HTML(elem_classes="bcd-heading")
        with gr.Accordion("Delete", open=False):
            gr.HTML(DELETES)
            confirmation = gr.Textbox(label="Type the patient's id to delete it")
            delete = gr.Button(
                "Delete for good", variant="stop", elem_classes=["bcd-do", "bcd-danger"]
            )

    def show(patient: PatientRow) -> Update:
        """Return what is shown of a patient, the form apart."""
        archived = patient.archived_at is not None
        return {
            head: describe_patient(patient),
            record: gr.update(visible=True),
            examine: gr.update(link=f"/examine?patient={patient.id}", visible=not archived),
            export: gr.update(link=f"/files/patients/{patient.id}.zip"),
            archive: gr.update(visible=not archived),
            restore: gr.update(visible=archived),
        }

    def fill_form(patient: PatientRow) -> Update:
        typed = zip(fields, show_form(patient), strict=True)
        return {version: patient.version, **dict(typed)}

    def begin(request: gr.Request) -> Update:
        actor, patient_id = get_actor(request), read_query(request, "id")
        try:
            patient = patients.view(clinic, actor, patient_id)
            rows = examinations.list_examinations(clinic, actor, patient_id)
        except Exception as error:
            return {head: alert(user_message(error))}
        return {**show(patient), **fill_form(patient), listed: _list_rows(rows)}

    def save_form(request: gr.Request, shown_version: int, *typed: str) -> Update:
        actor, patient_id = get_actor(request), read_query(request, "id")
        form = parse_form(clinic.settings, typed)
        try:
            patients.edit(clinic, actor, patient_id, form, shown_version)
        except Conflict:
            patient = patients.view(clinic, actor, patient_id)
            gr.Warning(CHANGED, duration=None)
            return {**show(patient), version: patient.version}
        patient = patients.view(clinic, actor, patient_id)
        gr.Info("Saved")
        return {**show(patient), **fill_form(patient)}

    def listen(act: Callable[[Installation, Actor | None, str], None]) -> Callable[..., Update]:
        """Return a listener that archives the record, or restores it; what is typed stays."""

        def perform(shown_version: int, request: gr.Request) -> Update:
            actor, patient_id = get_actor(request), read_query(request, "id")
            act(clinic, actor, patient_id)
            patient = patients.view(clinic, actor, patient_id)
            # Where more than this has changed, saving the form must still find out.
            nothing_else = patient.version == shown_version + 1
            return {**show(patient), version: patient.version if nothing_else else shown_version}

        return perform

    def delete_patient(confirmation: str, request: gr.Request) -> None:
        patients.delete(clinic, get_actor(request), read_query(request, "id"), confirmation)

    shown = [head, record, examine, export, archive, restore, version]
    app.load(begin, None, [*shown, *fields, listed], **QUICK)
    save.click(save_form, [version, *fields], [*shown, *fields], **QUICK)
    archive.click(listen(patients.archive), version, shown, **QUICK)
    restore.click(listen(patients.restore), version, shown, **QUICK)
    delete.click(delete_patient, confirmation, None, **QUICK).success(
        None, None, None, js=LEAVE, **PRIVATE
    )


def describe_patient(patient: PatientRow) -> str:
    """Return heading and facts as HTML."""
    said = {one: one.show(getattr(patient, one.name)) for one in FIELDS}
    known = {
        **{
            one.label: cell(text)
            for one, text in said.items()
            if not one.is_long and not one.names_patient
        },
        "Made": moment(patient.created_at),
        "Changed": moment(patient.changed_at),
        **({"Put aside": moment(patient.archived_at)} if patient.archived_at else {}),
        **({"Origin": "synthetic: of no patient, drawn by a program"} if patient.synthetic else {}),
    }
    names = "".join(f", {cell(text)}" for one, text in said.items() if one.names_patient and text)
    long = "".join(
        f'<div class="bcd-wide"><dt>{one.label}</dt><dd>{lines(text)}</dd></div>'
        for one, text in said.items()
        if one.is_long
    )
    return f"""
<h1>Patient {cell(patient.id)}{names}{f" {SYNTHETIC}" if patient.synthetic else ""}</h1>
<dl class="bcd-card bcd-facts">{facts(known)}
  {long}
</dl>
{ARCHIVED if patient.archived_at else ""}
"""


def _list_rows(rows: list[ExaminationRow]) -> str:
    words = "Examine images of this patient to make the first."
    listed = table(HEADS, [_row(one) for one in rows], "Examinations")
    return f"<h2>Examinations</h2>{listed if rows else empty('No examinations yet', words)}"


def _row(one: ExaminationRow) -> tuple[str, ...]:
    return (
        link("/examination", one.id, id=one.id),
        moment(one.created_at),
        str(one.images),
        "read" if one.read else "waits for a read",
    )
