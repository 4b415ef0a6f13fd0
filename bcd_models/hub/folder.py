"""A model folder or Hub id: found, read strictly, written whole.

Weights are only ever safetensors: nothing here unpickles anything.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_models.config import Decides, Graph, ModelConfig
from bcd_models.errors import HubError, InputError, ModelFolderError
from bcd_models.hub.atomic import write_files
from bcd_models.hub.repository import HubOptions, fetch

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
METRICS = "metrics.json"
GRAPH = "model.onnx"
GRADIENT_GRAPH = "explain.onnx"
GRAPHS = GRAPH, GRADIENT_GRAPH
ENSEMBLE = "bcd_ensemble"  # the object of an ensemble's config.json
MEMBER = r"[A-Za-z0-9][A-Za-z0-9._-]*"  # a name that can't lead out of the folder
REMEDY = "download or save the model again"


def locate(folder_or_id: str | Path, options: HubOptions = HubOptions()) -> Path:
    """Find a model's or ensemble's folder: an existing folder wins, else the Hub is asked.

    What looks like a path, or is named nearly as a folder that is there, is no Hub id.

    Raises:
        ModelFolderError: Neither a folder nor a repository that can be fetched.
    """
    folder, name = Path(folder_or_id), str(folder_or_id)
    is_id = not folder.is_absolute() and name.count("/") == 1 and not name.startswith((".", "~"))
    if folder.is_dir():
        if is_id and not (folder / CONFIG).is_file():
            raise ModelFolderError(
                f"the folder {name} here wins over the Hub's {name}, and has no {CONFIG}: save a "
                "model into it, or rename it or work in another folder to have the Hub's"
            )
        return folder
    if near := _find_similar(folder):
        hub = f" Work in another folder to have the Hub's {name}" if is_id else ""
        raise ModelFolderError(f"no model folder {name}: did you mean {near}?{hub}")
    if not is_id:
        raise ModelFolderError(f"no model folder {name}, and it is no Hub id (owner/name) either")
    try:
        return fetch(name, CONFIG, _needed_files, _optional_files, options)
    except HubError as error:
        raise ModelFolderError(f"no model folder {name}, and {error}") from None


def _find_similar(folder: Path) -> Path | None:
    """Return the folder beside a missing one whose name is most like it; None: none is."""
    try:
        beside = [one.name for one in folder.parent.iterdir() if one.is_dir()]
    except OSError:
        return None
    close = difflib.get_close_matches(folder.name, beside, n=1)
    return folder.with_name(close[0]) if close else None


def refuse_inside(path: Path) -> None:
    """InputError where a path is a model folder or lies in one, whatever links lead there."""
    found = path.resolve()
    for folder in (found, *found.parents):
        if _holds_model(folder):
            raise InputError(
                f"{path} would be written into the model folder {folder}, which stays as it is: "
                "write somewhere else"
            )


def _holds_model(folder: Path) -> bool:
    try:
        document = read_document(folder)
    except ModelFolderError:
        return False
    return isinstance(document, dict) and bool({"bcd", ENSEMBLE} & document.keys())


def read_member_names(folder: Path) -> list[str]:
    """The sub-folders of an ensemble's members; none where the folder holds a single model.

    Raises:
        ModelFolderError: The config can't be read, or a name could lead out of the folder.
    """
    document = read_document(folder)
    ensemble = document.get(ENSEMBLE) if isinstance(document, dict) else None
    names = ensemble.get("members") if isinstance(ensemble, dict) else []
    if not isinstance(names, list) or not all(re.fullmatch(MEMBER, str(name)) for name in names):
        raise ModelFolderError(f"{folder / CONFIG}: {ENSEMBLE}.members must be sub-folders' names")
    return names


def read_document(folder: Path) -> Any:
    """What ``config.json`` holds, unchecked; ModelFolderError where it isn't JSON."""
    path = folder / CONFIG
    data = _read(path)
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not JSON in UTF-8 ({error}): {REMEDY}") from None


