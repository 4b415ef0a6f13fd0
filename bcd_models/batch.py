"""Answer about very many images as Parquet: each process its share, going on after a kill.

The images are cut into chunks, each of which makes one file, written whole or not at all. The
chunks don't depend on the number of processes: whoever starts anew passes over the files that are
there.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_models import __version__
from bcd_models.errors import ImageError, InputError
from bcd_models.hub.atomic import write_files
from bcd_models.prediction import COLUMNS

if TYPE_CHECKING:
    from bcd_models.config import CameraValidation, DecisionConfig, SuitabilityConfig
    from bcd_models.images.scale import Scale
    from bcd_models.models.predictor import Predictor
    from bcd_models.prediction import Prediction, Unsuitable

    Scaled = tuple[Path, float | Scale | None]

IMAGES_PER_FILE = 512  # at most so many are computed again after a kill
FILE_PATTERN = "part-*.parquet"


@dataclass(frozen=True)
class Share:
    """Which of several processes this is.

    Attributes:
        rank: Its number, from 0.
        world_size: How many there are, on all machines.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """Read what ``accelerate launch`` or torchrun set; without either, this is the only one."""
        numbers = [environment.get(name, "") for name in ("RANK", "WORLD_SIZE")]
        return cls(*map(int, numbers)) if all(n.isdigit() for n in numbers) else cls()


@dataclass(frozen=True)
class Outcome:
    """What a process did.

    Attributes:
        answered: Images that now have their answer, or the reason why they have none.
        kept: Images of its share whose file was there already.
        failed: The reasons of those that can't be used.
    """

    answered: int
    kept: int
    failed: tuple[str, ...]


def predict_into(
    model: Predictor,
    paths: Sequence[Path],
    folder: Path,
    share: Share = Share(),
    images_per_file: int = IMAGES_PER_FILE,
    mpp: Sequence[float | Scale | None] | None = None,
    point: str | None = None,
    suitability: Unsuitable = "refer",
) -> Outcome:
    """Answer for a share of some images, into Parquet files.

    Args:
        model: Whose answers.
        paths: All images, in the same order in each process.
        folder: Of the files; made where it isn't there.
        share: Of this process.
        images_per_file: Images that one Parquet file holds answers about.
        mpp: Micrometres a pixel of each image, where it is given.
        point: The model's operating point; its own threshold by default.
        suitability: As in ``predict``; answers of the two don't share a folder.

    Raises:
        InputError: ``pyarrow`` is missing, the folder holds answers of another model or of other
            images, or it can't be written.
    """
    if find_spec("pyarrow") is None:  # before anything is computed
        raise InputError("to write Parquet, install pyarrow: pip install pyarrow")
    sha256 = model.weights_sha256
    given = list(zip(paths, mpp or repeat(None, len(paths)), strict=True))
    rules = [rule.at(point) for rule in (model.config.decision, model.config.for_tiles)]
    asked = [*rules, model.suitability, model.cameras, suitability]
    files = _plan_files(asked, sha256, given, folder, images_per_file)
    _refuse_others(folder, files)
    own = list(files.items())[share.rank :: share.world_size]
    left = [(file, images) for file, images in own if not file.exists()]
    failed: list[str] = []
    for file, images in left:
        rows = []
        stream = model.stream(
            [path for path, _ in images],
            mpp=[scale for _, scale in images],
            point=point,
            suitability=suitability,
        )
        for (path, _), (_, said) in zip(images, stream, strict=True):
            rows.append(_row(path, said, model, sha256, rules[0].threshold))
            if isinstance(said, ImageError):
                failed.append(describe_failure(path, said))
        _write(file, rows)
    answered = sum(len(images) for _, images in left)
    return Outcome(answered, sum(len(images) for _, images in own) - answered, tuple(failed))


def describe_failure(path: Path, error: ImageError) -> str:
    """Return why an image can't be used, with its path, which some errors name themselves."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _plan_files(
    rules: Sequence[DecisionConfig | SuitabilityConfig | CameraValidation | str | None],
    sha256: str,
    given: Sequence[Scaled],
    folder: Path,
    images_per_file: int,
) -> dict[Path, Sequence[Scaled]]:
    """Return each file, named by its place, its images and the model; and its images."""
    files = {}
    for first in range(0, len(given), images_per_file):
        images = given[first : first + images_per_file]
        named = (f"{path}{'' if mpp is None else f' at {mpp}'}" for path, mpp in images)
        said = "\n".join((__version__, sha256, str(rules), *named))
        digest = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()
        files[folder / f"part-{first:09}-{digest[:12]}.parquet"] = images
    return files


def _refuse_others(folder: Path, files: Mapping[Path, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = sorted(set(folder.glob(FILE_PATTERN)) - files.keys())
    except OSError as error:
        raise InputError(f"{folder} can't be used: {error.strerror}") from None
    if other:
        raise InputError(
            f"{folder} holds answers of another model, or about other images, or asked for "
            f"otherwise ({other[0].name}): name another folder"
        )


def _row(
    path: Path, said: Prediction | ImageError, model: Predictor, sha256: str, threshold: float
) -> dict[str, Any]:
    """Return one row: the answer, or why there is none."""
    if not isinstance(said, ImageError):
        return {"path": str(path), **said.to_row(), "failed": None}
    known = {
        "threshold": threshold,
        "model": model.config.name,
        "model_version": model.config.version,
        "weights_sha256": sha256,
    }
    return {"path": str(path), **dict.fromkeys(COLUMNS), **known, "failed": str(said)}


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {str: pa.string(), float: pa.float64(), int: pa.int64()}
    columns = {"path": str, **COLUMNS, "failed": str}
    schema = pa.schema({name: kinds[kind] for name, kind in columns.items()})
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema), buffer)
    try:
        write_files({file: buffer.getvalue()})
    except OSError as error:
        raise InputError(f"{file} can't be written: {error.strerror}") from None
