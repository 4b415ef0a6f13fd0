"""The gradient map as ONNX: HiResCAM's backward pass, traced and exported beside the forward.

Writing needs torch and onnx; computing by what was written needs neither. The trace leans on
private parts of torch (its table of decompositions, its older exporter): a test holds the export of
every registered backbone against autograd.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from bcd_models.runtime.choice import thread_count
from bcd_models.runtime.graph import one_export_at_a_time, point_into_file, write_onnx
from bcd_models.runtime.onnx_forward import CONTRIBUTIONS, LOGITS, compute_output, open_session
from bcd_models.runtime.torch_forward import TorchForward, find_earlier_layer, lay_out_tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

aten = torch.ops.aten
BATCH = 1009  # that a network is traced with, a prime: its multiples can come from nothing else
TOLERANCE = 1e-3  # of the exported map against autograd's, times its largest value
# Of operations with more than one output, the function that gives the first alone.
FIRST_OUTPUTS: dict[Any, Callable[..., Tensor]] = {
    aten.native_batch_norm.default: torch.batch_norm,
    aten.max_pool2d_with_indices.default: torch.max_pool2d,
}


def export_gradient_graph(network: nn.Module, input_size: int, weights: bytes) -> bytes | None:
    """Export a network and the gradient map of its margin as a graph that holds no weights.

    Args:
        network: Of timm, in evaluation mode, float32, on the CPU; its weights are frozen.
        input_size: Side in pixels of its input.
        weights: The bytes of the safetensors file with its tensors, float16 or float32.

    Returns:
        ONNX: float32 "pixels" n x 3 x S x S to "logits" n x 2 and "contributions" n x h x w, as
        ``TorchForward.contributions`` gives them; None, with a warning in the log, where the
        network can't be traced.
    """
    network.requires_grad_(False)
    try:
        with one_export_at_a_time, torch.inference_mode(False):
            traced = _Traced(network, input_size)
            pixels = torch.zeros(1, 3, input_size, input_size)
            graph = point_into_file(write_onnx(traced, pixels, (LOGITS, CONTRIBUTIONS)), weights)
            _check(graph, weights, network, input_size)
    except Exception as error:  # whatever tracing, exporter or session throws
        log.warning("no gradient map is exported (%s: %s)", type(error).__name__, error)
        return None
    return graph


def _check(graph: bytes, weights: bytes, network: nn.Module, input_size: int) -> None:
    """Raise ValueError where the graph's map is another than autograd's."""
    pixels = torch.randn(3, 3, input_size, input_size, generator=torch.Generator().manual_seed(0))
    inputs: NDArray[Any] = pixels.numpy()
    theirs = TorchForward(network).contributions(inputs)
    session = open_session(graph, weights, thread_count())
    difference = abs(compute_output(session, CONTRIBUTIONS, inputs) - theirs).max()
    if not difference <= TOLERANCE * abs(theirs).max():
        raise ValueError(f"the exported map differs from autograd's by {difference:.2g}")


class _Traced(nn.Module):
    """The forward and the gradient map as one forward that needs no autograd."""

    def __init__(self, network: nn.Module, input_size: int) -> None:
        super().__init__()
        self.network = network
        self.graph = _trace(network, input_size)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = self.graph(pixels, *_tensors(self.network).values())
        return outputs


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _trace(network: Any, input_size: int) -> fx.GraphModule:
    tensors = _tensors(network)
    layer = network.get_submodule(find_earlier_layer(network))

    def compute(pixels: Tensor, *values: Tensor) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []

        def start_here(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        handle = layer.register_forward_hook(start_here)
        try:
            named = dict(zip(tensors, values, strict=True))
            logits = torch.func.functional_call(network, named, (pixels,))
        finally:
            handle.remove()
        (features,) = kept
        each = torch.ones_like(logits[:, 0])
        (gradients,) = torch.autograd.grad(logits, features, torch.stack((-each, each), 1))
        products = lay_out_tokens(features.detach() * gradients, network)
        return logits.detach(), products.sum(1)

    pixels = torch.empty(BATCH, 3, input_size, input_size)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        # With fake tensors, nothing is computed.
        traced = make_fx(compute, _decompositions(), tracing_mode="fake")(pixels, *tensors.values())
    _rewrite_for_exporter(traced.graph)
    _copy_in_place_of_changing(traced.graph)
    traced.graph.eliminate_dead_code()
    _free_batch(traced.graph)
    traced.recompile()
    return traced


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what takes the place of each backward operation: what ONNX has words for."""
    from torch._decomp import decomposition_table

    backward = {op: how for op, how in decomposition_table.items() if "backward" in str(op)}
    return {
        **backward,
        aten.native_layer_norm.default: decomposition_table[aten.native_layer_norm.default],
        aten.convolution_backward.default: _convolution_backward,
        aten.native_batch_norm_backward.default: _batch_norm_backward,
        aten.avg_pool2d_backward.default: _average_pool_backward,
        aten.select_backward.default: _select_backward,
        aten.slice_backward.default: _slice_backward,
    }


