"""A doctor examines images of a patient: hands them in, sees the answers or not yet, saves."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bcd_models.errors import InputError
from bcd_models.prediction import Unsuitable
from clinic.analysis.analyse import Analysis, HandedIn
from clinic.analysis.display import enlarge
from clinic.analysis.models import Models
from clinic.analysis.wording import SEEN_BEFORE
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.records import examinations, patients
from clinic.records.examinations import SPECIMENS, STAINS, Details
from clinic.records.patient_fields import FIELDS
from clinic.ui import result
from clinic.ui.doctor.patient_page import ARCHIVED
from clinic.ui.frame import PRIVATE, QUICK, alert, get_actor, go_to, read_query
from clinic.ui.look import QUEUED
from clinic.ui.shared.anyway import add_anyway_button, connect, offer_anyway
from clinic.ui.shared.image_input import Images, add, add_images_input, numbers, show_waiting
from clinic.ui.shared.point_input import add_point_input
from clinic.ui.shared.scale_input import Computed, add_scale_input, parse_scale
from clinic.ui.tables import cell, link

PATH = "/examine"
MAX_IDLE = 3600  # seconds that images and answers stay in memory
HIDDEN = "Analysed. The models' answers are kept for after your read."
NOTHING = """
<section class="bcd-card bcd-empty">
  <p class="bcd-lead">No image yet</p>
  <p>Hand in one or more images of this patient's tissue, without names on them.</p>
</section>
"""


def add_examine_page(app: gr.Blocks, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built."""
    heading = gr.HTML(elem_classes="bcd-heading")
    images = gr.State([], time_to_live=MAX_IDLE)
    analysis = gr.State(None, time_to_live=MAX_IDLE)
    saved = gr.Textbox(visible=False)
    with gr.Row(equal_height=False, visible=False) as form:
        with gr.Column(scale=5, min_width=320):
            file = add_images_input()
            mpp, optics = add_scale_input()
            with gr.Row():
                stain = gr.Dropdown(STAINS, value=STAINS[0], label="Stain", interactive=True)
                specimen = gr.Dropdown(
                    SPECIMENS, value=SPECIMENS[-1], label="Specimen", interactive=True
                )
            comment = gr.Textbox(label="Comment, without names", lines=2, max_length=2000)
            chosen = gr.CheckboxGroup(
                [(models.describe(name).title, name) for name in models.names],
                value=models.names[:1],
                label="Models",
            )
            point = add_point_input(app, clinic, models, chosen)
            hide = gr.Checkbox(
                True, label="Read first: keep the models' answers hidden until I ask"
            )
            with gr.Row():
                analyse = gr.Button("Analyse", variant="primary", interactive=False)
                clear = gr.Button("Clear", interactive=False)
        with gr.Column(scale=8, min_width=320):
            save = gr.Button("Save examination", variant="primary", visible=False)
            shown = gr.HTML(NOTHING, js_on_load=result.LISTEN, elem_id="bcd-shown")
            anyway = add_anyway_button()

    def begin(request: gr.Request) -> tuple[str, Any]:
        try:
            patient = patients.view(clinic, get_actor(request), read_query(request, "patient"))
        except Exception as error:
            return alert(user_message(error)), gr.update(visible=False)
        words = f"<h1>New examination of {link('/patient', patient.id, id=patient.id)}</h1>"
        for one in FIELDS:
            if one.names_patient and (text := one.show(getattr(patient, one.name))):
                words += f'<p class="bcd-quiet">{one.label} {cell(text)}</p>'
        if patient.archived_at:
            words += ARCHIVED
        return words, gr.update(visible=not patient.archived_at)

    def show(kept: Images) -> tuple[Any, ...]:
        some, gone = gr.update(interactive=bool(kept)), gr.update(visible=False)
        return show_waiting(kept, NOTHING), some, some, gone, gone, None

    def show_again(kept: Images, found: Analysis | None) -> tuple[Any, ...]:
        """Take an analysis away; where there is none, nobody waits for pictures at each letter."""
        return show(kept) if found else (gr.skip(),) * 6

    def analyse_images(
        kept: Images,
        names: list[str],
        typed: str,
        computed: Computed | None,
        at: str,
        hidden: bool,
        how: Unsuitable,
        request: gr.Request,
    ) -> tuple[str, Any, Any, Any]:
        actor, patient_id = get_actor(request), read_query(request, "patient")
        mpp = parse_scale(typed, computed)
        handed_in = [HandedIn(data, mpp) for data in kept]
        found = examinations.analyse_for_patient(
            clinic, actor, models, patient_id, handed_in, names, not hidden, at, how
        )
        said = [[one.prediction for one in image.explanations.values()] for image in found.images]
        return _answers(found), offer_anyway(said), gr.update(visible=True), found

    def save_examination(
        found: Analysis | None, stain: str, specimen: str, comment: str, request: gr.Request
    ) -> str:
        if not found:
            raise InputError("analyse the images first")
        details = Details(stain, specimen, comment or "")
        patient = read_query(request, "patient")
        return examinations.save(clinic, get_actor(request), patient, found, details)

    app.load(begin, None, [heading, form], **PRIVATE)
    inputs, answers = [images, chosen, mpp, optics, point, hide], [shown, anyway, save, analysis]
    run = connect(analyse, anyway, analyse_images, inputs, answers, **QUEUED)
    changes = [
        file.upload(add, [file, images], [images, file], cancels=run, **QUICK),
        clear.click(list, None, images, cancels=run, **QUICK),
    ]
    outputs = [shown, analyse, clear, anyway, save, analysis]
    for change in changes:
        change.then(show, images, outputs, **QUICK)
    for one in (chosen, mpp, point, hide):
        gone = one.change(None, None, None, cancels=run, **PRIVATE)
        gone.then(show_again, [images, analysis], outputs, **QUICK)
    details = [stain, specimen, comment]
    save.click(save_examination, [analysis, *details], saved, **PRIVATE).success(
        None, saved, None, js=go_to("/examination?id="), **PRIVATE
    )


def _answers(found: Analysis) -> str:
    """Return the answers about each image, or that they are hidden."""
    images = found.images
    if not found.shown:
        pictures = (
            result.show_warnings(one.warnings)
            + result.show_image(result.data_uri(enlarge(one.image)), one.image.size, which)
            for one, which in zip(images, numbers(images), strict=True)
        )
        seen = f"<p>{SEEN_BEFORE}</p>" if found.shown_before else ""
        return f'<p class="bcd-lead" role="status">{HIDDEN}</p>{seen}{"".join(pictures)}'
    return "".join(
        f'<div class="bcd-pair">'
        f"{''.join(result.result(said, which) for said in one.explanations.values())}</div>"
        for one, which in zip(images, numbers(images), strict=True)
    )
