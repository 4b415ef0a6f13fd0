"""The scale of what is handed in, typed or computed from the microscope's numbers."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bcd_models.errors import InputError
from bcd_models.images.scale import Scale, compute_scale, give_scale
from clinic.ui.frame import QUICK, alert

Computed = tuple[str, Scale]
"""What was computed and typed into the field, and what it stands for."""

LABEL = "Micrometres a pixel (empty: what the file says)"


def add_scale_input() -> tuple[gr.Textbox, gr.State]:
    """Add the field for micrometres a pixel and, folded up, what fills it in; returns both."""
    computed = gr.State(None)
    mpp = add_number(label=LABEL, placeholder="such as 0.5")
    with gr.Accordion("From the microscope", open=False):
        with gr.Row():
            objective = add_number(label="Objective", placeholder="20", min_width=90)
            camera = add_number(
                label="Camera pixel, µm", placeholder="3.45", scale=2, min_width=140
            )
            adapter = add_number("1", label="Adapter", min_width=90)
        fill = gr.Button("Fill in the micrometres a pixel", size="sm")
        trouble = gr.HTML()

    def compute(*typed: str) -> tuple[Any, Any, str]:
        try:
            if not all(map(str.strip, typed)):
                raise InputError("type all three numbers; where there is no adapter, it is 1")
            scale = compute_scale(*map(_parse_number, typed))
            return f"{scale.mpp_x:.4g}", (f"{scale.mpp_x:.4g}", scale), ""
        except InputError as error:
            return gr.skip(), gr.skip(), alert(str(error))

    fill.click(compute, [objective, camera, adapter], [mpp, computed, trouble], **QUICK)
    return mpp, computed


def add_number(value: str = "", **options: Any) -> gr.Textbox:
    """Add a field for a number as people type it, with a point or a comma."""
    typed = gr.InputHTMLAttributes(autocomplete="off", spellcheck=False)
    return gr.Textbox(value, html_attributes=typed, **options)


def parse_scale(typed: str, computed: Computed | None) -> float | Scale | None:
    """Return the scale that was typed, or computed from a microscope's numbers; None: neither.

    Raises:
        InputError: As ``parse_mpp``.
    """
    if computed and typed.strip() == computed[0]:
        return computed[1]
    return parse_mpp(typed)


def parse_mpp(typed: str) -> float | None:
    """Return the micrometres a pixel that were typed; None where nothing was.

    Raises:
        InputError: That is no number, or no microscope's image has it.
    """
    return give_scale(_parse_number(typed)).mpp_x if typed.strip() else None


def _parse_number(typed: str) -> float:
    try:
        return float(typed.replace(",", "."))
    except ValueError:
        raise InputError(f"type a number such as 0.5, not {typed.strip()!r}") from None
