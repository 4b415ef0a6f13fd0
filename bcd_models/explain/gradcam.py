"""Class-activation heat maps on one fixed scale for all images."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bcd_models.decision import Label, log_odds
from bcd_models.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bcd_models.models.classifier import BCDClassifier
    from bcd_models.prediction import Prediction

COLOURS = "inferno"


@dataclass(frozen=True)
class Explanation:
    """Which regions of an image speak for a label.

    The heat map has the same scale for every image. 0 means: an image that looked like this region
    all over would not be given the label. 1 means: it would be given the label with certainty.
    Between them stands ``tanh(e / 2)``, where e is how far, in calibrated log-odds, the region lies
    beyond the model's threshold. An image with nothing that speaks for the label stays at 0.

    Regions, not cells: the map has one value for each 32 x 32 pixels of the network's input,
    enlarged bilinearly; a model's card says how much tissue that is.

    Attributes:
        image: The image as the model saw it, upright RGB, before resizing.
        label: The label explained.
        heatmap: H x W float32 in [0, 1], at the image's size.
        prediction: The model's answer about the image.
    """

    image: Image.Image
    label: Label
    heatmap: NDArray[np.float32]
    prediction: Prediction

    def coloured(self) -> Image.Image:
        """The heat map alone, in colour: dark is 0, bright yellow is 1."""
        from matplotlib import colormaps

        rgba = colormaps[COLOURS](self.heatmap, bytes=True)
        return Image.fromarray(np.ascontiguousarray(rgba[..., :3]))

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Lay the coloured heat map over the image.

        Args:
            opacity: Of the heat map, from 0 (the image alone) to 1 (the map alone).

        Raises:
            InputError: The opacity is not from 0 to 1.
        """
        if not 0 <= opacity <= 1:
            raise InputError(f"an opacity is from 0 to 1, not {opacity!r}")
        return Image.blend(self.image, self.coloured(), opacity)


@torch.inference_mode(False)  # a gradient is needed, whatever the caller's mode
def grad_cam(
    model: BCDClassifier, image: Image.Image, prediction: Prediction, label: Label
) -> Explanation:
    """Explain a label by Grad-CAM (Selvaraju et al., ICCV 2017), computed by the grad-cam package.

    The map is taken where global average pooling and a linear layer follow. There Grad-CAM of the
    logit margin, before its rectification, adds up to the margin itself, so each cell can be read
    as the margin of an image that looked like this cell all over, and nothing before that place
    needs a gradient. Safe to call from threads.
    """
    cells, bias = _margin_of_cells(model._own("network"), model._inputs_of([np.array(image)]))
    decision = model.config.decision
    calibrated = decision.slope * (cells + bias) + decision.intercept
    beyond = calibrated - float(log_odds(decision.threshold))
    evidence = beyond if label == "malignant" else -beyond
    heat = np.tanh(np.maximum(_enlarge(evidence, image.size), 0) / 2)
    return Explanation(image, label, heat.astype(np.float32), prediction)


def _margin_of_cells(network: Any, pixels: Tensor) -> tuple[NDArray[np.float32], float]:
    """What each cell adds to the margin (h x w, mean = margin - bias), and the bias.

    Args:
        network: Of timm.
        pixels: Its input, of one image.
    """
    from pytorch_grad_cam import GradCAM

    class Unscaled(GradCAM):  # type: ignore[misc]
        """Grad-CAM as it is, without the scaling of each map to its own maximum."""

        def compute_cam_per_layer(self, pixels: Tensor, targets: Any, smooth: bool) -> Any:
            hooked = self.activations_and_grads
            activations, grads = hooked.activations[0].numpy(), hooked.gradients[0].numpy()
            layer = self.target_layers[0]
            return self.get_cam_image(pixels, layer, targets, activations, grads, smooth)

        def aggregate_multi_layers(self, cams: Any) -> Any:
            return cams

    def margin(logits: Tensor) -> Tensor:
        return logits[1] - logits[0]

    with torch.no_grad():
        features = network.forward_features(pixels)
    head = _head(network)
    with torch.enable_grad(), Unscaled(head, [head[0]]) as cam:
        cam.compute_input_gradient = True  # the head's own parameters need none
        raw = cam(features, [margin])[0]
    bias = network.get_classifier().bias.detach()
    return raw * raw.size, float(bias[1] - bias[0])


def _head(network: Any) -> nn.Sequential:
    """What follows a network's features: a place to hang hooks on, pooling, the classifier.

    Its modules are copies over the same tensors: hooks on them reach nobody else's forward pass,
    and gradients stay off the original.
    """
    classifier = network.get_classifier()
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in classifier.parameters()}
    return copy.deepcopy(nn.Sequential(nn.Identity(), network.global_pool, classifier), shared)


def _enlarge(cells: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    image = Image.fromarray(cells.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))
