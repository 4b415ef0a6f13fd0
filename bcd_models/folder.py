"""A model folder or Hub id: read strictly, written whole, pushed.

Weights are only ever safetensors: nothing here unpickles anything.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from bcd_models.config import ModelConfig
from bcd_models.errors import InputError, ModelFolderError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
REMEDY = "download or save the model again"


@dataclass(frozen=True)
class HubOptions:
    """How files are fetched from the Hub; passed to huggingface_hub as they are."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def locate(folder_or_id: str | Path, options: HubOptions = HubOptions()) -> Path:
    """Find a model's folder: an existing folder wins, else the Hub is asked.

    Raises:
        ModelFolderError: Neither a folder nor a repository that can be fetched.
    """
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    name = str(folder_or_id)
    if folder.is_absolute() or name.count("/") != 1 or name.startswith("."):
        raise ModelFolderError(f"no model folder {name}, and it is no Hub id (owner/name) either")
    return _download(name, options)


def read_config(folder: Path) -> ModelConfig:
    """Read and check ``config.json``; ModelFolderError where it can't be used."""
    path = folder / CONFIG
    try:
        return ModelConfig.from_json(_read(path).decode(), str(path))
    except (UnicodeDecodeError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not JSON in UTF-8 ({error}): {REMEDY}") from None
    except ModelFolderError:
        raise
    except InputError as error:  # a backbone that this release doesn't know
        raise ModelFolderError(f"{path}: {error}") from None


def read_weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Read ``model.safetensors``.

    Returns:
        The tensors as stored, and the file's SHA-256 in hex.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS
    data = _read(path)
    try:
        return load(data), hashlib.sha256(data).hexdigest()
    except (SafetensorError, KeyError) as error:  # KeyError: a number format torch has none for
        raise ModelFolderError(f"{path} is not a safetensors file ({error}): {REMEDY}") from None


def write(folder: Path, config: ModelConfig, tensors: dict[str, Tensor]) -> None:
    """Write config and weights into a folder: both, or neither.

    Floating-point tensors are stored as float16.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config_json = config.to_json().encode()
        write_whole({folder / WEIGHTS: pack(tensors), folder / CONFIG: config_json})
    except OSError as error:
        raise ModelFolderError(f"{folder} can't be written: {error.strerror}") from None


def write_whole(contents: Mapping[Path, bytes]) -> None:
    """Write files into existing folders: no file is ever seen half-written.

    All are written beside their places before the first takes its own, so that on a full disk all
    old files stay.

    Raises:
        OSError: The disk's refusal, or something other than a file is in a file's place.
    """
    for path in contents:
        if path.exists() and not path.is_file():
            raise FileExistsError(errno.EEXIST, "something other than a file is there", str(path))
    beside = {path: path.with_name(f".{uuid4().hex}") for path in contents}
    try:
        for path, data in contents.items():
            with beside[path].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in beside.items():
            os.replace(temporary, path)
    finally:
        for temporary in beside.values():
            temporary.unlink(missing_ok=True)


def pack(tensors: dict[str, Tensor]) -> bytes:
    """The bytes of a weights file: float16, plus what makes it readable by other tools."""
    from safetensors.torch import save

    halved = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    return save(halved, metadata={"format": "pt"})


def push(folder: Path, repo_id: str, token: str | None, private: bool | None) -> str:
    """Upload a folder as a model repository in one commit; returns the commit's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True)
    commit = api.upload_folder(folder_path=folder, repo_id=repo.repo_id)
    return str(commit.commit_url)


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ModelFolderError(f"model folder {path.parent} has no {path.name}: {REMEDY}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFolderError(f"{path} can't be read: {error.strerror}") from None


def _download(repo_id: str, options: HubOptions) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        paths = [
            hf_hub_download(
                repo_id,
                name,
                revision=options.revision,
                token=options.token,
                cache_dir=options.cache_dir,
                local_files_only=options.local_files_only,
                force_download=options.force_download,
            )
            for name in (WEIGHTS, CONFIG)
        ]
    except LocalEntryNotFoundError:
        raise ModelFolderError(
            f"no model folder {repo_id}, and the Hub's {repo_id} is not in the cache and can't be "
            "reached: connect once, or download the folder"
        ) from None
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFolderError(
            f"no model folder {repo_id}, and the Hub has none to give: {reason}"
        ) from None
    return Path(paths[0]).parent
