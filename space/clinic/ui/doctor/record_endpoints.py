"""What a doctor's scripts may call besides the models: patients, examinations, reads, reports."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

import gradio as gr

from bcd_models.errors import InputError
from bcd_models.prediction import Unsuitable
from clinic.analysis import stored_answers, wording
from clinic.analysis.analyse import hand_in, scale_warnings
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations, patients, reads
from clinic.records.examinations import SPECIMENS, STAINS, Details
from clinic.records.patient_fields import FIELDS, PatientField, parse_form
from clinic.records.reads import VERDICTS
from clinic.reports import service as reports
from clinic.storage.tables import ExaminedImage
from clinic.ui.files import add_upload
from clinic.ui.frame import get_actor
from clinic.ui.look import QUEUED
from clinic.ui.shared.endpoints import add_suitability


def add_record_endpoints(clinic: Installation, models: Models) -> None:
    """Add the endpoints to the Blocks being built."""
    with gr.Row(visible=False):
        asked = [_input(one) for one in FIELDS]
        text = gr.Textbox("", label="Free text without names")
        patient = gr.Textbox(label="Id of the patient")
        examination = gr.Textbox(label="Id of the examination")
        images = add_upload(file_count="multiple", label="Images")
        names = gr.CheckboxGroup(models.names, value=models.names[:1], label="Names of models")
        field = gr.Number(0, label="Width of the field in micrometres, instead of mpp, or 0")
        pixel = gr.Number(0, label="The same as mpp, by its former name; 0: see there")
        stain = gr.Dropdown(STAINS, value=STAINS[0], label="Stain")
        specimen = gr.Dropdown(SPECIMENS, value=SPECIMENS[-1], label="Specimen")
        shown = gr.Checkbox(True, label="Answer with what the models say")
        verdict = gr.Dropdown(list(VERDICTS), value="none", label="Verdict")
        mpp = gr.Number(0, label="Micrometres a pixel; 0: what the files say")
        point = gr.Textbox("", label="Operating point, such as screening; empty: each model's own")
        suitability = add_suitability()
        reason = gr.Textbox("", label="Why an earlier read is amended, or empty")
        answer = gr.JSON(label="Answer")

    def create_patient(request: gr.Request, *values: str | int | None) -> dict[str, Any]:
        """Make a record without a name; answers with the id issued for it."""
        form = parse_form(clinic.settings, (str(value or "") for value in values))
        return {"patient": patients.create(clinic, get_actor(request), form)}

    _name_arguments(create_patient)

    def save_examination(
        patient: str,
        images: list[bytes],
        names: list[str],
        field_width_um: float,
        um_per_pixel: float,
        stain: str,
        specimen: str,
        comment: str,
        shown: bool,
        mpp: float | None,
        point: str,
        suitability: Unsuitable,
        request: gr.Request,
    ) -> dict[str, Any]:
        """Analyse images of a patient and save them with the models' answers. Research use only.

        Where the answers are not asked for, a read that follows is recorded as made before them,
        unless an answer about one of the images was shown otherwise.
        """
        actor = get_actor(request)
        patients.view(clinic, actor, patient)  # before anything is analysed
        if mpp and um_per_pixel:
            raise InputError("give mpp or um_per_pixel, not both")
        scale = mpp or um_per_pixel or None, field_width_um or None
        handed_in = [hand_in(data, *scale) for data in images or ()]
        analysis = examinations.analyse_for_patient(
            clinic, actor, models, patient, handed_in, names, shown, point or "", suitability
        )
        details = Details(stain, specimen, comment or "")
        number = examinations.save(clinic, actor, patient, analysis, details)
        found, may_see = examinations.view(clinic, actor, number)
        told = [_describe_image(models, one, names, may_see) for one in found.images]
        return {"examination": number, "images": told}

    def record_read(
        examination: str, verdict: str, comment: str, reason: str, request: gr.Request
    ) -> dict[str, Any]:
        """Record a read of an examination; a later one amends it and needs a reason."""
        actor = get_actor(request)
        number = reads.record(clinic, actor, examination, verdict, comment or "", reason or "")
        return {"examination": examination, "read": number}

    def examination_report(examination: str, request: gr.Request) -> dict[str, Any]:
        """The report of an examination as it stands: PDF in base64, its id and SHA-256."""
        number, pdf = reports.issue_report(clinic, get_actor(request), models, examination)
        return {
            "report": number,
            "sha256": reports.hash_report(pdf),
            "pdf": base64.b64encode(pdf).decode(),
        }

    gr.on([], create_patient, asked, answer, api_name="create_patient")
    gr.on(
        [],
        save_examination,
        [
            *(patient, images, names, field, pixel, stain, specimen, text, shown, mpp, point),
            suitability,
        ],
        answer,
        api_name="save_examination",
        **QUEUED,
    )
    gr.on([], record_read, [examination, verdict, text, reason], answer, api_name="record_read")
    gr.on([], examination_report, [examination], answer, api_name="examination_report")


def _input(one: PatientField) -> gr.Textbox | gr.Number:
    """Add what a script fills a field of a patient by."""
    nothing = "empty" if one.script_default == "" else one.script_default
    label = f"{one.form_label or one.label}, or {nothing}"
    if isinstance(one.script_default, int):
        return gr.Number(one.script_default, precision=0, label=label)
    return gr.Textbox(one.script_default, label=label)


def _name_arguments(create_patient: Callable[..., Any]) -> None:
    """Let Gradio, which reads signatures, call the arguments after a patient's fields."""
    request, *_ = inspect.signature(create_patient).parameters.values()
    named = [Parameter(one.name, Parameter.POSITIONAL_OR_KEYWORD) for one in FIELDS]
    create_patient.__signature__ = inspect.Signature([request, *named])  # type: ignore[attr-defined]


def _describe_image(
    models: Models, image: ExaminedImage, names: list[str], may_see: bool
) -> dict[str, Any]:
    """Return what is told of one image: its scale, what speaks against the answers, and these."""
    size, width = (image.width, image.height), image.field_width_um
    answers = [stored_answers.prediction(image, one) for one in image.results]
    warnings = scale_warnings(models, names, size, width) + wording.suitability_warnings(answers)
    return {
        "position": image.position,
        "sha256": image.sha256,
        "field_width_um": image.field_width_um,
        "warnings": list(warnings),
        "answers": [one.to_dict() for one in answers] if may_see else [],
    }
