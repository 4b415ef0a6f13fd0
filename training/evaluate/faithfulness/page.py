"""What is known of a model's maps as a document, and as a table; and which map it should show."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from bcd_models.config import Estimate, Strict, first_error
from bcd_models.errors import InputError
from bcd_models.prediction import NOTICE
from training.evaluate.faithfulness.maps import HAEMATOXYLIN, Way
from training.evaluate.schema import Counts, Model
from training.pages import write_table

FILE = "faithfulness.json"  # in a model folder
MIN_GAP = 0.45  # of occlusion's
MIN_AREA = 0.75  # of composites
MIN_ALONG = 0.8
MAX_GLASS = 0.1
MAX_RANDOMISED = 0.3
# In the order of their cost: the first that passes is the default.
CANDIDATES = (
    Way("gradcam"),
    Way("hirescam"),
    Way("hirescam", 4),
    Way("hirescam", 8),
    Way("occlusion"),
    Way("occlusion", 4),
)
COLUMNS = {
    "deletion": "deletion gap",
    "deletion_tissue": "under tissue",
    "deletion_blur": "under blur",
    "insertion_tissue": "insertion, tissue",
    "insertion_blur": "insertion, blur",
    "road": "ROAD",
    "composites": "composites, AUROC",
    "pointing": "pointing game",
    "turns": "quarter turns",
    "shifts": "shifts",
    "randomised": "random weights",
}


class Measured(Strict):
    """One way of making maps.

    Attributes:
        name: Of the way, or of a map that no model makes.
        patches: How many it was measured on.
        figures: By trial; gaps in calibrated log-odds.
        glass: Share of tissue's cells that lie below the mean of glass; None: there was no glass.
        cascade: Rank correlation with the last fifth of the network randomised, two fifths, to all.
        milliseconds: Of a map.
        forwards: The same in forwards of one patch.
    """

    name: str
    patches: int
    figures: dict[str, Estimate]
    glass: float | None
    cascade: tuple[float, ...]
    milliseconds: float
    forwards: float


class Faithfulness(Strict):
    """A ``faithfulness.json``.

    Attributes:
        models: Whose maps were pooled.
        corpus_fingerprint: Of the patches' corpus.
        counts: The patches.
        intervals: How they were made.
        ways: Of making maps.
        notice: For research use only.
    """

    schema_version: Literal[1] = 1
    models: tuple[Model, ...] = Field(min_length=1)
    corpus_fingerprint: str
    counts: Counts
    intervals: str
    ways: tuple[Measured, ...]
    notice: str = NOTICE

    def __getitem__(self, name: str) -> Measured:
        """Return what was measured of a way."""
        return next(one for one in self.ways if one.name == name)


def choose(document: Faithfulness) -> Way | None:
    """Return the map that a model shows by default: the cheapest that passes; None: none does."""
    return next((way for way in CANDIDATES if not find_faults(document, way)), None)


def find_faults(document: Faithfulness, way: Way) -> list[str]:
    """Return what a way lacks to be the default."""
    known = {one.name for one in document.ways}
    if way.name not in known:
        return ["not measured"]
    own, stain = document[way.name].figures, document[HAEMATOXYLIN].figures
    single = document[way.method].figures
    glass = document[way.name].glass
    needed = MIN_GAP * document["occlusion"].figures["deletion"].value
    checks = {
        f"a deletion gap of {needed:.2f}": own["deletion"].value >= needed,
        "a deletion gap above the stain's": own["deletion"].low > stain["deletion"].value,
        f"{MIN_AREA} on composites": own["composites"].value >= MIN_AREA,
        "composites above the stain's": own["composites"].low > stain["composites"].value,
        f"{MIN_ALONG} under quarter turns": single["turns"].value >= MIN_ALONG,
        f"{MIN_ALONG} under shifts": own["shifts"].value >= MIN_ALONG,
        "glass below the tenth percentile of tissue": glass is not None and glass < MAX_GLASS,
        f"{MAX_RANDOMISED} with random weights": own["randomised"].value <= MAX_RANDOMISED,
    }
    return [words for words, is_met in checks.items() if not is_met]


def tabulate(document: Faithfulness) -> str:
    """Return the table in Markdown, with what was measured on and which map is the default."""
    head = ["map", *COLUMNS.values(), "glass", "cascade", "ms", "forwards", "patches"]
    rows = []
    for one in document.ways:
        cells = [_write(one.figures.get(trial)) for trial in COLUMNS]
        glass = "" if one.glass is None else f"{one.glass:.0%}"
        cascade = " ".join(f"{value:.2f}" for value in one.cascade)
        cost = f"{one.milliseconds:.0f}", f"{one.forwards:.1f}", str(one.patches)
        rows.append([one.name, *cells, glass, cascade, *cost])
    counts, way = document.counts, choose(document)
    default = f"The default is {way.name}." if way else "None passes, so no map is shown unasked."
    lacking = [
        f"- {one.name} lacks: {'; '.join(faults)}."
        for one in CANDIDATES
        if (faults := find_faults(document, one))
    ]
    names = ", ".join(dict.fromkeys(one.name for one in document.models))
    below = (
        f"{names}: {counts.images} malignant patches of {counts.cases} cases, each mapped by the "
        f"fold model that held its case out; {document.intervals}. {default}"
    )
    return "\n".join([write_table(head, rows), "", below, "", *lacking, ""])


def _write(figure: Estimate | None) -> str:
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})" if figure else ""


def read(path: Path, weights_sha256: str = "") -> Faithfulness:
    """Read a ``faithfulness.json``; InputError names the key and what is wrong with it."""
    try:
        document = Faithfulness.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_error(error) if isinstance(error, ValidationError) else error
        raise InputError(f"{path} is none of training.evaluate.faithfulness: {why}") from None
    if weights_sha256 and weights_sha256 not in {one.weights_sha256 for one in document.models}:
        raise InputError(f"{path} is of other weights: measure the maps again")
    return document
