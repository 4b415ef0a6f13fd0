"""What the page shows of an image and its result, as HTML. All text is escaped here."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

import numpy as np
from PIL import Image

from bcd_models.config import Label, ModelConfig
from bcd_models.explanation import Explanation, apply_colours
from bcd_models.prediction import Prediction
from clinic.analysis import wording
from clinic.analysis.display import MAX_SIDE, display_size, enlarge, resize_for_display
from clinic.ui.frame import alert
from clinic.ui.tables import facts

OPACITY = 50  # per cent, at first
MIND = '<p class="bcd-mind"><b aria-hidden="true">!</b>'
MARKS = {"malignant": "▲", "benign": "○", "refer": "?"}  # so that colour is never alone


@dataclass(frozen=True)
class Pictures:
    """An image and its heat map, as a browser finds them."""

    image: str  # address of the image
    heat: str  # address of the coloured heat map
    size: tuple[int, int]  # width and height of the image in pixels


EMPTY = """
<section class="bcd-card bcd-empty">
  <p class="bcd-lead">The answer appears here</p>
  <p>Choose an image of H&amp;E-stained breast tissue, then press Analyse.</p>
</section>
"""

# Runs once in the browser; the listener also serves whatever is shown later.
LISTEN = """
element.setAttribute('aria-live', 'polite');
element.addEventListener('input', (event) => {
  if (!event.target.matches('.bcd-slider input')) return;
  const viewer = event.target.closest('.bcd-viewer');
  viewer.style.setProperty('--heat', event.target.value / 100);
  viewer.querySelector('output').textContent = event.target.value + ' %';
});
"""


def show_chosen(image: Image.Image, which: str = "", scale: str = "") -> str:
    """Return an image that waits for its analysis; ``which`` of several, its scale in words."""
    said = f"{which}: ready to analyse" if which else "Ready to analyse"
    return show_image(data_uri(enlarge(image)), image.size, said, scale)


def show_image(source: str, size: tuple[int, int], said: str, scale: str = "") -> str:
    """Return an image without an answer.

    Args:
        source: Where the browser finds it.
        size: Width and height in pixels.
        said: A line above it.
        scale: What is known of its scale, in words; or "".
    """
    width, height = size
    return f"""
<section class="bcd-card">
  {f'<p class="bcd-lead">{escape(said)}</p>' if said else ""}
  <div class="{_picture(size)}" style="{_shape(size)}">
    <img src="{escape(source)}" alt="The chosen image">
  </div>
  <p class="bcd-quiet">{width} × {height} pixels{escape(f"; {scale}" if scale else "")}</p>
</section>
"""


def show_failure(sentence: str, which: str = "") -> str:
    """Return why there is no result; ``which`` of several images."""
    return alert(sentence, f"{which}: No result" if which else "No result")


def show_warnings(warnings: Sequence[str]) -> str:
    """Return what speaks against the answers about an image; nothing where nothing does."""
    return "".join(f"{MIND} Mind: {escape(one)}.</p>" for one in warnings)


def result(explanation: Explanation, which: str = "") -> str:
    """Return the answer in words, its probability, and the picture; ``which`` of several images."""
    shown = resize_for_display(explanation)
    said = explanation.prediction
    size = said.width, said.height
    pictures = Pictures(data_uri(shown.image), data_uri(shown.coloured()), size)
    return answer(said, explanation.label, pictures, which)


def answer(prediction: Prediction, explained: Label, pictures: Pictures, which: str = "") -> str:
    """Return the same of pictures that lie elsewhere, with a heat map for the label explained."""
    return f"""
<section class="bcd-card">
  <p class="bcd-quiet">{_which(which)}The model's answer</p>
  <h2 class="bcd-answer bcd-{prediction.decision}">
    <span class="bcd-mark" aria-hidden="true">{MARKS[prediction.decision]}</span>
    {escape(wording.heading(prediction))}
  </h2>
  {_override(prediction)}
  {"".join(f"<p>{escape(one)}</p>" for one in wording.reason_lines(prediction))}
  {_refusal(pictures) if prediction.is_unsuitable else _draw(prediction, explained, pictures)}
  <p class="bcd-quiet">{prediction.width} × {prediction.height} pixels,
    {escape(wording.scale_words(prediction))}; analysed by {escape(prediction.model)}
    {escape(prediction.model_version)}</p>
  {_describe_measures(prediction)}
</section>
"""


def _describe_measures(prediction: Prediction) -> str:
    """Return the numbers behind what was found, folded up; nothing where nothing was."""
    lines = "".join(f"<p>{escape(one)}</p>" for one in wording.findings_lines(prediction))
    if not lines:
        return ""
    return f'<details class="bcd-details"><summary>What was measured</summary>{lines}</details>'


def _override(prediction: Prediction) -> str:
    line = wording.override_line(prediction)
    return f"{MIND} {escape(line)}</p>" if line else ""


def _draw(prediction: Prediction, explained: Label, pictures: Pictures) -> str:
    tiles = wording.tiles_line(prediction)
    return f"""
  {f"<p>{escape(prediction.missed_words)}</p>" if prediction.missed_words else ""}
  {_probability_bar(prediction)}
  <p class="bcd-quiet">{escape(wording.probability_line(prediction))}</p>
  {f"<p>{escape(tiles)}</p>" if tiles else ""}
  {viewer(pictures)}
  <p>{escape(wording.map_line(prediction, explained))}</p>
