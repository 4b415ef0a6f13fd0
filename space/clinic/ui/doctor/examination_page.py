"""One examination: its images, what the models said of them once that is asked for, the reads."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bcd_models.prediction import Prediction
from clinic.analysis import stored_answers, wording
from clinic.analysis.analyse import scale_warnings
from clinic.analysis.models import Models
from clinic.analysis.wording import SEEN_BEFORE, capitalise
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.records import examinations, reads
from clinic.storage.tables import Examination, ExaminedImage, Read
from clinic.ui import result
from clinic.ui.frame import PRIVATE, alert, get_actor, read_query
from clinic.ui.tables import cell, facts, lines, link, moment

PATH = "/examination"
FILES = "/files/examinations"
CHOICES = [(capitalise(words), verdict) for verdict, words in reads.VERDICTS.items()]
UNSEEN = (
    "The models' answers have not been shown to you. A read made now will be recorded as made "
    "before they were."
)


def add_examination_page(app: gr.Blocks, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built."""
    heading = gr.HTML(elem_classes="bcd-heading")
    with gr.Row(equal_height=False, visible=False) as all_of_it:
        with gr.Column(scale=8, min_width=320):
            with gr.Column(visible=False) as hidden:
                ask = gr.HTML()
                reveal = gr.Button("Show the models' answers")
            shown = gr.HTML(js_on_load=result.LISTEN, elem_id="bcd-shown")
        with gr.Column(scale=5, min_width=320):
            history = gr.HTML()
            verdict = gr.Radio(CHOICES, label="Your read")
            comment = gr.Textbox(label="Comment, without names", lines=3, max_length=2000)
            reason = gr.Textbox(label="Why the read is amended", visible=False, max_length=2000)
            record = gr.Button("Record read", variant="primary")
            facts = gr.HTML()

    def page(request: gr.Request, reveal_now: bool = False) -> tuple[Any, ...]:
        number = read_query(request, "id")
        found, may_see = examinations.view(clinic, get_actor(request), number, reveal_now)
        seen = examinations.answers_were_seen(clinic, get_actor(request), number)
        return (
            _heading(found),
            gr.update(visible=True),
            gr.update(visible=not may_see),
            f"<p>{SEEN_BEFORE if seen else UNSEEN}</p>",
            _images(found, models, may_see),
            _history(found),
            gr.update(visible=bool(found.reads)),
            _facts(found),
        )

    def begin(request: gr.Request) -> tuple[Any, ...]:
        try:
            return page(request)
        except Exception as error:
            return (alert(user_message(error)), *[gr.skip()] * 7)

    def show_answers(request: gr.Request) -> tuple[Any, ...]:
        return page(request, reveal_now=True)

    def record_read(
        verdict: str | None, comment: str | None, reason: str | None, request: gr.Request
    ) -> tuple[Any, ...]:
        number = read_query(request, "id")
        words = (verdict or "", comment or "", reason or "")  # hidden fields say None
        reads.record(clinic, get_actor(request), number, *words)
        return (*page(request), None, "", "")

    outputs = [heading, all_of_it, hidden, ask, shown, history, reason, facts]
    app.load(begin, None, outputs, **PRIVATE)
    reveal.click(show_answers, None, outputs, show_progress_on=shown, **PRIVATE)
    record.click(
        record_read,
        [verdict, comment, reason],
        [*outputs, verdict, comment, reason],
        show_progress_on=history,
        **PRIVATE,
    )


def _heading(found: Examination) -> str:
    synthetic = '<p class="bcd-quiet">A synthetic record of a demonstration.</p>'
    return f"""
<div class="bcd-top">
  <h1>Examination {cell(found.id)} of {link("/patient", found.patient_id, id=found.patient_id)}</h1>
  <a class="bcd-sign" href="{FILES}/{found.id}/report.pdf">Report (PDF)</a>
</div>
{synthetic if found.patient.synthetic else ""}
"""


def _images(found: Examination, models: Models, may_see: bool) -> str:
    count = len(found.images)
    return "".join(
        _image(one, models, f"Image {one.position} of {count}" if count > 1 else "", may_see)
        for one in found.images
    )


def _image(image: ExaminedImage, models: Models, which: str, may_see: bool) -> str:
    size = image.width, image.height
    answers = [stored_answers.prediction(image, one) for one in image.results]
    warnings = scale_warnings(models, [one.model for one in answers], size, image.field_width_um)
    if not may_see:
        warnings += wording.suitability_warnings(answers)
        picture = result.show_image(_address(image), size, which)
        return result.show_warnings(warnings) + picture
    mind = result.show_warnings(wording.find_untold(warnings, answers))
    cards = "".join(_answer(image, one, which) for one in answers)
    return f'{mind}<div class="bcd-pair">{cards}</div>'


def _answer(image: ExaminedImage, said: Prediction, which: str) -> str:
    heat = f"{FILES}/{image.examination_id}/{image.position}/heat/{said.model}.png"
    pictures = result.Pictures(_address(image), heat, (image.width, image.height))
    return result.answer(said, said.label, pictures, which)


def _address(image: ExaminedImage) -> str:
    return f"{FILES}/{image.examination_id}/{image.position}/image.png"


def _history(found: Examination) -> str:
    """Return the reads, the one that counts first."""
    if not found.reads:
        return '<p class="bcd-lead">Nobody has read this examination yet.</p>'
    newest, *earlier = reversed(found.reads)
    return f"""
<section class="bcd-card" aria-label="Reads">
  <p class="bcd-quiet">The read that counts</p>
  {_read(newest)}
  {f'<p class="bcd-quiet">Earlier</p>{"".join(map(_read, earlier))}' if earlier else ""}
</section>
"""


def _read(read: Read) -> str:
    said = [
        f'<p class="bcd-lead">{reads.describe_verdict(read)}</p>',
        f'<p class="bcd-quiet">Read {read.number} by {cell(read.reader.name)}, '
        f"{moment(read.at)}, {reads.describe_timing(read)}</p>",
    ]
    if read.comment:
        said.append(f'<p class="bcd-text">{lines(read.comment)}</p>')
    if read.reason:
        said.append(f'<p class="bcd-text">Amended because: {lines(read.reason)}</p>')
    return f'<div class="bcd-read">{"".join(said)}</div>'


def _facts(found: Examination) -> str:
    known = {
        "Saved": f"{moment(found.created_at)} by {cell(found.maker.name)}",
        "Stain": cell(found.stain),
        "Specimen": cell(found.specimen),
        "Comment": lines(found.comment),
        **{f"Field of image {one.position}": _field(one) for one in found.images},
    }
    return f'<div class="bcd-details"><dl>{facts(known)}</dl></div>'


def _field(image: ExaminedImage) -> str:
    """Return how wide an image's field is: as handed in, or as the models took it."""
    if image.field_width_um is not None:
        return f"{image.field_width_um:g} µm wide"
    answers = [stored_answers.prediction(image, one) for one in image.results]
    taken = dict.fromkeys(
        f"{one.mpp * one.width:g} µm wide, at {wording.scale_words(one)}"
        for one in answers
        if one.mpp is not None
    )
    return cell("; ".join(taken)) or "width not known"
