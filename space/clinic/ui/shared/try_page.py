"""The page "Try images": some images, one model, its answers, nothing kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from bcd_models.errors import ImageError
from bcd_models.images.scale import Scale
from bcd_models.prediction import Prediction, Unsuitable
from clinic.analysis.analyse import HandedIn, explain
from clinic.analysis.display import resize_for_display
from clinic.analysis.models import Models
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.storage import shown_images
from clinic.storage.actor import Actor
from clinic.ui import result
from clinic.ui.files import require_file, write_report
from clinic.ui.frame import PRIVATE, QUICK, get_actor
from clinic.ui.look import QUEUED
from clinic.ui.shared.anyway import add_anyway_button, connect, offer_anyway
from clinic.ui.shared.image_input import Images, add, add_images_input, numbers, show_waiting
from clinic.ui.shared.point_input import add_point_input
from clinic.ui.shared.scale_input import Computed, add_scale_input, parse_scale

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
THUMBNAIL = 128  # pixels
MAX_IDLE = 1800  # seconds that images stay in memory

KEPT = """
<p class="bcd-quiet">Use images without names or numbers of patients. Images are kept in memory
  while this page is open, and never stored; a report is deleted within the hour. If you are signed
  in, a hash of each image is kept for 90 days, so that a later read of it does not count as made
  before the answers.</p>
"""

# Tells which example was clicked; the server looks the name up in its own list.
PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-example]');
  if (button) trigger('click', {example: button.dataset.example});
});
"""

Update = dict[str, Any]


def add_try_page(app: gr.Blocks, clinic: Installation, models: Models) -> None:
    """Add the page to the Blocks being built."""
    examples = {path.stem: path for path in sorted(EXAMPLES.glob("*.png"))}
    images = gr.State([], time_to_live=MAX_IDLE)
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            file = add_images_input()
            picker = gr.HTML(_examples_html(examples), js_on_load=PICK)
            mpp, optics = add_scale_input()
            model = gr.Radio(
                models.choices, value=models.names[0], label="Model", elem_id="bcd-model"
            )
            point = add_point_input(app, clinic, models, model)
            with gr.Row():
                analyse = gr.Button("Analyse", variant="primary", interactive=False)
                clear = gr.Button("Clear", interactive=False)
            gr.HTML(KEPT)
        with gr.Column(scale=8, min_width=320):
            shown = gr.HTML(result.EMPTY, js_on_load=result.LISTEN, elem_id="bcd-shown")
            anyway = add_anyway_button()
            download = gr.DownloadButton("Download report (PDF)", visible=False)
            details = gr.HTML()

    def pick(event: gr.EventData) -> Images:
        return [examples[event.example].read_bytes()]

    def show(kept: Images) -> tuple[str, Update, Update, Update, Update, str]:
        some, gone = gr.update(interactive=bool(kept)), gr.update(visible=False)
        return show_waiting(kept, result.EMPTY), some, some, gone, gone, ""

    def show_again(kept: Images, told: str) -> tuple[Any, ...]:
        """Take an answer away; where there is none, nobody waits for pictures at each letter."""
        return show(kept) if told else (gr.skip(),) * 6

    def analyse_images(
        kept: Images,
        typed: str,
        computed: Computed | None,
        name: str,
        at: str,
        how: Unsuitable,
        request: gr.Request,
    ) -> tuple[str, Update, Update, str]:
        try:
            given = parse_scale(typed, computed)
            return _analyse(clinic, get_actor(request), models, kept, given, name, at, how)
        except Exception as error:
            gone = gr.update(visible=False)
            return result.show_failure(user_message(error)), gone, gone, ""

    outputs = [shown, analyse, clear, anyway, download, details]
    inputs, answers = [images, mpp, optics, model, point], [shown, anyway, download, details]
    run = connect(analyse, anyway, analyse_images, inputs, answers, **QUEUED)
    # A late answer must not land beside other images.
    changed = [
        file.upload(add, [file, images], [images, file], cancels=run, **QUICK, **QUEUED),
        picker.click(pick, None, images, cancels=run, **QUICK, **QUEUED),
        clear.click(list, None, images, cancels=run, **QUICK, **QUEUED),
    ]
    for change in changed:
        change.then(show, images, outputs, show_progress_on=shown, **PRIVATE, **QUEUED)
    for one in (mpp, model, point):
        gone = one.change(None, None, None, cancels=run, **PRIVATE)
        gone.then(show_again, [images, details], outputs, **QUICK, **QUEUED)


def _analyse(
    clinic: Installation,
    actor: Actor | None,
    models: Models,
    images: Images,
    mpp: float | Scale | None,
    name: str,
    point: str,
    suitability: Unsuitable,
) -> tuple[str, Update, Update, str]:
    """Return answers, whether more could be answered, report, details; a bad image costs itself."""
    model, when = models.load(name), datetime.now(UTC)
    cards, explanations = [], []
    found: list[list[Prediction]] = []  # of each image
    for which, data in zip(numbers(require_file(images)), images, strict=True):
        try:
            answer = explain(model, HandedIn(data, mpp), point=point, suitability=suitability)
        except ImageError as error:
            cards.append(result.show_failure(user_message(error), which))
            found.append([])
            continue
        shown_images.note_shown_to(clinic.database, actor, [answer.image])
        explanations.append(resize_for_display(answer))  # large fields don't stay in memory
        cards.append(result.result(explanations[-1], which))
        found.append([answer.prediction])
    if not explanations:
        return "".join(cards), gr.update(visible=False), gr.update(visible=False), ""
    pdf = write_report(images, explanations, model, when)
    return (
        "".join(cards),
        offer_anyway(found),
        gr.update(value=pdf, visible=True),
        result.details(explanations[0], model.config, when),
    )


def _examples_html(examples: dict[str, Path]) -> str:
    buttons = "".join(_example_button(name, path) for name, path in examples.items())
    return f"""
<fieldset class="bcd-pick">
  <legend>Or try synthetic tissue</legend>
  <div class="bcd-examples"><span>No tumour drawn</span><span>Tumour drawn</span>{buttons}</div>
  <p>Drawn by a program, from no patient, to show how the page works. No answer about it means
    anything.</p>
</fieldset>
"""


def _example_button(name: str, path: Path) -> str:
    _, kind, number = name.split("-")
    drawn = {"benign": "no tumour drawn", "malignant": "tumour drawn"}[kind]
    with Image.open(path) as image:
        source = result.data_uri(image.resize((THUMBNAIL, THUMBNAIL)))
    return f"""
<button type="button" data-example="{name}" aria-label="Synthetic tissue {number}, {drawn}">
  <img src="{source}" alt="">
</button>"""
