"""``bcd doctor``: what this machine has for answering images, and what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from bcd_models import __version__
from bcd_models.cli.arguments import MODEL_HELP, Device, load_model
from bcd_models.cli.output import escape_controls
from bcd_models.errors import BCDError, HubError, InputError
from bcd_models.runtime import choice
from bcd_models.runtime.device import DEVICES, choose_device, may_have_gpu

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from PIL.Image import Image

State = Literal["ok", "missing", "problem", "not asked"]

PACKAGE = "bcd-models"
EXTRAS = {"": "answering images", "torch": "GPUs and export", "slides": "whole slides"}
DICOM_SINCE = 4  # OpenSlide's major version
MIN_FREE = 1_000_000_000  # bytes of disk or memory: a model, its runtime and an image
# Whose values are shown; what else is set may be a secret, and only its name is.
SHOWN = (choice.VARIABLE, "OMP_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE")
OWN_SETTING = "HF_HUB_DISABLE_TELEMETRY"  # the package's own, for every process


class Check(NamedTuple):
    """What is found of one thing.

    Attributes:
        name: What was looked at.
        state: How it is.
        says: What was found.
        remedy: What to do about it; "" where there is nothing to do.
        is_needed: Whether without it images can't be answered, or it was asked for.
    """

    name: str
    state: State
    says: str
    remedy: str = ""
    is_needed: bool = False


def doctor(
    model: Annotated[
        str | None, typer.Option(help=f"{MODEL_HELP} Answers a drawn patch; never downloaded.")
    ] = None,
    device: Device = "auto",
    hub: Annotated[bool, typer.Option("--hub", help="Also ask whether the Hub answers.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what this machine has and lacks; exit code 1 where something needed doesn't work.

    Without --hub nothing is asked of the network.
    """
    if device not in DEVICES:
        raise InputError(f"no device {device!r}: choose one of {', '.join(DEVICES)}")
    checks = []
    for check in _look(model, device, hub):
        checks.append(check)
        if not json:
            remedy = f" -> {check.remedy}" if check.remedy else ""
            typer.echo(escape_controls(f"{check.state:9}  {check.name:15}  {check.says}{remedy}"))
    works = all(check.state == "ok" for check in checks if check.is_needed)
    if json:
        from json import dumps

        found = [check._asdict() for check in checks]
        typer.echo(dumps({"works": works, "checks": found}, indent=2))
    if not works:
        raise typer.Exit(1)


def _look(model: str | None, device: str, hub: bool) -> Iterator[Check]:
    """Yield one check after the other: some take seconds."""
    yield Check("bcd-models", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield Check("python", "ok", f"{platform.python_version()}, {platform.platform()}")
    yield from _check_packages()
    yield from _check_runtimes()
    yield _check_device(device)
    yield from _check_slides()
    yield from _check_cache()
    yield _check_memory()
    yield _check_settings()
    if hub:
        yield _check_hub()
    else:
        yield Check("Hub", "not asked", "--hub asks it")
    if model is not None:
        yield _check_model(model, device)


def _check_packages() -> Iterator[Check]:
    """Compare what is installed with what the package itself says that it needs."""
    from importlib import metadata

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(one) for one in metadata.requires(PACKAGE) or ()]
    except metadata.PackageNotFoundError:
        yield Check("packages", "ok", "a copy that pip did not install: versions are not checked")
        return
    for extra, purpose in EXTRAS.items():
        yield _check_group(extra, purpose, [one for one in requirements if _is_of(one, extra)])


def _is_of(requirement: Requirement, extra: str) -> bool:
    """Return whether an extra asks for it; "" is what is always asked for."""
    if requirement.marker is None:
        return not extra
    return bool(extra) and requirement.marker.evaluate({"extra": extra})


def _check_group(extra: str, purpose: str, requirements: list[Requirement]) -> Check:
    from importlib import metadata

    here, missing, old = [], [], []
    for one in requirements:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            missing.append(one.name)
            continue
        here.append(f"{one.name} {version}")
        if not one.specifier.contains(version, prereleases=True):
            old.append(str(one.name) + str(one.specifier))
    state: State = "missing" if missing else "problem" if old else "ok"
    lacks = [f"no {', '.join(missing)}"] if missing else []
    lacks += [f"needs {', '.join(old)}"] if old else []
    says = "; ".join([f"for {purpose}", *lacks, *([", ".join(here)] if here else [])])
    remedy = "" if state == "ok" else f"pip install -U {_name_package(extra)}"
    return Check(f"packages {extra}".strip(), state, says, remedy, is_needed=not extra)


def _name_package(extra: str) -> str:
    return f"'{PACKAGE}[{extra}]'" if extra else PACKAGE


def _check_runtimes() -> Iterator[Check]:
    """Import the runtimes: that they are installed doesn't say that their libraries load."""
    loads = {}
    for name, extra in (("onnxruntime", ""), ("torch", "torch")):
        check = _import(name, _name_package(extra))
        loads[name] = check.state == "ok"
        yield check
    try:
        wanted = choice.default_runtime()
    except InputError as error:
        yield Check("runtime", "problem", f"{choice.VARIABLE}: {error}", is_needed=True)
        return
    usable = {"auto": any(loads.values()), "onnx": loads["onnxruntime"], "torch": loads["torch"]}
    asked = f"{choice.VARIABLE} is {wanted}"
    if usable[wanted]:
        first = "onnxruntime" if loads["onnxruntime"] and wanted != "torch" else "torch"
        yield Check("runtime", "ok", f"{first} answers first ({asked})", is_needed=True)
    else:
        remedy = f"install what is missing, or unset {choice.VARIABLE}"
        yield Check("runtime", "problem", f"none answers ({asked})", remedy, is_needed=True)


