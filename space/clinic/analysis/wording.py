"""The sentences that page and PDF share; none of them words a result as a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bcd_models.config import Label, ModelConfig, OperatingPoint, PreprocessConfig
from bcd_models.images.field import TRAINED
from bcd_models.images.scale import OPTICS, Scale
from bcd_models.local.page import share as show_share
from bcd_models.models.backbones import count_cells
from bcd_models.prediction import IN_BAND, WORDS, Finding, Prediction, describe_unsuitable
from clinic.analysis.models import OfferedModel

PREDICTIVE_NOTE = (
    "Of such fields read here, never of patients, and of single fields: an image or a slide of "
    "several tiles is not what was tested. Fields that would be left to a pathologist count by the "
    "threshold, as if none were. In brackets 95% intervals, from out-of-fold testing."
)
RUNTIMES = {"onnx": "ONNX Runtime"}  # by their names in an answer; others are called the same
# Others are what a file says.
SCALE_SOURCES = {"given": "as given", OPTICS: f"from {OPTICS}", TRAINED: TRAINED}
DARK = "nothing speaks for it"
BRIGHT = "would be called so with certainty"
# What to do about each finding of ``bcd_models.images.suitability``, and about a camera's image.
REMEDIES = {
    "flat": "Choose a field that shows tissue.",
    "dark": "Turn up the light or the exposure, and take the image again.",
    "noise": "Take the image again with more light.",
    "glass": "Choose a field that tissue fills.",
    "grey": "Hand in the image in colour.",
    "focus": "Focus, and take the image again.",
    "stain": (
        "Hand in a field stained with haematoxylin and eosin. If this is one, check that the "
        "colours are right: not inverted, and red and blue not swapped."
    ),
    "pen": "Choose a field without pen marks, or wipe the slide and take the image again.",
    "picture": "Hand in an image taken through the microscope or by a slide scanner.",
    "camera": "Hand in the slide, or a field of it, from a slide scanner.",
}
NO_ANSWER = "No answer: this image looks unsuitable"
SEEN_BEFORE = (
    "Answers about one or more of these images have been shown to you before, so a read will be "
    "recorded as made after the models' answers."
)


def figure(probability: float) -> str:
    """Return a probability as people read it: three decimals, never a false 0 or 1."""
    if probability < 0.0005:
        return "below 0.001"
    if probability >= 0.9995:
        return "above 0.999"
    return f"{probability:.3f}"


def heading(prediction: Prediction) -> str:
    """Return the result in words, as a heading."""
    return NO_ANSWER if prediction.is_unsuitable else capitalise(prediction.words)


def capitalise(words: str) -> str:
    """Return words as a heading or a sentence begins, the rest of them as they are."""
    return words[0].upper() + words[1:]


def probability_line(prediction: Prediction) -> str:
    """Return how sure the answer is, and from which probability on the answer changes."""
    line = (
        f"Estimated probability of an {WORDS['malignant']}: {figure(prediction.probability)}. "
        f"The threshold is {figure(prediction.threshold)}{point_words(prediction)}"
    )
    if prediction.refer is None:
        return f"{line}."
    low, high = map(figure, prediction.refer)
    return f"{line}; from {low} to {high} the answer is left to a pathologist."


def point_words(prediction: Prediction) -> str:
    """Return which operating point a threshold is that of, to follow it; "" where none is."""
    return f" (operating point “{prediction.point}”)" if prediction.point else ""


def band_words(prediction: Prediction) -> str:
    """Return the referral band, or that there is none."""
    return " to ".join(map(figure, prediction.refer)) if prediction.refer else "none"


def runtime_words(prediction: Prediction) -> str:
    """Return what answered and in which precision, of an ensemble each; "" where not known."""
    if not prediction.runtime:
        return ""
    given = (one.partition(" ") for one in prediction.runtime.split(", "))
    return "; ".join(f"{RUNTIMES.get(name, name)}, {precision}" for name, _, precision in given)


def reason_lines(prediction: Prediction) -> list[str]:
    """Return why the answer should not be relied on, and what to do; mostly none."""
    # Where no probability is told, none is the reason.
    hidden = (IN_BAND,) if prediction.is_unsuitable else ()
    lines = [f"Because {reason}." for reason in prediction.reasons if reason not in hidden]
    if prediction.findings and not prediction.is_unsuitable:
        found = describe_unsuitable(prediction.findings, prediction.judged_tiles)
        lines.append(f"Left out: {found}.")
    return lines + _find_remedies(prediction.findings)


def override_line(prediction: Prediction) -> str:
    """Return what an answer was given in spite of, because the user asked for it; mostly ""."""
    return f"{capitalise(_describe_ignored(prediction))}." if prediction.ignored else ""


def suitability_warnings(answers: Iterable[Prediction]) -> tuple[str, ...]:
    """Return what was found in an image while its answers are hidden, and what to do."""
    told = []
    for one in answers:
        if one.ignored:
            told.append(_describe_ignored(one))
        elif one.findings:
            found = describe_unsuitable(one.findings, one.judged_tiles)
            told.append(" ".join([f"{found}.", *_find_remedies(one.findings)]).rstrip("."))
    return tuple(dict.fromkeys(told))


def findings_lines(prediction: Prediction) -> list[str]:
    """Return what each finding was measured by, in words first; mostly none."""
    return [
        f"{capitalise(one.words)}: beyond the limit (measured {one.value:.3g}, limit "
        f"{one.threshold:.3g})."
        for one in (*prediction.findings, *prediction.ignored)
    ]


def _describe_ignored(prediction: Prediction) -> str:
    found = describe_unsuitable(prediction.ignored, prediction.judged_tiles)
    return f"answered all the same, at the user's request, although {found}"


def _find_remedies(findings: Iterable[Finding]) -> list[str]:
    return [REMEDIES[one.name] for one in findings if one.name in REMEDIES]


def scale_words(prediction: Prediction) -> str:
    """Return how many micrometres a pixel shows, and how that is known."""
    if prediction.mpp is None:
        return "scale unknown" if prediction.scale else "scale not recorded"
    source = SCALE_SOURCES.get(prediction.scale, f"by the file ({prediction.scale})")
    return f"{prediction.mpp:.3g} µm a pixel, {source}"


def file_scale_words(scale: Scale | None) -> str:
    """Return what an image's file says of its scale."""
    if scale is None:
        return "the file does not state a scale"
    mean = (scale.mpp_x + scale.mpp_y) / 2
    return f"{mean:.3g} µm a pixel, by the file ({scale.source})"


