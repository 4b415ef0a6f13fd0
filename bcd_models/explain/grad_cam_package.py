"""The methods of the grad-cam package: each image stretched from its least value to its greatest.

It hooks a copy of the network, which is thrown away.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from bcd_models.runtime.choice import require_explainer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from bcd_models.config import DecisionConfig, Label
    from bcd_models.explain.methods import Compute
    from bcd_models.runtime.torch_forward import TorchForward


def from_package(name: str, *, earlier: bool = False) -> Compute:
    """Return what computes the cells of one of the package's classes, as ``methods.Compute`` says.

    Args:
        name: Of the class.
        earlier: At the stage before the last; by default where ``cells`` are taken, too.
    """

    def compute(
        forward: TorchForward,
        inputs: NDArray[np.float32],
        _decision: DecisionConfig,
        label: Label,
    ) -> NDArray[np.float32]:
        require_explainer("pytorch_grad_cam")
        import pytorch_grad_cam
        import torch
        from pytorch_grad_cam import score_cam

        score_cam.tqdm = SimpleNamespace(tqdm=iter)  # or it draws a progress bar
        # Cells as they are, not enlarged by the package.
        kind = type(name, (getattr(pytorch_grad_cam, name),), {"get_target_width_height": _none})
        sign = 1 if label == "malignant" else -1

        def margin(logits: Tensor) -> Tensor:
            return sign * (logits[1] - logits[0])

        with torch.inference_mode(False), torch.enable_grad():
            network, layer = forward.open_copy(earlier)
            pixels = torch.from_numpy(inputs).to(forward.device).requires_grad_()
            with kind(network, [layer], reshape_transform=forward.as_maps) as cam:
                cells: NDArray[np.float32] = cam(pixels, [margin] * len(inputs))
        return cells

    return compute


def _none(_cam: Any, _inputs: Tensor) -> None:
    return None
