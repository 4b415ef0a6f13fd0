"""The operating point that images are analysed at, and what its answers are worth here."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from bcd_models.errors import InputError
from clinic.analysis import wording
from clinic.analysis.models import Models
from clinic.analysis.points import read_own_point
from clinic.http.failures import user_message
from clinic.installation import Installation
from clinic.ui.frame import QUICK, alert, get_actor

MIN_SHARE, MAX_SHARE = 1, 99  # of 100: at either end one of the answers is always right
SHARE = (
    f"Of 100 such fields read here, how many show invasive carcinoma? ({MIN_SHARE} to {MAX_SHARE})"
)
COMMON = 28  # of 100: where nothing is known of the fields that a model was measured on
OWN = "At first your own default, which is chosen under “Account”"


def add_point_input(
    app: gr.Blocks, clinic: Installation, models: Models, chosen: gr.Radio | gr.CheckboxGroup
) -> gr.Radio:
    """Add the choice of an operating point and, folded up, predictive values at a prevalence.

    At first it is the doctor's own default, or else the installation's.

    Args:
        app: The Blocks, at the page.
        clinic: Whose settings name a point.
        models: On offer; where none has operating points, nothing is shown.
        chosen: Where the name or names of the models that answer are chosen.

    Raises:
        InputError: No model has the point that the settings name.
    """
    choices, first = models.point_choices, models.check_point(clinic.settings.point)
    shown = len(choices) > 1
    # Closed until what it begins with has loaded, which would undo a choice made before.
    point = gr.Radio(
        choices, value=first, label="Operating point", visible=shown, interactive=False
    )
    with gr.Accordion("What answers are worth here", open=False, visible=shown):
        share = gr.Slider(MIN_SHARE, MAX_SHARE, value=_measured_share(models), step=1, label=SHARE)
        told = gr.HTML(_describe(models, models.names[:1], first, _measured_share(models)))

    def describe(names: str | list[str], point: str, share: object) -> str:
        try:
            return _describe(models, [names] if isinstance(names, str) else names, point, share)
        except Exception as error:
            return alert(user_message(error))

    def begin(request: gr.Request) -> dict[str, Any]:
        actor = get_actor(request)
        own = read_own_point(clinic, models, actor) if actor else None
        if own is None:
            return gr.update(interactive=True)
        return gr.update(interactive=True, value=own, info=OWN)

    if shown:
        app.load(begin, None, point, **QUICK)
    changes = [one.change for one in (chosen, point, share)]
    # As typed: Gradio's own check would leave the old text beside a bare "Error".
    gr.on(
        changes,
        describe,
        [chosen, point, share],
        told,
        preprocess=False,
        trigger_mode="always_last",
        **QUICK,
    )
    return point


def _measured_share(models: Models) -> int:
    rule = models.describe(models.names[0]).config.decision
    own = rule.points.get(rule.own_point)
    return round(100 * own.prevalence) if own and own.prevalence else COMMON


def _describe(models: Models, names: list[str], point: str, share: object) -> str:
    if not isinstance(share, (int, float)) or not MIN_SHARE <= share <= MAX_SHARE:
        raise InputError(f"type how many of 100, a number from {MIN_SHARE} to {MAX_SHARE}")
    lines = [wording.predictive_line(models.describe(name), point, round(share)) for name in names]
    return "".join(
        f'<p class="bcd-quiet">{escape(one)}</p>' for one in [*lines, wording.PREDICTIVE_NOTE]
    )
