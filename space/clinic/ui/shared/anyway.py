"""The button that has images answered all the same which look unsuitable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from bcd_models.prediction import Prediction
from clinic.ui.frame import PRIVATE

ANYWAY = "Answer all the same"


def add_anyway_button() -> gr.Button:
    """Add the button, to be seen once something looks unsuitable."""
    return gr.Button(ANYWAY, visible=False, elem_classes="bcd-do")


def offer_anyway(images: Sequence[Iterable[Prediction]]) -> dict[str, Any]:
    """Return the button's update: seen where something was found and not ignored, and in what.

    Args:
        images: The answers about each image, none where there are none.
    """
    found = [
        str(number)
        for number, answers in enumerate(images, 1)
        if any(one.findings for one in answers)
    ]
    return gr.update(value=_name_button(found, len(images)), visible=bool(found))


def _name_button(found: Sequence[str], count: int) -> str:
    if count == 1 or not found:
        return ANYWAY
    *others, last = found
    named = f"images {', '.join(others)} and {last}" if others else f"image {last}"
    return f"{ANYWAY}: {named}"


def connect(
    analyse: gr.Button,
    anyway: gr.Button,
    answer: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    **queue: Any,
) -> list[dict[str, Any]]:
    """Let both buttons answer; what each does with what looks unsuitable is the last input."""
    return [
        button.click(
            answer,
            [*inputs, gr.State(how)],
            outputs,
            show_progress_on=outputs[0],
            scroll_to_output=True,
            **PRIVATE,
            **queue,
        )
        for button, how in ((analyse, "refer"), (anyway, "ignore"))
    ]
