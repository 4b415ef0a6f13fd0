"""Networks as ONNX: a graph whose weights stay in the safetensors file, or one file with all.

Writing needs torch and onnx (``pip install 'bcd-models[torch]'``); answering by what was written
needs neither.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

from bcd_models.errors import InputError
from bcd_models.runtime.choice import TORCH_REMEDY, require_torch
from bcd_models.runtime.onnx_forward import CELLS, INPUT, LOGITS, POOLED, WEIGHTS_NAME

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = "n"
MAX_INLINE_BYTES = 4096  # of a constant that is no weight
TOLERANCE = 1e-3  # of the cells' mean against the margin

# torch's exporter keeps its state in globals: two exports at once fail.
one_export_at_a_time = RLock()


class _Place(NamedTuple):
    """Where a tensor lies in a safetensors file."""

    dtype: str
    offset: int
    length: int


def can_export() -> bool:
    """Return whether torch, timm and onnx are installed."""
    return all(find_spec(name) is not None for name in ("torch", "timm", "onnx"))


def require_export() -> None:
    """Refuse an export where torch, timm or onnx isn't installed."""
    require_torch("an export")
    if find_spec("onnx") is None:
        raise InputError(f"an export needs onnx: {TORCH_REMEDY}")


def export_graph(network: nn.Module, input_size: int, weights: bytes) -> bytes:
    """Export a network as a graph that holds no weights.

    Each initializer points into the safetensors file, by offset and length, and is followed by a
    cast to float32, which ONNX Runtime folds when it loads the graph.

    Args:
        network: Of timm, in evaluation mode.
        input_size: Side in pixels of its input.
        weights: The bytes of the safetensors file with its tensors, float16 or float32.

    Returns:
        ONNX: float32 "pixels" n x 3 x S x S to "logits" n x 2 and "pooled" n x D; and "cells"
        n x h x w, the margin of each cell of the last feature map, where pooling and a linear layer
        follow it.

    Raises:
        InputError: torch or onnx is missing, or the file lacks a weight of the network.
    """
    require_export()
    import torch

    pixels = torch.zeros(1, 3, input_size, input_size)
    module = _with_outputs(network, pixels)
    return point_into_file(write_onnx(module, pixels, module.outputs), weights)


def point_into_file(exported: bytes, weights: bytes) -> bytes:
    """Return an exported graph whose weights lie in a safetensors file.

    Args:
        exported: ONNX, with the names of the network's tensors, "network." before them.
        weights: The bytes of the file.

    Raises:
        InputError: The file lacks one of its weights.
    """
    import onnx

    model = onnx.load_from_string(exported)
    places = _places(weights)
    kept, casts = [], []
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("network.")
        if name in places:
            outside, cast = _point_into_file(tensor, places[name])
            kept.append(outside)
            casts.append(cast)
        elif tensor.ByteSize() > MAX_INLINE_BYTES:
            raise InputError(f"the graph's {tensor.name} is no tensor of {WEIGHTS_NAME}")
        else:
            kept.append(tensor)
    nodes = [*casts, *model.graph.node]
    for field, values in (("initializer", kept), ("node", nodes)):
        del getattr(model.graph, field)[:]
        getattr(model.graph, field).extend(values)
    return model.SerializeToString()  # type: ignore[no-any-return]


def export_self_contained(network: nn.Module, input_size: int) -> bytes:
    """Export a network as ONNX with its weights in it: "pixels" to "logits", for other hosts.

    Raises:
        InputError: torch or onnx is missing.
    """
    require_export()
    import torch

    pixels = torch.zeros(1, 3, input_size, input_size)
    return write_onnx(network, pixels, (LOGITS,), named=False)


def write_onnx(
    module: nn.Module, pixels: Tensor, outputs: Sequence[str], named: bool = True
) -> bytes:
    """Return a module as ONNX with its weights in it, for any number of images.

    Args:
        module: From pixels to the outputs.
        pixels: An input, 1 x 3 x S x S.
        outputs: What they are called.
        named: Whether each initializer is one of its tensors, under that tensor's name; else what
            is constant is folded.
    """
    import torch

    written: Any = io.BytesIO()  # which the exporter takes, and its types deny
    with one_export_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the exporter, about itself and the trace
        torch.onnx.export(
            module,
            (pixels,),
            written,
            dynamo=False,  # the newer exporter takes ten times as long
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_axes={name: {0: BATCH} for name in (INPUT, *outputs)},
            do_constant_folding=not named,
            training=torch.onnx.TrainingMode.PRESERVE if named else torch.onnx.TrainingMode.EVAL,
        )
    exported: bytes = written.getvalue()
    return exported


def _with_outputs(network: Any, pixels: Tensor) -> Any:
    """Return a module that gives logits, pooled features, and cells where there are any."""
    import torch
    from torch import nn

    class WithOutputs(nn.Module):
        """A network that gives more than its logits."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.outputs: tuple[str, ...] = (LOGITS, POOLED)

        def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
            features = network.forward_features(pixels)
            pooled = network.forward_head(features, pre_logits=True)
            logits = network.get_classifier()(pooled)
            more = (self._cells(features),) if CELLS in self.outputs else ()
            return (logits, pooled, *more)

        def _cells(self, features: Tensor) -> Tensor:
            """A 1 x 1 convolution by the classifier's own rows: no gradient is needed."""
            head = network.get_classifier()
            both = nn.functional.conv2d(features, head.weight[:, :, None, None], head.bias)
            return both[:, 1] - both[:, 0]

    module = WithOutputs().eval()
    with torch.no_grad():
        features = network.forward_features(pixels)
        if features.ndim == 4 and features.shape[1] == network.get_classifier().weight.shape[1]:
            logits = network(pixels)
            margin, cells = logits[0, 1] - logits[0, 0], module._cells(features)
            if abs(float(cells.mean() - margin)) < TOLERANCE:
                module.outputs = (LOGITS, POOLED, CELLS)
    return module


def _places(weights: bytes) -> dict[str, _Place]:
    """Return where each tensor of a safetensors file lies: its header is JSON with offsets."""
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    places = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            places[name] = _Place(entry["dtype"], 8 + length + start, end - start)
    return places


def _point_into_file(tensor: Any, place: _Place) -> tuple[Any, Any]:
    """Return an initializer that lies in the weights' file, and its cast to float32."""
    from onnx import TensorProto, helper

    kinds = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT}
    stored = f"{tensor.name}.stored"
    outside = TensorProto(
        name=stored,
        dims=tensor.dims,
        data_type=kinds[place.dtype],
        data_location=TensorProto.EXTERNAL,
    )
    values = {"location": WEIGHTS_NAME, "offset": place.offset, "length": place.length}
    for key, value in values.items():
        outside.external_data.add(key=key, value=str(value))
    return outside, helper.make_node("Cast", [stored], [tensor.name], to=TensorProto.FLOAT)
