"""Answers about very many images as Parquet: each process its share, going on after a kill.

The images are cut into runs, each of which makes one part, written whole or not at all. Which runs
there are does not depend on the processes: whoever starts anew, with as many as before or others,
passes over the parts that are there.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_models.errors import ImageError, InputError
from bcd_models.hub.atomic import write_files

if TYPE_CHECKING:
    from bcd_models.models.predictor import Predictor
    from bcd_models.prediction import Prediction

RUN = 512  # images of a part: at most so many are computed again after a kill
PARTS = "part-*.parquet"


@dataclass(frozen=True)
class Share:
    """Which of several processes this is.

    Attributes:
        rank: Its number, from 0.
        of: How many there are, on all machines.
        here: Its number among those of its machine, from 0.
    """

    rank: int = 0
    of: int = 1
    here: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Share:
        """As ``accelerate launch`` and torchrun tell it; where neither does, the only one."""
        told = [environment.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        return cls(*map(int, told)) if all(one.isdigit() for one in told) else cls()


@dataclass(frozen=True)
class Outcome:
    """What a process did.

    Attributes:
        answered: Images that now have their answer, or the reason why they have none.
        kept: Images of its share whose part was there already.
        failed: The reasons of those that can't be used.
    """

    answered: int
    kept: int
    failed: tuple[str, ...]


def predict_into(
    model: Predictor, paths: Sequence[Path], folder: Path, share: Share = Share(), run: int = RUN
) -> Outcome:
    """Answer for a share of some images, into parts.

    Args:
        model: Whose answers.
        paths: All images, in the same order in each process.
        folder: Of the parts; made where it isn't there.
        share: Of this process.
        run: Images of a part.

    Raises:
        InputError: ``pyarrow`` is missing, the folder holds parts of another model or of other
            images, or it can't be written.
    """
    if find_spec("pyarrow") is None:  # before anything is computed
        raise InputError("to write Parquet, install pyarrow: pip install pyarrow")
    sha256 = model.weights_sha256
    parts = _parts_of(model, sha256, paths, folder, run)
    _refuse_others(folder, parts)
    own = list(parts.items())[share.rank :: share.of]
    left = [(part, images) for part, images in own if not part.exists()]
    failed: list[str] = []
    for part, images in left:
        rows = []
        for path, (_, said) in zip(images, model.stream(images), strict=True):
            rows.append(_row(path, said, model, sha256))
            if isinstance(said, ImageError):
                failed.append(f"{path}: {said}")
        _write(part, rows)
    answered = sum(len(images) for _, images in left)
    return Outcome(answered, sum(len(images) for _, images in own) - answered, tuple(failed))


def _parts_of(
    model: Predictor, sha256: str, paths: Sequence[Path], folder: Path, run: int
) -> dict[Path, Sequence[Path]]:
    """Each part's file, named by its place, its images and the model; and its images."""
    parts = {}
    for first in range(0, len(paths), run):
        images = paths[first : first + run]
        said = "\n".join((sha256, str(model.config.decision), *map(str, images)))
        digest = hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()
        parts[folder / f"part-{first:09}-{digest[:12]}.parquet"] = images
    return parts


def _refuse_others(folder: Path, parts: Mapping[Path, Any]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        other = sorted(set(folder.glob(PARTS)) - parts.keys())
    except OSError as error:
        raise InputError(f"{folder} can't be used: {error.strerror}") from None
    if other:
        raise InputError(
            f"{folder} holds answers of another model, or about other images ({other[0].name}): "
            "name another folder"
        )


def _row(
    path: Path, said: Prediction | ImageError, model: Predictor, sha256: str
) -> dict[str, Any]:
    """One line: the answer, or why there is none."""
    failed = str(said) if isinstance(said, ImageError) else None
    answer = None if isinstance(said, ImageError) else said
    return {
        "path": str(path),
        "label": answer and answer.label,
        "probability": answer and answer.probability,
        "decision": answer and answer.decision,
        "threshold": model.config.decision.threshold,
        "model": model.config.name,
        "model_version": model.config.version,
        "weights_sha256": sha256,
        "failed": failed,
    }


def _write(part: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = dict.fromkeys(rows[0], pa.string())
    schema = pa.schema(kinds | {"probability": pa.float64(), "threshold": pa.float64()})
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows, schema), buffer)
    try:
        write_files({part: buffer.getvalue()})
    except OSError as error:
        raise InputError(f"{part} can't be written: {error.strerror}") from None
