"""The files of a slide's prediction: heat map, regions for QuPath, tiles, summary."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files
from bcd_models.prediction import NOTICE, WORDS
from bcd_models.slides.heatmap import draw_heat_map
from bcd_models.slides.prediction import count_looks
from bcd_models.slides.regions import Region, outline

if TYPE_CHECKING:
    from bcd_models.decision import Decision
    from bcd_models.slides.prediction import SlidePrediction

KINDS = (".png", ".geojson", ".parquet", ".json")
COLOURS: dict[Decision, list[int]] = {"malignant": [200, 0, 60], "refer": [240, 160, 0]}


def write(prediction: SlidePrediction, folder: Path) -> list[Path]:
    """Write all files into a folder, made where it doesn't exist: all of them, or none.

    Returns:
        Heat map, regions, tiles and summary.

    Raises:
        InputError: The folder can't be written, or a package that slides need is not installed.
    """
    try:
        contents = (
            _encode_png(prediction),
            _encode_json(build_geojson(prediction)),
            encode_parquet(prediction),
            _encode_json(prediction.to_dict()),
        )
    except ImportError as error:
        raise InputError(
            f"slides need {error.name} ({error}): pip install 'bcd-models[slides]'"
        ) from None
    files = dict(zip(output_paths(prediction, folder), contents, strict=True))
    try:
        write_files(files)
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error.strerror}") from None
    return list(files)


def output_paths(prediction: SlidePrediction, folder: Path) -> list[Path]:
    """Return where heat map, regions, tiles and summary go."""
    return [output_path(folder, prediction.facts.path, prediction.model, kind) for kind in KINDS]


def output_path(folder: Path, slide: Path, model: str, kind: str) -> Path:
    """Return where a file of a slide and a model goes: ``<slide>-<model><kind>``."""
    return folder / f"{slide.stem}-{Path(model).name}{kind}"


def build_geojson(prediction: SlidePrediction) -> dict[str, Any]:
    """Return the regions as QuPath reads them, in pixels of the image that QuPath shows.

    They are a FeatureCollection of annotations with classification, measurements and metadata.

    That image is level 0, cut to the slide's bounds where the slide states some (MRXS does).
    """
    return {
        "type": "FeatureCollection",
        "features": [
            _build_feature(prediction, region, decision)
            for decision in COLOURS
            for region in prediction.regions(decision)
        ],
    }


def encode_parquet(prediction: SlidePrediction) -> bytes:
    """Return all tiles with tissue, one a row, in level-0 pixels.

    There is no answer where one failed or is unsuitable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, columns = np.nonzero(prediction.tissue)
    cells = list(zip(rows.tolist(), columns.tolist(), strict=True))
    edges = np.array([prediction.grid.edges(*cell) for cell in cells], np.int64).reshape(-1, 4)
    probabilities = prediction.probabilities[rows, columns]
    none = np.isnan(probabilities)
    labels = np.where(prediction.labelled, "malignant", "benign")[rows, columns]
    decisions = np.where(prediction.referred[rows, columns], "refer", labels)
    reasons = {(tile.row, tile.column): tile.reason for tile in prediction.failed}
    looks, ignored = (
        {(tile.row, tile.column): tile.words for tile in tiles}
        for tiles in (prediction.unsuitable, prediction.ignored)
    )
    table = pa.table(
        {
            "row": pa.array(rows, pa.int32()),
            "column": pa.array(columns, pa.int32()),
            "x": pa.array(edges[:, 0]),
            "y": pa.array(edges[:, 1]),
            "width": pa.array(edges[:, 2] - edges[:, 0]),
            "height": pa.array(edges[:, 3] - edges[:, 1]),
            "probability": pa.array(probabilities, pa.float64(), mask=none),
            "label": pa.array(labels.astype(object), pa.string(), mask=none),
            "decision": pa.array(decisions.astype(object), pa.string(), mask=none),
            "failed": pa.array([reasons.get(cell) for cell in cells], pa.string()),
            "unsuitable": pa.array([looks.get(cell) for cell in cells], pa.string()),
            "ignored": pa.array([ignored.get(cell) for cell in cells], pa.string()),
        }
    )
    about = {
        "slide": prediction.facts.path.name,
        "model": f"{prediction.model} {prediction.model_version}",
        "weights_sha256": prediction.weights_sha256,
        "notice": NOTICE,
    }
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(about), buffer)
    return buffer.getvalue()


def _build_feature(
    prediction: SlidePrediction, region: Region, decision: Decision
) -> dict[str, Any]:
    facts = prediction.describe(region)
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": _build_coordinates(prediction, region)},
        "properties": {
            "objectType": "annotation",
            "classification": {"name": WORDS[decision], "color": COLOURS[decision]},
            "isLocked": True,
            "measurements": {
                "Tiles": facts["tiles"],
                "Area mm^2": facts["area_mm2"],
                "Mean P(malignant)": facts["mean_probability"],
                "Highest P(malignant)": facts["highest_probability"],
            },
            "metadata": {
                "Model": f"{prediction.model} {prediction.model_version}",
                "Weights SHA-256": prediction.weights_sha256,
                **_tell_ignored(prediction),
                "Notice": NOTICE,
            },
        },
    }


def _tell_ignored(prediction: SlidePrediction) -> dict[str, str]:
    """Return what each region says of tiles that look unsuitable and are counted all the same."""
    looks = count_looks(prediction.ignored).items()
    said = ", ".join(f"{words}: {count}" for words, count in looks)
    return {"Unsuitable tiles counted all the same": said} if said else {}


def _build_coordinates(prediction: SlidePrediction, region: Region) -> list[list[list[int]]]:
    grid, (left, top, _, _) = prediction.grid, prediction.facts.bounds
    rings = []
    for ring in outline(region):
        corners = [grid.edges(row, column)[:2] for column, row in ring]
        rings.append([[x - left, y - top] for x, y in corners])
    return rings


def _encode_png(prediction: SlidePrediction) -> bytes:
    buffer = io.BytesIO()
    draw_heat_map(prediction).save(buffer, format="PNG")
    return buffer.getvalue()


def _encode_json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()
