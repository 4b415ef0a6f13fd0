"""The same forward through torch or ONNX Runtime, whichever is quicker here.

On a CPU, ONNX Runtime where it is installed (``pip install 'bcd-models[onnx]'``): the network is
exported once, kept by the weights' hash, and used as long as the weights stay as they were. On a
GPU, and where ONNX Runtime is missing or fails, torch: in bfloat16 on a GPU that has it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from operator import attrgetter, is_
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from bcd_models.errors import InputError
from bcd_models.hub.atomic import write_files

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

Runtime = Literal["auto", "onnx", "torch"]
VARIABLE, CACHE = "BCD_RUNTIME", "BCD_CACHE"
EXPORT = 1  # counted up with every change of what is exported
NEEDED = ("onnx", "onnxruntime")
INPUT, OUTPUT, BATCH = "pixels", "logits", "n"
AT_A_TIME = 8 * 96 * 96  # pixels: more outgrow a core's cache, fewer read all weights too often
REMEDY = "pip install 'bcd-models[onnx]'"

VERSION = attrgetter("_version")  # of a tensor: counted up by each change in place

# torch's exporter keeps its state in globals: two exports at once fail. Threads that ask for the
# same network wait, and find what the first one has kept.
_one_export_at_a_time = RLock()

log = logging.getLogger(__name__)


def default_runtime() -> Runtime:
    """What the environment asks for, "auto" as a rule; InputError where it asks for no such."""
    return checked(os.environ.get(VARIABLE) or "auto")


def checked(name: str) -> Runtime:
    """The name of a runtime; InputError where there is none of that name."""
    for known in get_args(Runtime):
        if name == known:
            return known  # type: ignore[no-any-return]
    raise InputError(f"no runtime {name!r}: choose one of {', '.join(get_args(Runtime))}")


class State:
    """A network's layers and tensors as they are now, to tell later whether they still are.

    Telling touches each of them: ask once an answer. What is written through ``tensor.data``, past
    torch's own count of changes, can't be told.

    Args:
        network: Whose.

    Attributes:
        device: Where its tensors are.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        parts = ((one._modules, one._parameters, one._buffers) for one in network.modules())
        self._places: list[dict[str, Any]] = [place for three in parts for place in three]
        self._members = self._members_now()
        self._tensors = [one for one in self._members if isinstance(one, Tensor)]
        self.device = self._tensors[0].device
        self._then = self._values_now()

    def lasts(self, network: nn.Module) -> bool:
        """Whether a network is the same, no layer or tensor replaced, changed in place or moved."""
        members = self._members_now()
        same = network is self._network and len(members) == len(self._members)
        return same and all(map(is_, members, self._members)) and self._then == self._values_now()

    def _members_now(self) -> list[Any]:
        return [member for place in self._places for member in place.values()]

    def _values_now(self) -> tuple[int, int]:
        addresses = hash(tuple(map(Tensor.data_ptr, self._tensors)))
        return sum(map(VERSION, self._tensors)), addresses


class TorchForward:
    """Logits by torch.

    Args:
        network: Two logits, of any device.
    """

    name = "torch"

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def fits(self, network: nn.Module) -> bool:
        """Whether it answers as its network would: always, whatever becomes of that."""
        return network is self._network

    def __call__(self, inputs: Tensor) -> NDArray[np.float32]:
        """Logits N x 2 of N x 3 x S x S inputs on the network's device."""
        with torch.inference_mode(), _precision(inputs.device):
            logits: NDArray[np.float32] = self._network(inputs).float().cpu().numpy()
        return logits


class OnnxForward:
    """Logits by ONNX Runtime on the CPU, of a network's weights as they were when this was made.

    One image gets all threads. Several are shared among them, each thread taking a few images at a
    time: nothing waits for the others, no activations outgrow the caches, and an image's logits
    don't depend on its company.

    Args:
        exported: A network as ``onnx_bytes`` gives it.
    """

    name = "onnx"

    def __init__(self, exported: bytes) -> None:
        threads = torch.get_num_threads()
        self._alone, self._in_company = _session(exported, threads), _session(exported, 1)
        self._threads, self._shares = ThreadPoolExecutor(threads, "bcd-onnx"), threads

    def fits(self, network: nn.Module) -> bool:
        """Whether it answers as its network would, were it not for changed weights."""
        return not network.training

    def __call__(self, inputs: Tensor) -> NDArray[np.float32]:
        """Logits N x 2 of N x 3 x S x S inputs."""
        images = inputs.contiguous().numpy()
        if len(images) == 1:
            return _run(self._alone, images)
        shares = np.array_split(images, self._shares)
        logits = self._threads.map(partial(_run_a_few_at_a_time, self._in_company), shares)
        return np.concatenate([few for share in logits for few in share])


