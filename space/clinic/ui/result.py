"""What the page shows of an image and its result, as HTML. All text is escaped here."""

from __future__ import annotations

import base64
import io
from datetime import datetime
from html import escape

import numpy as np
from matplotlib import colormaps
from PIL import Image

from bcd_models.config import ModelConfig
from bcd_models.explain import COLOURS, Explanation
from bcd_models.prediction import Prediction
from clinic import wording
from clinic.display import display_size, enlarged, for_display

OPACITY = 50  # per cent, at first
MARKS = {"malignant": "▲", "benign": "○", "refer": "?"}  # so that colour is never alone

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


def chosen(image: Image.Image, which: str = "") -> str:
    """An image that waits for its analysis; ``which`` of several."""
    width, height = image.size
    return f"""
<section class="bcd-card">
  <p class="bcd-lead">Ready to analyse</p>
  <div class="bcd-picture" style="{_shape(image.size)}">
    <img src="{_data_uri(enlarged(image))}" alt="The chosen image">
  </div>
  <p class="bcd-quiet">{_which(which)}{width} × {height} pixels</p>
</section>
"""


def failed(sentence: str, which: str = "") -> str:
    """Why there is no result; ``which`` of several images."""
    return f"""
<section class="bcd-card bcd-alert" role="alert">
  <p class="bcd-lead"><span class="bcd-mark" aria-hidden="true">!</span>{_which(which)}No result</p>
  <p>{escape(wording.printable(sentence))}</p>
</section>
"""


def result(explanation: Explanation, which: str = "") -> str:
    """The answer in words, its probability, and the picture; ``which`` of several images."""
    prediction = explanation.prediction
    reasons = wording.reasons_line(prediction)
    return f"""
<section class="bcd-card">
  <p class="bcd-quiet">{_which(which)}The model's answer</p>
  <h2 class="bcd-answer bcd-{prediction.decision}">
    <span class="bcd-mark" aria-hidden="true">{MARKS[prediction.decision]}</span>
    {escape(wording.heading(prediction))}
  </h2>
  {f"<p>{escape(reasons)}</p>" if reasons else ""}
  {_probability_bar(prediction)}
  <p class="bcd-quiet">{escape(wording.probability_line(prediction))}</p>
  {_viewer(explanation)}
  <p>{escape(wording.map_line(explanation.label))}</p>
  <p class="bcd-quiet">{prediction.width} × {prediction.height} pixels,
    analysed by {escape(prediction.model)} {escape(prediction.model_version)}</p>
</section>
"""


def details(explanation: Explanation, config: ModelConfig, when: datetime) -> str:
    """What stands behind a result, folded up."""
    prediction = explanation.prediction
    facts = {
        "Model": f"{prediction.model}, version {prediction.model_version}",
        "SHA-256 of its weights": prediction.weights_sha256,
        "Threshold": wording.figure(prediction.threshold),
        "Referral band": wording.band_words(prediction),
        "Trained on fields": wording.field_line(config.preprocess),
        "Analysed": f"{when:%Y-%m-%d %H:%M:%S} UTC",
    }
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f"""
<details class="bcd-details">
  <summary>What the answer covers</summary>
  <p>{escape(wording.classes_line())}</p>
</details>
<details class="bcd-details">
  <summary>What the heat map means</summary>
  <p>Each place has the colour of one number. 0: an image that looked like this place all over
    would not be called so. 1: it would be called so with certainty. The scale is the same for
    every image, so a map may stay dark all over.</p>
  <p>{escape(wording.cell_line(config.preprocess))}</p>
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


def _viewer(explanation: Explanation) -> str:
    """Image and heat map on top of each other; the slider works in the browser alone."""
    shown = for_display(explanation)
    return f"""
<div class="bcd-viewer" style="--heat:{OPACITY / 100}">
  <div class="bcd-stage">
    <div class="bcd-picture" style="{_shape(shown.image.size)}">
      <img src="{_data_uri(shown.image)}" alt="The analysed image">
      <img class="bcd-heat" src="{_data_uri(shown.coloured())}" alt="Heat map over the image">
    </div>
    {_SCALE}
  </div>
  <label class="bcd-slider">Heat map opacity
    <input type="range" min="0" max="100" step="5" value="{OPACITY}">
    <output>{OPACITY} %</output>
  </label>
</div>
"""


def _shape(size: tuple[int, int]) -> str:
    width, height = display_size(size)
    return f"aspect-ratio:{width}/{height};--share:{min(1, width / height):.4f}"


def _which(which: str) -> str:
    return f"{escape(which)}: " if which else ""


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _gradient() -> str:
    stops = colormaps[COLOURS](np.linspace(0, 1, 11), bytes=True)[:, :3]
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
