"""What scripts may call over gradio_client: /models, /predict, /explain and /report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, get_args

import gradio as gr

from bcd_models.config import LABELS
from bcd_models.decision import check_label
from bcd_models.images.open import open_image
from bcd_models.prediction import Unsuitable
from clinic.analysis import analyse
from clinic.analysis.analyse import HandedIn, hand_in
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.storage import shown_images
from clinic.ui.files import add_upload, require_file, write_file, write_report
from clinic.ui.frame import get_actor
from clinic.ui.look import QUEUED

PREDICTED = "predicted"  # the label to explain is the answer's own


def add_endpoints(clinic: Installation, models: Models) -> None:
    """Add the endpoints to the Blocks being built."""
    with gr.Row(visible=False):
        image = add_upload(label="Image: PNG, JPEG, TIFF, BMP or WebP")
        model = gr.Dropdown(models.names, value=models.names[0], label="Name of the model")
        label = gr.Dropdown([PREDICTED, *LABELS], value=PREDICTED, label="Label to explain")
        opacity = gr.Number(0.5, minimum=0, maximum=1, label="Opacity of the heat map, 0 to 1")
        mpp = gr.Number(0, label="Micrometres a pixel; 0: what the file says")
        point = gr.Textbox("", label="Operating point, such as screening; empty: the model's own")
        suitability = add_suitability()
        answer = gr.JSON(label="Answer")
        offered = gr.JSON(label="Models")
        overlay = gr.File(label="PNG")
        pdf = gr.File(label="PDF")

    def list_models() -> list[dict[str, Any]]:
        """The models on offer: name, title, version, weights_sha256, threshold, points of each."""
        return [models.describe(name).to_dict() for name in models.names]

    def note_shown(image: bytes, request: gr.Request) -> None:
        """Keep that the caller is about to be answered; of a guest the image isn't even opened."""
        shown_images.note_shown_to(clinic.database, get_actor(request), map(open_image, [image]))

    def predict(
        image: bytes,
        model: str,
        mpp: float | None,
        point: str,
        suitability: Unsuitable,
        request: gr.Request,
    ) -> dict[str, Any]:
        """A model's answer about an image. Research use only.

        The answer holds the fields of bcd_models.Prediction, its words and the notice.
        """
        loaded = models.load(model)
        prediction = analyse.predict(loaded, _take(image, mpp), point, suitability)
        note_shown(image, request)
        return prediction.to_dict()

    def explain(
        image: bytes,
        model: str,
        label: str,
        opacity: float,
        mpp: float | None,
        point: str,
        suitability: Unsuitable,
        request: gr.Request,
    ) -> tuple[str, dict[str, Any]]:
        """The image with a heat map over it of what speaks for a label, and the answer.

        The picture is a lossless PNG at the image's size. Research use only.
        """
        wanted = None if label == PREDICTED else check_label(label)
        loaded = models.load(model)
        explanation = analyse.explain(loaded, _take(image, mpp), wanted, point, suitability)
        note_shown(image, request)
        png = shown_images.encode_png(explanation.overlay(opacity))
        return write_file(png, "overlay.png"), explanation.prediction.to_dict()

    def report(
        image: bytes,
        model: str,
        mpp: float | None,
        point: str,
        suitability: Unsuitable,
        request: gr.Request,
    ) -> str:
        """The answer about an image as one page of PDF. Research use only."""
        loaded = models.load(model)
        explanation = analyse.explain(loaded, _take(image, mpp), None, point, suitability)
        note_shown(image, request)
        return write_report([image], [explanation], loaded, datetime.now(UTC))

    gr.on([], list_models, None, offered, api_name="models", **QUEUED)
    asked = [image, model, mpp, point, suitability]
    gr.on([], predict, asked, answer, api_name="predict", **QUEUED)
    explained = [image, model, label, opacity, mpp, point, suitability]
    gr.on([], explain, explained, [overlay, answer], api_name="explain", **QUEUED)
    gr.on([], report, asked, pdf, api_name="report", **QUEUED)


def add_suitability() -> gr.Dropdown:
    """Add the argument that says what to do with images that look unsuitable."""
    label = "What to do with an image that looks unsuitable: refer, or ignore, which answers anyway"
    return gr.Dropdown(list(get_args(Unsuitable)), value="refer", label=label)


def _take(image: bytes | None, mpp: float | None) -> HandedIn:
    return hand_in(require_file(image), mpp or None)
