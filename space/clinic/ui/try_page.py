"""The page "Try an image": one image, one model, one answer, nothing kept."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from bcd_models.images import SUFFIXES, open_image
from bcd_models.prediction import NOTICE
from clinic.failures import told
from clinic.models import Models
from clinic.ui import result
from clinic.ui.files import handed_in, made_report
from clinic.ui.look import IN_LINE

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
THUMBNAIL = 128  # pixels

HEAD = """
<header class="bcd-head">
  <h1>Breast histology patch check</h1>
  <p>Says whether a small field of H&amp;E-stained breast tissue looks like invasive ductal
    carcinoma to a neural network, how sure it is, and which regions speak for it.</p>
</header>
"""

KEPT = """
<p class="bcd-quiet">Use images without names or numbers of patients. The server deletes an image
  and its report within the hour.</p>
"""

# Tells which example was clicked; the server looks the name up in its own list.
PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-example]');
  if (button) trigger('click', {example: button.dataset.example});
});
"""

Update = dict[str, Any]


def add_try_page(models: Models) -> None:
    """Add the page to the Blocks being built."""
    examples = {path.stem: path for path in sorted(EXAMPLES.glob("*.png"))}
    gr.HTML(HEAD)
    gr.HTML(f'<p class="bcd-notice" role="note">{NOTICE}</p>', elem_id="bcd-notice")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=320):
            file = gr.File(label="Image", file_types=sorted(SUFFIXES), height=140)
            picker = gr.HTML(_examples_html(examples), js_on_load=PICK)
            model = gr.Radio(
                _choices(models), value=models.names[0], label="Model", elem_id="bcd-model"
            )
            analyse = gr.Button("Analyse", variant="primary", interactive=False)
            gr.HTML(KEPT)
        with gr.Column(scale=8, min_width=320):
            shown = gr.HTML(result.EMPTY, js_on_load=result.LISTEN, elem_id="bcd-shown")
            download = gr.DownloadButton("Download report (PDF)", visible=False)
            details = gr.HTML()

    def pick(event: gr.EventData) -> str:
        return str(examples[event.example])

    def show_image(path: str | None) -> tuple[str, Update, Update, str]:
        if not path:
            return result.EMPTY, gr.update(interactive=False), gr.update(visible=False), ""
        try:
            view = result.chosen(open_image(handed_in(path)), Path(path).name)
        except Exception as error:
            view = result.failed(told(error))
        return view, gr.update(interactive=True), gr.update(visible=False), ""

    def analyse_image(path: str | None, name: str) -> tuple[str, Update, str]:
        try:
            return _analysed(models, handed_in(path), name)
        except Exception as error:
            return result.failed(told(error)), gr.update(visible=False), ""

    hidden = {"api_visibility": "private", **IN_LINE}
    picker.click(pick, None, file, show_progress="hidden", **hidden)
    run = analyse.click(
        analyse_image,
        [file, model],
        [shown, download, details],
        show_progress_on=shown,
        scroll_to_output=True,
        **hidden,
    )
    gr.on(
        [file.change, model.change],
        show_image,
        file,
        [shown, analyse, download, details],
        cancels=run,  # a late answer must not land beside another image
        show_progress_on=shown,
        **hidden,
    )


def _analysed(models: Models, path: str, name: str) -> tuple[str, Update, str]:
    model, when = models.loaded(name), datetime.now(UTC)
    explanation = model.explain(path)
    pdf = made_report(path, explanation, model, when)
    return (
        result.result(explanation),
        gr.update(value=pdf, visible=True),
        result.details(explanation, model.config, when),
    )


def _choices(models: Models) -> list[tuple[str, str]]:
    offered = map(models.offered, models.names)
    return [
        (f"{model.title}, {model.hint}" if model.hint else model.title, model.config.name)
        for model in offered
    ]


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
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.resize((THUMBNAIL, THUMBNAIL)).save(buffer, "PNG")
    source = base64.b64encode(buffer.getvalue()).decode()
    return f"""
<button type="button" data-example="{name}" aria-label="Synthetic tissue {number}, {drawn}">
  <img src="data:image/png;base64,{source}" alt="">
</button>"""