def _run_a_few_at_a_time(
    session: InferenceSession, images: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    few = max(1, round(AT_A_TIME / (images.shape[-2] * images.shape[-1])))
    return [_run(session, images[i : i + few]) for i in range(0, len(images), few)]


def _run(session: InferenceSession, images: NDArray[np.float32]) -> NDArray[np.float32]:
    (logits,) = session.run([OUTPUT], {INPUT: images})
    return logits  # type: ignore[no-any-return]


Forward = TorchForward | OnnxForward


def forward_of(network: nn.Module, size: int, wanted: Runtime, kept_as: str = "") -> Forward:
    """Choose how a network's logits are computed from now on.

    Args:
        network: Two logits.
        size: Side in pixels of its inputs.
        wanted: "auto": ONNX Runtime where it can and the weights are a file's, torch otherwise.
        kept_as: Tells the weights of a file from all others: their export is kept. "": no file's.

    Raises:
        InputError: ONNX Runtime is asked for and can't be had; the message says why.
    """
    if wanted == "torch" or (wanted == "auto" and not kept_as):
        return _torch(network)
    why = _why_no_onnx(network)
    if not why:
        try:
            with _one_export_at_a_time:
                return OnnxForward(_exported(network, size, kept_as))
        except Exception as error:  # whatever the exporter or the session throws
            why = f"ONNX Runtime can't be used ({type(error).__name__}: {error})"
            log.warning("%s: torch answers in its place", why)
    if wanted == "onnx":
        raise InputError(why)
    return _torch(network)


def kept_forward(wanted: Runtime, kept_as: str) -> OnnxForward | None:
    """The forward of an export that ``forward_of`` has kept; None where it must see to it."""
    if wanted == "torch" or _missing() or not (exported := _kept(kept_as)):
        return None
    try:
        return OnnxForward(exported)
    except Exception:  # whatever the session throws: forward_of tells, where it meets it again
        return None


def onnx_bytes(network: nn.Module, size: int) -> bytes:
    """A network as ONNX: float32 "pixels" n x 3 x size x size to "logits" n x 2, n free.

    Raises:
        InputError: The package ``onnx`` is missing.
    """
    if find_spec("onnx") is None:
        raise InputError(f"to export, install onnx: {REMEDY}")
    with (
        _one_export_at_a_time,
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # those of the exporter, about itself and the trace
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, size, size),),
            file,
            dynamo=False,  # the newer exporter takes ten times as long
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: BATCH}, OUTPUT: {0: BATCH}},
        )
        return file.read_bytes()


def _torch(network: nn.Module) -> TorchForward:
    if _device(network).type == "cuda":
        network.to(memory_format=torch.channels_last)
    return TorchForward(network)


def _why_no_onnx(network: nn.Module) -> str:
    """Why ONNX Runtime can't be used, or ""."""
    if missing := _missing():
        return f"{' and '.join(missing)} not installed: {REMEDY}"
    if _device(network).type != "cpu":
        return f"the model is on {_device(network)}, ONNX Runtime is used on the CPU alone"
    return "the model is in training" if network.training else ""


def _missing() -> list[str]:
    return [name for name in NEEDED if find_spec(name) is None]


def _session(model: bytes, threads: int) -> InferenceSession:
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Between runs its threads wait spinning: for 30 ms by default, when they take the cores from
    # all else; where they don't at all, the next run takes a tenth longer.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    return InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _exported(network: nn.Module, size: int, kept_as: str) -> bytes:
    """The export of these weights, from the cache where it is there and sound."""
    if not kept_as:
        return onnx_bytes(network, size)
    if kept := _kept(kept_as):
        return kept
    made, folder = onnx_bytes(network, size), _cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_files({folder / f"{kept_as}-{EXPORT}-{_digest(made)}.onnx": made})
    except OSError as error:
        log.warning("the export can't be kept in %s: %s", folder, error.strerror)
    return made


def _kept(kept_as: str) -> bytes:
    """An export from the cache; none where there is no sound one."""
    found = sorted(_cache_folder().glob(f"{kept_as}-{EXPORT}-*.onnx"))
    return next(filter(None, map(_sound, found)), b"")


def _sound(path: Path) -> bytes:
    """The bytes of a kept export, or none where they are not those that its name tells."""
    try:
        data = path.read_bytes()
    except OSError:
        return b""
    if path.stem.endswith(_digest(data)):
        return data
    log.warning("%s is damaged: the model is exported anew", path)
    with suppress(OSError):
        path.unlink()
    return b""


def _cache_folder() -> Path:
    named = os.environ.get(CACHE)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "bcd-models"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _precision(device: torch.device) -> Any:
    """Half the bits on a GPU that has bfloat16, all of them elsewhere."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()