def tiles_line(prediction: Prediction) -> str:
    """Return what the tiles of a large field say together.

    Empty where there is one tile, or where nobody knows what a tile shows.
    """
    if prediction.tiles == 1 or prediction.mpp is None:
        return ""
    return (
        f"The image is answered tile by tile. Tiles labelled “{WORDS['malignant']}”: "
        f"{prediction.malignant_tiles:,} of {prediction.tiles:,} ({prediction.share:.0%}). The "
        "probability is the highest of any tile; figures from testing are of single tiles."
    )


def find_untold(warnings: Sequence[str], answers: Iterable[Prediction]) -> tuple[str, ...]:
    """Return those warnings that no answer gives as its reason."""
    told = {reason for one in answers for reason in one.reasons}
    return tuple(one for one in warnings if one not in told)


def predictive_line(model: OfferedModel, point: str, share: int) -> str:
    """Return what a model's answers are worth where so many of 100 fields show the pattern.

    Args:
        model: On offer.
        point: Name of the operating point; "": the model's own.
        share: How many of 100 such fields show invasive carcinoma, 1 to 99.
    """
    rule = model.config.decision
    name = point or rule.own_point
    measured = rule.points.get(name)
    values = measured and measured.predictive_values(share / 100)
    if not measured or values is None:
        return f"{model.title}: not measured at {f'“{name}”' if name else 'its threshold'}."
    positive, negative = values
    return (
        f"{model.title} at “{name}”, if no field were left to a pathologist: of 100 answered "
        f"“{WORDS['malignant']}”, {100 * positive:.0f} show it; of 100 answered "
        f"“{WORDS['benign']}”, {100 * negative:.0f} show none. {_describe_test(measured)}"
    )


def _describe_test(point: OperatingPoint) -> str:
    """Return what an operating point was measured to do, as far as its config says."""
    measured = {
        "sensitivity": point.sensitivity,
        "specificity": point.specificity,
        "positive answers that were right": point.positive_predictive_value,
        "negative answers that were right": point.negative_predictive_value,
    }
    shown = ", ".join(f"{name} {show_share(one)}" for name, one in measured.items() if one)
    where = f", where {100 * point.prevalence:.0f} of 100 showed it" if point.prevalence else ""
    return f"In testing{where}: {shown}."


def map_line(prediction: Prediction, label: Label) -> str:
    """Return what bright regions speak for, and what is striped."""
    line = f"Bright regions speak for “{WORDS[label]}”; dark regions do not."
    is_striped = prediction.judged_tiles > prediction.tiles
    return f"{line} Grey stripes mark what is left out." if is_striped else line


def cell_line(config: ModelConfig) -> str:
    """Return how coarse the heat map is."""
    field = config.preprocess.field_width_um
    cell = field / count_cells(config)
    return (
        f"The map shows regions, not cells: the model gives one value about every {cell:.0f} µm "
        "of tissue."
    )


def classes_line() -> str:
    """Return what the two answers cover."""
    return (
        f"“{WORDS['malignant']}” means like invasive ductal carcinoma. “{WORDS['benign']}” covers "
        "all else: normal tissue, fat, perhaps in-situ disease too."
    )


def field_line(preprocess: PreprocessConfig) -> str:
    """Return what an image should show to be like those the model was trained on."""
    return f"about {preprocess.field_width_um:.0f} µm wide"


def printable(text: str) -> str:
    """Return a user's text with control and direction characters made visible."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
