"""A run's folder: what is in it, who may write it, and what decided the run."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState
from filelock import FileLock, Timeout
from pydantic import ValidationError

from bcd_models.config import Provenance, first_error
from bcd_models.errors import InputError
from bcd_models.hub import folder as model_folder
from bcd_models.hub.atomic import write_files
from bcd_models.models.backbones import write_config
from training.recipes import schema as recipe

RECIPE = "recipe.yaml"
RUN_FILE = "run.json"
MODEL = "model"
PREDICTIONS = "predictions.parquet"
LOCK = ".lock"  # held by who writes into it
CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("bcd_models", "training")


@contextmanager
def hold(
    out: Path, plan: recipe.Recipe, provenance: Provenance, state: PartialState
) -> Iterator[None]:
    """Hold a run's folder: written by one run at a time, resumed only as it was begun.

    Raises:
        InputError: Another run holds it, or it was begun with something else.
    """
    if not state.is_main_process:
        state.wait_for_everyone()
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / LOCK, timeout=0):
            _record(out, plan, provenance)
            state.wait_for_everyone()
            yield
    except Timeout:
        raise InputError(f"{out} is another run's at this moment: choose another folder") from None


def _record(out: Path, plan: recipe.Recipe, provenance: Provenance) -> None:
    """Write what decides the run, or check that the run being resumed was decided the same."""
    decides = provenance.model_dump(mode="json", exclude={"git_commit", "versions"})
    record = out / RUN_FILE
    if record.exists():
        begun = read_provenance(out).model_dump(mode="json", exclude_unset=True)
        for one in (decides, begun):
            one["recipe"] = recipe.parse(one["recipe"], str(out / RUN_FILE)).decides()
        changed = [key for key, value in decides.items() if begun.get(key, value) != value]
        if changed:
            raise InputError(f"{out} was begun with another {changed[0]}: choose another folder")
        return
    text = yaml.safe_dump(plan.as_trained(), sort_keys=False)
    described = provenance.model_dump_json(indent=1) + "\n"
    write_files({out / RECIPE: text.encode(), record: described.encode()})


def read_provenance(run: Path) -> Provenance:
    """Read what decided a run; InputError where its folder doesn't say."""
    try:
        return Provenance.model_validate_json((run / RUN_FILE).read_bytes())
    except OSError as error:
        raise InputError(f"{run} is no run of training.train: {error}") from None
    except ValidationError as error:
        raise InputError(first_error(error, f"{run} is no run of training.train")) from None


def hash_file(path: Path) -> str:
    """Return the SHA-256 of another run's file; InputError where that run has not written it."""
    if not path.is_file():
        raise InputError(f"{path} is missing: finish that run first")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change values of a model folder's config, whose weights stay as they are.

    Args:
        folder: Of the model.
        changes: New values by the names of ``ModelConfig``.
    """
    config = model_folder.read_config(folder).model_copy(update=changes)
    write_files({folder / model_folder.CONFIG: write_config(config).encode()})


def read_git_commit(checkout: Path = CHECKOUT) -> str:
    """Return the commit of the code that runs, and "-dirty" where its files differ from it.

    Only the packages count: what a study writes, such as ``cards/``, changes no code.

    Args:
        checkout: The folder that holds the packages.

    Returns:
        Forty digits, perhaps with "-dirty"; "" without git or outside a repository.
    """
    git = ["git", "-C", str(checkout)]
    try:
        commit, changed = (
            subprocess.run([*git, *asked], capture_output=True, text=True, check=True).stdout
            for asked in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", *PACKAGES])
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.strip() + ("-dirty" if changed else "")


def short_commit(commit: str) -> str:
    """Return a commit as pages show it: twelve digits, and whether it was dirty."""
    digits, mark, dirty = commit.partition("-")
    return digits[:12] + mark + dirty


def list_versions() -> dict[str, str]:
    """List the versions of Python and of the libraries that decide a run."""
    packages = ("accelerate", "datasets", "numpy", "pillow", "timm", "torch", "torchvision")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