"""


def _refusal(pictures: Pictures) -> str:
    """Return the image alone, of which nothing is said."""
    return f"""
  <div class="{_picture(pictures.size)}" style="{_shape(pictures.size)}">
    <img src="{escape(pictures.image)}" alt="The image">
  </div>
"""


def details(explanation: Explanation, config: ModelConfig, when: datetime) -> str:
    """Return what stands behind a result, folded up."""
    prediction = explanation.prediction
    known = {
        "Model": f"{prediction.model}, version {prediction.model_version}",
        "SHA-256 of its weights": prediction.weights_sha256,
        **({"Operating point": prediction.point} if prediction.point else {}),
        "Threshold": wording.figure(prediction.threshold),
        "Referral band": wording.band_words(prediction),
        "Trained on fields": wording.field_line(config.preprocess),
        "Analysed": f"{when:%Y-%m-%d %H:%M:%S} UTC",
    }
    rows = facts({name: escape(value) for name, value in known.items()})
    return f"""
<details class="bcd-details">
  <summary>What the answer covers</summary>
  <p>{escape(wording.classes_line())}</p>
</details>
<details class="bcd-details">
  <summary>What the heat map means</summary>
  <p>Each place has the colour of one number. 0: if the model saw everywhere what it sees in this
    place, the image would not be called so. 1: it would be called so with certainty. What it sees
    in a place depends on the tissue around it. The colours mean the same in every image, so a map
    may stay dark all over. Where the image stays as it is, nothing was looked at: too little
    tissue, or beyond the tiles.</p>
  <p>{escape(wording.cell_line(config))}</p>
</details>
<details class="bcd-details">
  <summary>Model and settings</summary>
  <dl>{rows}</dl>
</details>
"""


def _probability_bar(prediction: Prediction) -> str:
    probability, threshold = prediction.probability, prediction.threshold
    band = ""
    if prediction.refer:
        low, high = prediction.refer
        band = f'<i class="bcd-band" style="left:{low:.2%};width:{high - low:.2%}"></i>'
    label = escape(wording.probability_line(prediction))
    return f"""
<div class="bcd-bar" role="img" aria-label="{label}">
  <b class="bcd-here" style="left:{probability:.2%};--at:{probability:.4f}">
    <span>{wording.figure(probability)}</span></b>
  <div class="bcd-track">{band}<i class="bcd-threshold" style="left:{threshold:.2%}"></i></div>
  <div class="bcd-ends"><span>0</span>
    <span class="bcd-at" style="left:{threshold:.2%};--at:{threshold:.4f}">
      threshold {wording.figure(threshold)}</span>
    <span>1</span></div>
</div>
{'<p class="bcd-quiet bcd-key"><i class="bcd-band"></i> referral band</p>' if band else ""}
"""


def viewer(pictures: Pictures) -> str:
    """Return image and heat map on top of each other; the slider works in the browser alone."""
    return f"""
<div class="bcd-viewer" style="--heat:{OPACITY / 100}">
  <div class="bcd-stage">
    <div class="{_picture(pictures.size)}" style="{_shape(pictures.size)}">
      <img src="{escape(pictures.image)}" alt="The analysed image">
      <img class="bcd-heat" src="{escape(pictures.heat)}" alt="Heat map over the image">
    </div>
    {_SCALE}
  </div>
  <label class="bcd-slider">Heat map opacity
    <input type="range" min="0" max="100" step="5" value="{OPACITY}">
    <output>{OPACITY} %</output>
  </label>
</div>
"""


def _picture(size: tuple[int, int]) -> str:
    """Return classes of a picture: pixels of a small image stay what they are."""
    return "bcd-picture bcd-pixels" if max(size) < MAX_SIDE // 2 else "bcd-picture"


def _shape(size: tuple[int, int]) -> str:
    width, height = display_size(size)
    return f"aspect-ratio:{width}/{height};--share:{min(1, width / height):.4f}"


def _which(which: str) -> str:
    return f"{escape(which)}: " if which else ""


def data_uri(image: Image.Image) -> str:
    """Return an image as an address that holds it, for a page."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _gradient() -> str:
    stops = apply_colours(np.linspace(0, 1, 11))
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)


_SCALE = f"""
<div class="bcd-scale" role="img"
    aria-label="Colours: dark is 0, {wording.DARK}; bright is 1, {wording.BRIGHT}">
  <i style="--colours:{_gradient()}"></i>
  <span>1<small>{wording.BRIGHT}</small></span>
  <span>0.5</span>
  <span><small>{wording.DARK}</small>0</span>
</div>
"""
