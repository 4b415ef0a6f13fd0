"""The button that has images answered all the same which look unsuitable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from bcd_models.prediction import Prediction

ANYWAY = "Answer all the same"


def add_anyway_button() -> gr.Button:
    """Add the button, to be seen once something looks unsuitable."""
    return gr.Button(ANYWAY, visible=False, elem_classes="bcd-do")


def offer_anyway(answers: Iterable[Prediction]) -> dict[str, Any]:
    """Return the button's update: seen where something was found and not ignored."""
    return gr.update(visible=any(one.findings for one in answers))