def read_config(folder: Path) -> ModelConfig:
    """Read and check ``config.json``; ModelFolderError where it can't be used."""
    path = folder / CONFIG
    document = read_document(folder)
    if isinstance(document, dict) and ENSEMBLE in document:
        raise ModelFolderError(f"{folder} holds an ensemble: load it with BCDEnsemble")
    return ModelConfig.from_json(path.read_text("utf-8"), str(path))


def read_weights(folder: Path) -> tuple[bytes, str]:
    """Read ``model.safetensors``.

    Returns:
        The file's bytes, and their SHA-256 in hex.
    """
    data = _read(folder / WEIGHTS)
    return data, hashlib.sha256(data).hexdigest()


def read_graphs(folder: Path, config: ModelConfig, weights_sha256: str) -> dict[str, bytes]:
    """Read those of ``GRAPHS`` that the config names and the folder holds, by file name.

    Raises:
        ModelFolderError: Graph or weights are others than those that were exported.
    """
    present = (name for name in GRAPHS if name in config.graphs and (folder / name).exists())
    return {
        name: _read_graph(folder / name, config.graphs[name], weights_sha256) for name in present
    }


def _read_graph(path: Path, named: Graph, weights_sha256: str) -> bytes:
    graph = _read(path)
    if hashlib.sha256(graph).hexdigest() != named.sha256:
        raise ModelFolderError(f"{path} is not the graph that {CONFIG} names: {REMEDY}")
    if weights_sha256 != named.weights_sha256:
        raise ModelFolderError(
            f"{path} is of other weights than those in {WEIGHTS}: {REMEDY}, or delete it and "
            "write it again with bcd export"
        )
    return graph


def check_calibrated(folder: Path, config: Decides, weights_sha256: str) -> None:
    """Refuse a folder whose local calibration was fitted with other weights than it holds."""
    if any(one.parent_weights_sha256 != weights_sha256 for one in config.calibrated):
        raise ModelFolderError(
            f"{folder} was calibrated locally with other weights than it holds, which its "
            "thresholds say nothing of: put those back, or calibrate the model that these are of "
            "with bcd calibrate"
        )


def count_parameters(weights: bytes) -> int:
    """Return how many learnt numbers a weights file holds: all but batch norms' statistics."""
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return sum(
        math.prod(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and not name.endswith(statistics)
    )


def refuse_infinite(weights: bytes, where: str) -> None:
    """Refuse a weights file that is none, or holds NaN or infinite values; without torch."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(weights)
    except (SafetensorError, KeyError) as error:
        raise ModelFolderError(f"{where} is not a safetensors file ({error}): {REMEDY}") from None
    for name, values in tensors.items():
        if not np.isfinite(values).all():
            raise ModelFolderError(f"{where}: {name} holds NaN or infinite values: {REMEDY}")


def unpack(weights: bytes, where: str) -> dict[str, Tensor]:
    """Return the tensors of a weights file; ModelFolderError where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(weights)
    except (SafetensorError, KeyError) as error:  # KeyError: a number format torch has none for
        raise ModelFolderError(f"{where} is not a safetensors file ({error}): {REMEDY}") from None


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder's files, named relative to it: all, or none."""
    try:
        write_files({folder / name: data for name, data in files.items()})
    except OSError as error:
        raise ModelFolderError(f"{folder} can't be written: {error.strerror}") from None


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a weights file: float16, plus what makes it readable by other tools."""
    from safetensors.torch import save

    halved = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    return save(halved, metadata={"format": "pt"})


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ModelFolderError(f"model folder {path.parent} has no {path.name}: {REMEDY}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFolderError(f"{path} can't be read: {error.strerror}") from None


def _needed_files(folder: Path) -> list[str]:
    """Return what a folder needs beside its config: weights, or each member's own files."""
    members = read_member_names(folder)
    if not members:
        return [WEIGHTS]
    return [f"{member}/{name}" for member in members for name in (CONFIG, WEIGHTS)]


def _optional_files(folder: Path) -> list[str]:
    """Return what comes along where it is there: figures, and graphs of the model or members."""
    places = [f"{member}/" for member in read_member_names(folder)] or [""]
    configs = {place: (folder / place / CONFIG).read_text("utf-8") for place in places}
    graphs = (
        f"{place}{name}" for place, text in configs.items() for name in GRAPHS if name in text
    )
    return [METRICS, *graphs]