def _import(name: str, package: str) -> Check:
    """Check that a module loads, whatever its libraries raise."""
    remedy = f"pip install -U {package}"
    try:
        if find_spec(name) is None:
            return Check(name, "missing", "not installed", remedy)
        module = import_module(name)
    except Exception as error:
        return Check(name, "problem", f"does not load: {_describe(error)}", remedy)
    version = getattr(module, "__library_version__", None) or module.__version__
    return Check(name, "ok", f"{version} loads")


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, BCDError) else f"{type(error).__name__}: {error}"


def _check_device(device: str) -> Check:
    is_asked = device != "auto"
    try:
        chosen = choose_device(device)
    except Exception as error:  # torch's libraries raise nearly anything
        return Check("device", "problem", _describe(error), "choose --device cpu", is_asked)
    says = f"{chosen}, {choice.thread_count()} threads"
    if chosen.startswith("cuda"):
        import torch

        says = f"{chosen}: {torch.cuda.get_device_name(chosen)}"
    elif device == "auto" and chosen == "cpu" and may_have_gpu():
        says += "; there may be a GPU here, but no torch that can use it"
        return Check("device", "missing", says, f"for a GPU: {choice.TORCH_REMEDY}")
    return Check("device", "ok", says, is_needed=is_asked)


def _check_slides() -> Iterator[Check]:
    openslide = _import("openslide", _name_package("slides"))
    yield openslide
    name = "DICOM slides"
    if openslide.state != "ok":
        yield Check(name, "missing", "OpenSlide reads them", openslide.remedy)
    elif int(openslide.says.split(".")[0]) < DICOM_SINCE:
        says = f"OpenSlide reads them from version {DICOM_SINCE} on"
        yield Check(name, "missing", says, "pip install -U openslide-bin")
    else:
        yield Check(name, "ok", "OpenSlide reads them")


def _check_cache() -> Iterator[Check]:
    """Check where downloaded models lie, and the room there."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    cache = Path(constants.HF_HUB_CACHE)
    try:
        found = scan_cache_dir(cache)
        holds = f"{len(found.repos)} repositories, {_in_gb(found.size_on_disk)}"
    except (CacheNotFound, ValueError, OSError):
        holds = "nothing yet"
    there = next(one for one in (cache, *cache.absolute().parents) if one.is_dir())
    remedy = "name another folder in HF_HOME"
    if os.access(there, os.W_OK):
        yield Check("Hub cache", "ok", f"{cache}: {holds}")
    else:
        yield Check("Hub cache", "problem", f"{cache}: {holds}; can't be written", remedy)
    free = shutil.disk_usage(there).free
    state: State = "ok" if free >= MIN_FREE else "problem"
    remedy = "" if free >= MIN_FREE else f"make room, or {remedy}"
    yield Check("disk", state, f"{_in_gb(free)} free at {there}", remedy)


def _check_memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        (free,) = [int(one.split()[1]) * 1024 for one in lines if one.startswith("MemAvailable:")]
    except (OSError, ValueError):
        return Check("memory", "ok", "this system doesn't say")
    if free < MIN_FREE:
        return Check("memory", "problem", f"{_in_gb(free)} available", "end other programs")
    return Check("memory", "ok", f"{_in_gb(free)} available")


def _in_gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _check_settings() -> Check:
    names = [name for name in os.environ if name in SHOWN or name.startswith(("BCD_", "HF_"))]
    said = [
        f"{name}={os.environ[name]}" if name in SHOWN else f"{name} is set"
        for name in sorted(names)
        if name != OWN_SETTING
    ]
    return Check("settings", "ok", ", ".join(said) or "none: all as by default")


def _check_hub() -> Check:
    from huggingface_hub import constants

    from bcd_models.hub.repository import reach

    try:
        reach()
    except HubError as error:
        remedy = "check network, proxy and HF_ENDPOINT; local folders work without"
        return Check("Hub", "problem", str(error), remedy, is_needed=True)
    return Check("Hub", "ok", f"{constants.ENDPOINT} answers", is_needed=True)


def _check_model(name: str, device: str) -> Check:
    """Let a model answer a drawn patch; one of the Hub's that is in the cache."""
    from bcd_models.hub.folder import locate
    from bcd_models.hub.repository import HubOptions

    try:
        folder = locate(name, HubOptions(local_files_only=True))
        model = load_model(str(folder), device)
        answer = model.predict(_draw_patch())
    except Exception as error:  # of runtimes and drivers too, which raise nearly anything
        remedy = f"bcd info {name} says more, and downloads it from the Hub"
        return Check("model", "problem", _describe(error), remedy, is_needed=True)
    says = f"{model.config.name} {model.config.version} answers a drawn patch by {answer.runtime}"
    return Check("model", "ok", says, is_needed=True)


def _draw_patch() -> Image:
    """Draw violet nuclei on pink, of the training patches' size."""
    from PIL import Image, ImageDraw

    patch = Image.new("RGB", (50, 50), (226, 170, 200))
    draw = ImageDraw.Draw(patch)
    for x, y in ((6, 8), (20, 5), (35, 12), (44, 30), (12, 26), (26, 22), (30, 40), (8, 42)):
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), (110, 70, 150))
    return patch
