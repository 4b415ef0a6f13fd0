"""An explanation: an image, the heat map of a label, and its colours. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from bcd_models.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from bcd_models.config import Label
    from bcd_models.prediction import Prediction

COLOURS = "inferno"
LEFT_OUT = (120, 120, 120)  # grey, which neither a stain nor the scale is
STRIPES = 128  # of a map's longer side; they are three times as far apart


def apply_colours(values: ArrayLike) -> NDArray[np.uint8]:
    """Return values in the colours of heat maps: dark is 0, bright yellow is 1.

    Args:
        values: From 0 to 1, or bytes from 0 to 255; any shape.

    Returns:
        The shape of the values, x 3: RGB.
    """
    from matplotlib import colormaps

    rgba: NDArray[np.uint8] = colormaps[COLOURS](np.asarray(values), bytes=True)
    return np.ascontiguousarray(rgba[..., :3])


def colour_map(
    heat: ArrayLike, seen: NDArray[np.bool_], left_out: NDArray[np.bool_] | None = None
) -> Image.Image:
    """Return a heat map in colour, RGBA.

    Args:
        heat: H x W, as ``apply_colours`` takes it.
        seen: H x W, which pixels were looked at; the others are clear.
        left_out: H x W, which pixels look unsuitable; striped in grey.
    """
    rgb, alpha = apply_colours(heat), seen.astype(np.uint8) * 255
    if left_out is not None:
        down, across = np.indices(left_out.shape)
        wide = max(1, max(left_out.shape) // STRIPES)
        striped = left_out & ((down + across) % (4 * wide) < wide)
        rgb[striped], alpha[striped] = LEFT_OUT, 255
    return Image.fromarray(np.dstack((rgb, alpha)))


@dataclass(frozen=True)
class Explanation:
    """Which regions of an image speak for a label.

    Grad-CAM's heat map has the same scale for every image. 0 means: if the network saw in all
    regions what it sees in this one, the label would not be given. 1 means: it would be given with
    certainty. What it sees in a region depends on all that surrounds it. Between 0 and 1 stands
    ``tanh(e / 2)``, where e is how far, in calibrated log-odds, the region lies beyond the model's
    threshold. An image with nothing that speaks for the label stays at 0. HiResCAM, occlusion, SHAP
    and integrated gradients have one scale too, which begins where a region contributes nothing: e
    is what it contributes, times the number of regions. Other methods stretch each image from 0 to
    1, however little speaks for the label.

    Regions, not cells: Grad-CAM's map has one value for each 32 x 32 pixels of the network's input,
    enlarged bilinearly; a model's card says how much tissue that is. HiResCAM has four times as
    many.

    A large field's tiles have a map each, as they have an answer each: where two of them meet, two
    answers do, and nothing is smoothed over.

    Attributes:
        image: The image as the model saw it, upright RGB, before resizing.
        label: The label explained.
        heatmap: H x W float32 in [0, 1], at the image's size; 0 where nothing was looked at.
        prediction: The model's answer about the image.
        seen: H x W, which pixels of the map were looked at: all but tiles without enough tissue and
            what lies beyond the tiles.
        left_out: H x W, which pixels lie in tiles that look unsuitable and were left out; None:
            there are none.
        method: How the map was made, one of ``bcd_models.explain.methods.METHODS``: another than
            was asked for where that needs torch, which isn't installed.
    """

    image: Image.Image
    label: Label
    heatmap: NDArray[np.float32]
    prediction: Prediction
    seen: NDArray[np.bool_]
    left_out: NDArray[np.bool_] | None = None
    method: str = ""

    def coloured(self) -> Image.Image:
        """The heat map alone, RGBA: dark is 0, bright yellow is 1, clear was not looked at.

        What is left out as unsuitable is striped in grey.
        """
        return colour_map(self.heatmap, self.seen, self.left_out)

    def overlay(self, opacity: float = 0.5) -> Image.Image:
        """Lay the coloured heat map over the image; what was not looked at stays as it is.

        Args:
            opacity: Of the heat map, from 0 (the image alone) to 1 (the map alone).

        Raises:
            InputError: The opacity is not from 0 to 1.
        """
        if not isinstance(opacity, Real) or not 0 <= opacity <= 1:
            raise InputError(f"an opacity is from 0 to 1, not {opacity!r}")
        over = self.coloured()
        blended = Image.blend(self.image, over.convert("RGB"), opacity)
        return Image.composite(blended, self.image, over.getchannel("A"))