def _convolution_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    _bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _output_padding: Any,
    groups: int,
    _output_mask: Any,
) -> tuple[Tensor, None, None]:
    """A convolution by the weights flipped and transposed, for stride 1; else ConvTranspose."""
    if transposed:
        raise NotImplementedError("the gradient of a transposed convolution")
    kernel = weight.shape[2:]
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if set(stride) == {1}:
        out, per_group = weight.shape[:2]
        grouped = weight.reshape(groups, out // groups, per_group, *kernel).transpose(1, 2)
        flipped = grouped.reshape(groups * per_group, out // groups, *kernel)
        if math.prod(kernel) > 1:
            flipped = flipped.flip(2, 3)
        left = [far - p for far, p in zip(reach, padding, strict=True)]
        back = aten.convolution.default(
            gradient, flipped, None, stride, left, dilation, False, [0, 0], groups
        )
    else:
        sizes = zip(inputs.shape[2:], gradient.shape[2:], stride, padding, reach, strict=True)
        missing = [whole - ((part - 1) * s - 2 * p + far + 1) for whole, part, s, p, far in sizes]
        back = aten.convolution.default(
            gradient, weight, None, stride, padding, dilation, True, missing, groups
        )
    return back, None, None


def _batch_norm_backward(
    gradient: Tensor,
    _inputs: Tensor,
    weight: Tensor,
    _mean: Tensor,
    variance: Tensor,
    _save_mean: Tensor,
    _save_invstd: Tensor,
    _training: bool,
    epsilon: float,
    _output_mask: Any,
) -> tuple[Tensor, None, None]:
    """A product by constants: in evaluation a batch norm is affine."""
    slope = weight * torch.rsqrt(variance + epsilon)
    return gradient * slope[:, None, None], None, None


def _average_pool_backward(
    gradient: Tensor,
    inputs: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    _ceil_mode: bool,
    _count_include_pad: bool,
    _divisor: int | None,
) -> Tensor:
    """Each cell's gradient is shared among the cells that it is the mean of."""
    if list(stride or kernel) != list(kernel) or any(padding):
        raise NotImplementedError("the gradient of an average pool whose windows overlap")
    channels, area = inputs.shape[1], math.prod(kernel)
    whole, part = inputs.shape[2:], gradient.shape[2:]
    missing = [w - p * k for w, p, k in zip(whole, part, kernel, strict=True)]
    shares = gradient.new_ones(channels, 1, *kernel) / area
    back: Tensor = aten.convolution.default(
        gradient, shares, None, kernel, [0, 0], [1, 1], True, missing, channels
    )
    return back


def _select_backward(gradient: Tensor, sizes: Sequence[int], dim: int, index: int) -> Tensor:
    """Zeros but for what was selected."""
    first = index % sizes[dim]
    return _slice_backward(gradient.unsqueeze(dim), sizes, dim, first, first + 1, 1)


def _slice_backward(
    gradient: Tensor, sizes: Sequence[int], dim: int, start: int, _end: int, step: int
) -> Tensor:
    """Zeros around what was cut out."""
    if step != 1 or start < 0:
        raise NotImplementedError("the gradient of a slice with steps")
    after = sizes[dim] - start - gradient.shape[dim]
    pads = [0, 0] * (len(sizes) - 1 - dim % len(sizes)) + [start, after]
    padded: Tensor = aten.constant_pad_nd.default(gradient, pads)
    return padded


def _rewrite_for_exporter(graph: fx.Graph) -> None:
    """Write what the exporter has no words for as what it has: first outputs, a plain softmax."""
    for node in list(graph.nodes):
        if node.target is aten._safe_softmax.default:  # safe from rows that are masked all over
            node.target, node.args = torch.softmax, node.args[:2]
        if node.target not in FIRST_OUTPUTS:
            continue
        for user in list(node.users):
            if user.args[1] != 0:
                if user.users:
                    raise NotImplementedError(f"a further output of {node.target}")
                continue
            with graph.inserting_before(user):
                more = (True,) if node.target is aten.native_batch_norm.default else ()
                only = graph.call_function(FIRST_OUTPUTS[node.target], (*node.args, *more))
            user.replace_all_uses_with(only)


def _copy_in_place_of_changing(graph: fx.Graph) -> None:
    """Write operations that change a tensor as those that give a new one."""
    for node in graph.nodes:
        name = getattr(node.target, "__name__", "")
        packet, _, overload = name.partition(".")
        if node.op == "call_function" and packet.endswith("_") and hasattr(aten, packet[:-1]):
            changed = node.args[0]
            node.target = getattr(getattr(aten, packet[:-1]), overload)
            changed.replace_all_uses_with(node, lambda user, node=node: user > node)


def _free_batch(graph: fx.Graph) -> None:
    """Put the batch's own size in the place of each number that is a multiple of the traced one."""
    (pixels, *_), nodes = graph.nodes, list(graph.nodes)
    with graph.inserting_after([node for node in nodes if node.op == "placeholder"][-1]):
        size = graph.call_method("size", (pixels, 0))
    for node in nodes:

        def free(argument: Any, node: fx.Node = node) -> Any:
            if isinstance(argument, list | tuple):
                return type(argument)(map(free, argument))
            if not isinstance(argument, int) or not argument or argument % BATCH:
                return argument
            with graph.inserting_before(node):
                return graph.call_function(operator.mul, (size, argument // BATCH))

        arguments = free(node.args)
        if arguments != node.args:
            name = node.target.__name__.partition(".")[0]
            node.op, node.target = "call_method", name.removeprefix("_unsafe_")
            node.args = arguments
