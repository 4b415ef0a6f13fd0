"""The forward by ONNX Runtime on the CPU, of a graph that holds no weights of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from bcd_models.runtime.choice import thread_count

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

INPUT, LOGITS, POOLED = "pixels", "logits", "pooled"
CELLS, CONTRIBUTIONS = "cells", "contributions"
WEIGHTS_NAME = "model.safetensors"  # that the graph's initializers point into
PIXELS_AT_A_TIME = 8 * 96 * 96  # more outgrow a core's cache, fewer read all weights too often


class OnnxForward:
    """Logits, cells, contributions and pooled features by ONNX Runtime.

    One image gets all threads. Several are shared among them, each thread taking a few images at a
    time: nothing waits for the others, no activations outgrow the caches, and an image's logits
    don't depend on its company.

    Args:
        graph: As ``bcd_models.runtime.graph.export_graph`` gives it.
        weights: The bytes of the safetensors file that it points into.
        gradient_graph: As ``bcd_models.runtime.gradient_graph.export_gradient_graph`` gives it;
            opened where a gradient map is asked for.
    """

    name = "onnx float32"

    def __init__(self, graph: bytes, weights: bytes, gradient_graph: bytes | None = None) -> None:
        self._weights, self._gradient_graph = weights, gradient_graph
        self._shares = thread_count()
        self._alone = open_session(graph, weights, self._shares)
        self._in_company = open_session(graph, weights, 1)
        self._threads = ThreadPoolExecutor(self._shares, "bcd-onnx")
        outputs = {output.name for output in self._alone.get_outputs()}
        gradient_outputs = {CONTRIBUTIONS} if gradient_graph else set()
        self.gives = frozenset(outputs & {LOGITS, CELLS} | gradient_outputs)

    def logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits N x 2 of N x 3 x S x S inputs."""
        return self._run(LOGITS, inputs)

    def cells(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the margin of each cell of the last stage, N x h x w; their mean is the margin."""
        return self._run(CELLS, inputs)

    def contributions(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much of the margin each cell contributes, by HiResCAM, N x h x w."""
        return compute_output(self._gradient, CONTRIBUTIONS, inputs)

    @cached_property
    def _gradient(self) -> InferenceSession:
        assert self._gradient_graph is not None
        return open_session(self._gradient_graph, self._weights, self._shares)

    def _run(self, output: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        if len(inputs) == 1:
            return compute_output(self._alone, output, inputs)
        run_share = partial(_run_a_few_at_a_time, self._in_company, output)
        shares = self._threads.map(run_share, np.array_split(inputs, self._shares))
        return np.concatenate([few for share in shares for few in share])


def is_onnxruntime_installed() -> bool:
    """Return whether ONNX Runtime can be imported."""
    return find_spec("onnxruntime") is not None


def _run_a_few_at_a_time(
    session: InferenceSession, output: str, inputs: NDArray[np.float32]
) -> list[NDArray[np.float32]]:
    few = max(1, round(PIXELS_AT_A_TIME / (inputs.shape[-2] * inputs.shape[-1])))
    return [
        compute_output(session, output, inputs[i : i + few]) for i in range(0, len(inputs), few)
    ]


def compute_output(session: Any, output: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one output of a session for N x 3 x S x S inputs."""
    (values,) = session.run([output], {INPUT: inputs})
    return values  # type: ignore[no-any-return]


def open_session(graph: bytes, weights: bytes, threads: int) -> InferenceSession:
    """Open a graph that points into a safetensors file, on the CPU."""
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Between runs its threads wait spinning: for 30 ms by default, when they take the cores from
    # all else; where they don't at all, the next run takes a tenth longer.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "200")
    # From memory: these very bytes were hashed, and a file could be another by now.
    options.add_external_initializers_from_files_in_memory(
        [WEIGHTS_NAME], [weights], [len(weights)]
    )
    return InferenceSession(graph, options, providers=["CPUExecutionProvider"])
