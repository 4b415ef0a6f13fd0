"""One patient: what is kept of the record, its examinations, and what may be done with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from clinic.ui.frame import PRIVATE, QUICK, actor_of, alert, read_query
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
ASIDE = """
<p class="bcd-quiet">This patient is put aside: take the record back before images are examined.</p>
"""
LEAVE = "() => window.location.assign('/patients')"

Update = dict[Any, Any]  # by component


@dataclass(frozen=True)
class _Parts:
    """The page's components.

    Attributes:
        head: Heading and facts, or why there are none.
        record: All that lies below; hidden where there is no record.
        examine: Leads to the page that examines images.
        export: Leads to the zip.
        archive: Puts the record aside.
        restore: Takes it back.
        fields: Of the form.
        version: Of the record that the form was filled with.
        save: Sends the form.
        listed: Examinations.
        confirmation: The id once more, before the record is deleted.
        delete: Deletes it.
    """

    head: gr.HTML
    record: gr.Column
    examine: gr.Button
    export: gr.Button
    archive: gr.Button
    restore: gr.Button
    fields: list[gr.Textbox]
    version: gr.Number
    save: gr.Button
    listed: gr.HTML
    confirmation: gr.Textbox
    delete: gr.Button

    def shown(self, patient: PatientRow) -> Update:
        """Return what is shown of a patient, the form apart."""
        aside = patient.archived_at is not None
        return {
            self.head: describe_patient(patient),
            self.record: gr.update(visible=True),
            self.examine: gr.update(link=f"/examine?patient={patient.id}", visible=not aside),
            self.export: gr.update(link=f"/files/patients/{patient.id}.zip"),
            self.archive: gr.update(visible=not aside),
            self.restore: gr.update(visible=aside),
        }

    def form(self, patient: PatientRow) -> Update:
        """Return the form, filled with a patient."""
        typed = zip(self.fields, show_form(patient), strict=True)
        return {self.version: patient.version, **dict(typed)}


def add_patient_page(app: gr.Blocks, clinic: Installation) -> None:
    """Add the page to the Blocks being built."""
    parts = _parts(clinic.settings.external_id)

    def begin(request: gr.Request) -> Update:
        actor, patient_id = actor_of(request), read_query(request, "id")
        try:
            patient = patients.view(clinic, actor, patient_id)
            listed = _listed(examinations.list_examinations(clinic, actor, patient_id))
        except Exception as error:
            return {parts.head: alert(user_message(error))}
        return {**parts.shown(patient), **parts.form(patient), parts.listed: listed}

    def save(request: gr.Request, version: int, *typed: str) -> Update:
        actor, patient_id = actor_of(request), read_query(request, "id")
        form = parse_form(clinic.settings, typed)
        try:
            patients.edit(clinic, actor, patient_id, form, version)
        except Conflict:
            patient = patients.view(clinic, actor, patient_id)
            gr.Warning(CHANGED, duration=None)
            return {**parts.shown(patient), parts.version: patient.version}
        patient = patients.view(clinic, actor, patient_id)
        gr.Info("Saved")
        return {**parts.shown(patient), **parts.form(patient)}

    def put(act: Callable[[Installation, Actor | None, str], None]) -> Callable[..., Update]:
        """A listener that puts the record aside, or takes it back; what is typed stays."""

        def acting(version: int, request: gr.Request) -> Update:
            actor, patient_id = actor_of(request), read_query(request, "id")
            act(clinic, actor, patient_id)
            patient = patients.view(clinic, actor, patient_id)
            # Where more than this has changed, saving the form must still find out.
            nothing_else = patient.version == version + 1
            return {
                **parts.shown(patient),
                parts.version: patient.version if nothing_else else version,
            }

        return acting

    def delete(confirmation: str, request: gr.Request) -> None:
        patients.delete(clinic, actor_of(request), read_query(request, "id"), confirmation)

    buttons = [parts.examine, parts.export, parts.archive, parts.restore]
    shown = [parts.head, parts.record, *buttons, parts.version]
    app.load(begin, None, [*shown, *parts.fields, parts.listed], **QUICK)
    parts.save.click(save, [parts.version, *parts.fields], [*shown, *parts.fields], **QUICK)
    parts.archive.click(put(patients.archive), parts.version, shown, **QUICK)
    parts.restore.click(put(patients.restore), parts.version, shown, **QUICK)
    parts.delete.click(delete, parts.confirmation, None, **QUICK).success(
        None, None, None, js=LEAVE, **PRIVATE
    )


def _parts(pattern: str) -> _Parts:
    """Lay the page out."""
    head = gr.HTML(elem_classes="bcd-heading")
    version = gr.Number(visible=False, precision=0)
    with gr.Column(visible=False) as record:
        size: dict[str, Any] = {"min_width": 160, "size": "md"}
        with gr.Row():
            examine = gr.Button("Examine images", variant="primary", **size)
            export = gr.Button("Export as zip", **size)
            archive = gr.Button("Put aside", **size)
            restore = gr.Button("Take back", **size)
        with gr.Accordion("Edit", open=False):
            fields = add_fields(pattern)
            save = gr.Button("Save", variant="primary", elem_classes="bcd-do")
        listed = gr.HTML(elem_classes="bcd-heading")
        with gr.Accordion("Delete", open=False):
            gr.HTML(DELETES)
            confirmation = gr.Textbox(label="Type the patient's id to delete it")
            delete = gr.Button(
                "Delete for good", variant="stop", elem_classes=["bcd-do", "bcd-danger"]
            )
    return _Parts(
        head,
        record,
        examine,
        export,
        archive,
        restore,
        fields,
        version,
        save,
        listed,
        confirmation,
        delete,
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
{ASIDE if patient.archived_at else ""}
"""


def _listed(rows: list[ExaminationRow]) -> str:
    if not rows:
        return "<h2>Examinations</h2>" + empty(
            "No examinations yet", "Examine images of this patient to make the first."
        )
    return "<h2>Examinations</h2>" + table(HEADS, [_row(one) for one in rows], "Examinations")


def _row(one: ExaminationRow) -> tuple[str, ...]:
    return (
        link("/examination", one.id, id=one.id),
        moment(one.created_at),
        str(one.images),
        "read" if one.read else "waits for a read",
    )
