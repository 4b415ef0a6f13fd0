"""What scripts may call over gradio_client: /models, /predict, /explain and /report."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from clinic.failures import told
from clinic.models import Models
from clinic.ui.files import handed_in, made, made_report
from clinic.ui.look import IN_LINE

LABELS = ("predicted", "benign", "malignant")

P = ParamSpec("P")
R = TypeVar("R")


def add_endpoints(models: Models) -> None:
    """Add the endpoints to the Blocks being built."""
    with gr.Row(visible=False):
        image = gr.File(label="Image: PNG, JPEG, TIFF, BMP or WebP")
        model = gr.Dropdown(models.names, value=models.names[0], label="Name of the model")
        label = gr.Dropdown(LABELS, value="predicted", label="Label to explain")
        opacity = gr.Number(0.5, minimum=0, maximum=1, label="Opacity of the heat map, 0 to 1")
        answer = gr.JSON(label="Answer")
        offered = gr.JSON(label="Models")
        overlay = gr.File(label="PNG")
        pdf = gr.File(label="PDF")

    @_one_sentence
    def list_models() -> list[dict[str, Any]]:
        """The models on offer: name, title, version, weights_sha256 and threshold of each."""
        return [models.offered(name).to_dict() for name in models.names]

    @_one_sentence
    def predict(image: str, model: str) -> dict[str, Any]:
        """A model's answer about an image. Research use only.

        The answer holds the fields of bcd_models.Prediction, its words and the notice.
        """
        return models.loaded(model).predict(handed_in(image)).to_dict()

    @_one_sentence
    def explain(image: str, model: str, label: str, opacity: float) -> tuple[str, dict[str, Any]]:
        """The image with a heat map over it of what speaks for a label, and the answer.

        The picture is a lossless PNG at the image's size. Research use only.
        """
        wanted = None if label == "predicted" else label
        explanation = models.loaded(model).explain(handed_in(image), wanted)
        buffer = io.BytesIO()
        explanation.overlay(opacity).save(buffer, "PNG")
        return made(buffer.getvalue(), "overlay.png"), explanation.prediction.to_dict()

    @_one_sentence
    def report(image: str, model: str) -> str:
        """The answer about an image as one page of PDF. Research use only."""
        loaded = models.loaded(model)
        explanation = loaded.explain(handed_in(image))
        return made_report(image, explanation, loaded, datetime.now(UTC))

    gr.on([], list_models, None, offered, api_name="models", **IN_LINE)
    gr.on([], predict, [image, model], answer, api_name="predict", **IN_LINE)
    gr.on(
        [],
        explain,
        [image, model, label, opacity],
        [overlay, answer],
        api_name="explain",
        **IN_LINE,
    )
    gr.on([], report, [image, model], pdf, api_name="report", **IN_LINE)


def _one_sentence(function: Callable[P, R]) -> Callable[P, R]:
    """Let a failure reach the caller as one sentence."""

    @wraps(function)
    def wrapped(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return function(*arguments, **named)
        except Exception as error:
            raise gr.Error(told(error), print_exception=False) from None

    return wrapped
