"""Predictor: what a single classifier and an ensemble share once either gives a margin."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import islice, repeat
from operator import length_hint
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    get_args,
    overload,
)

import numpy as np

from bcd_models.config import MIN_CAMERA_AUROC, Label
from bcd_models.decision import (
    calibrate,
    check_label,
    choose_label,
    is_referred,
    smooth_margins,
)
from bcd_models.errors import ImageError, InputError
from bcd_models.explain.methods import DEFAULT, get_method
from bcd_models.hub import folder as model_folder
from bcd_models.hub import repository as hub
from bcd_models.images.field import Layout, TissueField, cut_field, plan_layout
from bcd_models.images.open import (
    ImageLimits,
    ImageSource,
    Several,
    is_one_image,
    open_image,
    open_scaled,
    read_open,
)
from bcd_models.images.scale import OPTICS, Scale, give_scale
from bcd_models.images.suitability import find_unsuitable, summarise
from bcd_models.prediction import (
    CAMERA,
    CAMERA_WORDS,
    IN_BAND,
    MAX_UNSUITABLE,
    Finding,
    Prediction,
    Unsuitable,
    describe_unsuitable,
)
from bcd_models.runtime.ahead import ahead
from bcd_models.runtime.device import choose_device
from bcd_models.slides.model import TileModelConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from bcd_models.config import (
        CameraValidation,
        DecisionConfig,
        LocalCalibration,
        SuitabilityConfig,
    )
    from bcd_models.explanation import Explanation
    from bcd_models.runtime.choice import Runtime
    from bcd_models.slides.prediction import SlidePrediction

BATCH = 32
BATCHES_AHEAD = 2  # batches of images that are opened ahead of those with the network
BATCHES_AT_ONCE = 2  # batches with the network, so that one is prepared while another is computed


MAX_TILES_AT_ONCE = 64  # of a field; larger ones are answered for as they are opened

Mpp: TypeAlias = float | Scale
Scales: TypeAlias = Mpp | Iterable[Mpp | None] | None
Cell: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class _Opened:
    """An image whose tiles are ready, or already answered for; its pixels are not kept.

    But of an image of one tile, which is judged with those that it is answered with.
    """

    source: ImageSource
    layout: Layout
    shown: NDArray[np.bool_]
    reasons: tuple[str, ...]
    ready: list[Any]
    margins: Margins | None
    as_tiles: bool
    rule: DecisionConfig
    ask: _Ask
    unjudged: NDArray[np.uint8] | None
    findings: dict[Cell, Finding]
    camera: Finding | None

    def note(self, found: Sequence[Finding | None], cells: Iterable[Cell]) -> _Opened:
        """Return it with what was found in its tiles, referred where most are unsuitable."""
        findings = {cell: one for cell, one in zip(cells, found, strict=True) if one}
        reasons = self.reasons
        if self.ask.suitability == "refer" and len(findings) > MAX_UNSUITABLE * len(found):
            reasons = (*reasons, describe_unsuitable(summarise(found), len(found)))
        return replace(self, findings=findings, reasons=reasons, unjudged=None)


@dataclass(frozen=True)
class _Failed:
    """An image that can't be used."""

    source: ImageSource
    error: ImageError


class _Ask(NamedTuple):
    """How an answer is asked for: ``views``, ``point`` and ``suitability`` as in ``predict``."""

    views: Literal[1] | None = None
    point: str | None = None
    suitability: Unsuitable = "refer"


class MapAsk(NamedTuple):
    """How a heat map is asked for: as in ``explain``."""

    label: Label
    method: str = DEFAULT
    views: int = 1


class Margins(NamedTuple):
    """What a model says of some images.

    Attributes:
        values: What the config's decision rule is applied to, one number an image.
        runtime: What computed them, and in which precision.
    """

    values: list[float]
    runtime: str


class Config(TileModelConfig, Protocol):
    """What every config says of its model."""

    @property
    def decision(self) -> DecisionConfig:
        """The decision rule of images of one tile."""

    @property
    def tile_decision(self) -> DecisionConfig | None:
        """The decision rule of tiles where it is another."""

    @property
    def calibrated(self) -> tuple[LocalCalibration, ...]:
        """On what its rules were calibrated locally."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        """Return it with some values changed."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All of it; with ``mode="json"``, as JSON knows it."""


class Predictor(ABC):
    """Answers about images, from margins that a subclass computes."""

    config: Config

    @classmethod
    @abstractmethod
    def from_folder(cls, folder: Path) -> Self:
        """Load a folder; ModelFolderError where it can't be used."""

    @property
    @abstractmethod
    def weights_sha256(self) -> str:
        """What the answers' ``weights_sha256`` says: which weights gave them."""

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """How many numbers are learnt."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files of the folder that ``save_pretrained`` writes, by path within it."""

    @abstractmethod
    def explain_opened(
        self, image: Image, field: TissueField, prediction: Prediction, ask: MapAsk
    ) -> Explanation:
        """Show which regions of an opened image, already predicted, speak for a label."""

    @abstractmethod
    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the network to a device or dtype, as ``torch.nn.Module.to`` does."""

    @property
    @abstractmethod
    def runtime(self) -> Runtime:
        """What computes the logits of ``predict``."""

    @runtime.setter
    @abstractmethod
    def runtime(self, wanted: str) -> None: ...

    @abstractmethod
    def prepare(self, pixels: NDArray[np.uint8]) -> Any:
        """What ``margins`` takes of an image's pixels; may be called from threads."""

    @abstractmethod
    def compute_margins(self, inputs: Sequence[Any], as_tiles: bool = False) -> Margins:
        """What the model says of images that ``prepare`` prepared, in their order.

        Args:
            inputs: The images.
            as_tiles: With as many views as tiles of slides and large fields get, often one.
        """

    @property
    @abstractmethod
    def tile_views(self) -> int:
        """How many views a slide's or large field's tile gets; of an ensemble the most."""

    @property
    @abstractmethod
    def field_um(self) -> float:
        """Side in micrometres of the field that the training patches show."""

    @property
    @abstractmethod
    def mpp(self) -> float:
        """Micrometres a pixel of the training patches."""

    @property
    @abstractmethod
    def white_point(self) -> bool:
        """Whether the colour of a slide's or large field's glass is divided out."""

    @property
    @abstractmethod
    def suitability(self) -> SuitabilityConfig | None:
        """What tells tissue from what the model knows nothing of; None: nothing is refused."""

    @property
    @abstractmethod
    def cameras(self) -> CameraValidation | None:
        """How it does on microscope cameras' fields; None: the folder doesn't say."""

    @abstractmethod
    def margins_of(self, tiles: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return what the model says of N x H x W x 3 RGB tiles of one size, shape (N,)."""

    @classmethod
    def from_pretrained(
        cls,
        folder_or_id: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str = "auto",
    ) -> Self:
        """Load a folder, or a Hub repository of the same files.

        Args:
            folder_or_id: An existing folder wins; anything else is a Hub id, "owner/name".
            revision: Branch, tag or commit on the Hub; all files come from one commit.
            token: Hub token, for private repositories; by default the one saved on this machine,
                False for none.
            cache_dir: Where downloads are kept; the Hub's usual cache by default.
            local_files_only: Never reach for the network.
            force_download: Download even what is in the cache.
            device: "auto" (a GPU where there is one and torch that can use it), "cpu", "cuda" or
                "mps".

        Raises:
            ModelFolderError: Missing, incomplete, of another format, or newer than this release.
            InputError: There is no such device here.
        """
        options = hub.HubOptions(revision, token, cache_dir, local_files_only, force_download)
        folder = model_folder.locate(folder_or_id, options)
        chosen = choose_device(device)
        model = cls.from_folder(folder)
        return model if chosen == "cpu" else model.to(chosen)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and weights (float16 safetensors) into a folder: all of them, or none."""
        model_folder.write(Path(folder), self.files())

    def push_to_hub(
        self, repo_id: str, *, token: str | None = None, private: bool | None = None
    ) -> str:
        """Publish config and weights on the Hub in one commit, or none where they are there.

        Args:
            repo_id: "owner/name"; made where it doesn't exist.
            token: Hub token; the one saved on this machine by default.
            private: Whether a new repository is closed to others; its owner's default by default.

        Returns:
            The commit's address.

        Raises:
            HubError: The Hub refuses, or stays out of reach.
        """
        message = f"{self.config.name} {self.config.version}, weights {self.weights_sha256}"
        with tempfile.TemporaryDirectory() as temporary:
            self.save_pretrained(temporary)
            return hub.push(Path(temporary), repo_id, message, token, private)

    @overload
    def predict(
        self,
        images: Several,
        limits: ImageLimits = ...,
        *,
        mpp: Scales = ...,
        views: Literal[1] | None = ...,
        point: str | None = ...,
        suitability: Unsuitable = ...,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: ImageSource,
        limits: ImageLimits = ...,
        *,
        mpp: Mpp | None = ...,
        views: Literal[1] | None = ...,
        point: str | None = ...,
        suitability: Unsuitable = ...,
    ) -> Prediction: ...

    def predict(
        self,
        images: ImageSource | Several,
        limits: ImageLimits = ImageLimits(),
        *,
        mpp: Scales = None,
        views: Literal[1] | None = None,
        point: str | None = None,
        suitability: Unsuitable = "refer",
    ) -> Prediction | list[Prediction]:
        """Answer for one image, or for each of a list or tuple.

        Args:
            images: One image, or a list or tuple of them.
            limits: What is refused by size.
            mpp: Micrometres a pixel, of all images or of each, or a ``compute_scale`` of a
                microscope's objective and camera; what the file says by default. Where
                neither is known, an image of the training patches' size in pixels is taken for one
                of them, and the decision about any other is "refer".
            views: 1 looks at an image of one tile once, as at the tiles of slides and larger
                fields, not as often as the model's rule for single images says; that is several
                times as fast and a little less accurate.
            point: The operating point that decides label and referral, such as "screening";
                ``model.config.decision.points`` has them all with what they were measured to do.
                The model's own threshold by default.
            suitability: What to do with an image that doesn't look like H&E-stained tissue in
                focus, or is a microscope camera's, for which the model is not validated: "refer",
                or "ignore", which answers all the same. Then what was found stands in
                ``Prediction.ignored``. A larger field's unsuitable tiles are left out, or ignored.

        Raises:
            ImageError: An image can't be used; the message says which and why.
            InputError: No microscope's image has ``mpp`` micrometres a pixel, the model is
                calibrated for several views alone, has no such operating point, or ``suitability``
                is neither of the two.

        Example:
            >>> from bcd_models import BCDClassifier
            >>> model = BCDClassifier.from_pretrained("cards/bcd-mobilenetv2")
            >>> model.predict("space/examples/synthetic-malignant-1.png", mpp=4).label
            'malignant'
        """
        if not isinstance(images, (list, tuple)):
            if isinstance(mpp, Iterable):
                raise InputError("one image has one scale: mpp must be a number")
            ask = _Ask(views, point, suitability)
            return self._answer_to(self._open(images, limits, mpp, ask)[0])
        answers = []
        for _, answer in self.stream(
            images, limits, mpp=mpp, views=views, point=point, suitability=suitability
        ):
            if isinstance(answer, ImageError):
                raise answer
            answers.append(answer)
        return answers

    def stream(
        self,
        images: Iterable[ImageSource],
        limits: ImageLimits = ImageLimits(),
        *,
        mpp: Scales = None,
        views: Literal[1] | None = None,
        point: str | None = None,
        suitability: Unsuitable = "refer",
    ) -> Iterator[tuple[ImageSource, Prediction | ImageError]]:
        """Answer for each of any number of images, in order; a bad image costs itself only.

        Images are opened in threads, a few batches ahead; two batches are with the network at once.
        """
        for one, answer in self._stream(images, limits, mpp, _Ask(views, point, suitability)):
            yield one.source, answer

    def _stream(
        self,
        images: Iterable[ImageSource],
        limits: ImageLimits,
        mpp: Scales,
        ask: _Ask,
    ) -> Iterator[tuple[_Opened | _Failed, Prediction | ImageError]]:
        def open_one(source: ImageSource, given: Mpp | None) -> _Opened | _Failed:
            try:
                return self._open(source, limits, given, ask)[0]
            except ImageError as error:
                return _Failed(source, error)

        def answer_some(
            some: list[_Opened | _Failed],
        ) -> tuple[list[_Opened | _Failed], dict[bool, Margins]]:
            some = self._judge_single(some)
            inputs: dict[bool, list[Any]] = {True: [], False: []}
            for one in some:
                if isinstance(one, _Opened):
                    inputs[one.as_tiles] += one.ready
            return some, {
                kind: self.compute_margins(own, kind) for kind, own in inputs.items() if own
            }

        if isinstance(mpp, Sized) and isinstance(images, Sized) and len(mpp) != len(images):
            raise InputError(f"{len(mpp)} scales for {len(images)} images: mpp needs one for each")
        scales = mpp if isinstance(mpp, Iterable) else repeat(mpp)
        pairs = zip(images, scales, strict=isinstance(mpp, Iterable))
        made = ahead(lambda pair: open_one(*pair), pairs, BATCHES_AHEAD * BATCH)
        batches = iter(lambda: list(islice(made, BATCH)), [])
        several = length_hint(images, BATCH + 1) > BATCH
        answers = (
            ahead(answer_some, batches, BATCHES_AT_ONCE) if several else map(answer_some, batches)
        )
        sha256 = self.weights_sha256  # once: of a network that was taken it costs more than a batch
        for some, margins in answers:
            values = {kind: iter(computed.values) for kind, computed in margins.items()}
            for one in some:
                if isinstance(one, _Failed):
                    yield one, one.error
                elif one.margins:
                    yield one, self._answer(one, one.margins, sha256)
                else:
                    own = list(islice(values[one.as_tiles], len(one.ready)))
                    computed = Margins(own, margins[one.as_tiles].runtime)
                    yield one, self._answer(one, computed, sha256)

    def explanations(
        self,
        images: Iterable[ImageSource],
        limits: ImageLimits = ImageLimits(),
        *,
        mpp: Scales = None,
        point: str | None = None,
        suitability: Unsuitable = "refer",
    ) -> Iterator[tuple[ImageSource, Explanation | ImageError]]:
        """Answer for each of any number of images and explain its label, as ``stream`` does.

        Each image is opened once more for its map, so that only a few are in memory at a time.
        """
        ask = _Ask(point=point, suitability=suitability)
        for one, answer in self._stream(map(_rereadable, images), limits, mpp, ask):
            if isinstance(one, _Failed):
                yield one.source, one.error
                continue
            assert isinstance(answer, Prediction)
            try:
                image = open_image(one.source, limits)
            except ImageError as error:  # a file that went meanwhile
                yield one.source, error
                continue
            field = cut_field(np.asarray(image), one.layout, self.white_point)
            field = field.keep(one.shown[field.shown])
            yield one.source, self._explain(image, field, answer, MapAsk(answer.label))

    def predict_proba(
        self,
        images: ImageSource | Iterable[ImageSource],
        limits: ImageLimits = ImageLimits(),
        *,
        mpp: Scales = None,
        views: Literal[1] | None = None,
        suitability: Unsuitable = "refer",
    ) -> NDArray[np.float64]:
        """Return the calibrated P(malignant) of each image, shape (N,), in [0, 1].

        Args:
            images: One image, any iterable of images, or an array N x H x W x 3.
            limits: What is refused by size.
            mpp: Micrometres a pixel, as in ``predict``.
            views: As in ``predict``.
            suitability: As in ``predict``; of an image of one tile it changes no probability.

        Raises:
            ImageError: An image can't be used; the message says which and why.
        """
        several: Any = [images] if is_one_image(images) else images
        answers = []
        for _, answer in self.stream(
            several, limits, mpp=mpp, views=views, suitability=suitability
        ):
            if isinstance(answer, ImageError):
                raise answer
            answers.append(answer.probability)
        return np.array(answers)

    def predict_slide(
        self,
        slide: str | Path,
        *,
        out: str | Path | None = None,
        mpp: float | None = None,
        point: str | None = None,
        suitability: Unsuitable = "refer",
        batch: int = BATCH,
        progress: Callable[[int, int], None] | None = None,
    ) -> SlidePrediction:
        """Answer for all tissue of a whole slide, tile by tile.

        Args:
            slide: Path of what OpenSlide reads: SVS, NDPI, MRXS, tiled TIFF, DICOM.
            out: Folder for heat map, regions, tiles and summary; a killed call goes on there.
            mpp: Micrometres a level-0 pixel, where the slide doesn't say or is wrong.
            point: Operating point, as in ``predict``.
            suitability: Whether tiles are left out ("refer") that don't look like H&E-stained
                tissue in focus, or answered for all the same ("ignore"): then they stand in
                ``SlidePrediction.ignored``.
            batch: Tiles that go through the model at once.
            progress: Called with how many tiles are done, and how many there are.

        Raises:
            ImageError: The slide can't be used; the message says why.
            InputError: OpenSlide is missing, ``out`` can't be written or is in use otherwise, or
                ``suitability`` is neither of the two.
        """
        _check_suitability(suitability)
        from bcd_models.slides.predict import predict_slide

        return predict_slide(
            self,
            slide,
            out=out,
            mpp=mpp,
            point=point,
            white_point=self.white_point,
            suitability=self.suitability,
            ignore_unsuitable=suitability == "ignore",
            batch=batch,
            progress=progress,
        )

    def explain(
        self,
        image: ImageSource,
        *,
        method: str = DEFAULT,
        label: Label | None = None,
        views: Literal[1, 4, 8] = 1,
        limits: ImageLimits = ImageLimits(),
        mpp: Mpp | None = None,
        point: str | None = None,
        suitability: Unsuitable = "refer",
    ) -> Explanation:
        """Show which regions speak for a label, as a heat map.

        Args:
            image: One image.
            method: How the map is made, one of ``bcd_models.explain.methods.METHODS``; see
                docs/explaining.md for what each costs and needs.
            label: The label to explain, "benign" or "malignant"; the predicted one by default.
            views: The mean over so many of the square's eight symmetries, each map turned back.
            limits: What is refused by size.
            mpp: Micrometres a pixel, as in ``predict``.
            point: Operating point, as in ``predict``; the map begins at its threshold.
            suitability: As in ``predict``; what is left out has no map.

        Raises:
            ImageError: The image can't be used; the message says why.
            InputError: No such method, label, number of views, scale, operating point or
                ``suitability``, or the method needs a package that isn't installed.

        Example:
            >>> from bcd_models import BCDClassifier
            >>> model = BCDClassifier.from_pretrained("cards/bcd-mobilenetv2")
            >>> patch = "space/examples/synthetic-malignant-1.png"
            >>> model.explain(patch, method="hirescam", views=8).method
            'hirescam'
        """
        get_method(method)
        if views not in (1, 4, 8):
            raise InputError(f"a map is the mean of 1, 4 or 8 views, not of {views!r}")
        wanted = None if label is None else check_label(label)
        ask = _Ask(point=point, suitability=suitability)
        one, opened, field = self._open(image, limits, mpp, ask)
        prediction = self._answer_to(one)
        map_ask = MapAsk(wanted or prediction.label, method, views)
        return self._explain(opened, field, prediction, map_ask)

    def _explain(
        self, image: Image, field: TissueField, prediction: Prediction, ask: MapAsk
    ) -> Explanation:
        """Explain an opened image, and say where tiles are left out as unsuitable."""
        explanation = self.explain_opened(image, field, prediction, ask)
        if prediction.judged_tiles == prediction.tiles:
            return explanation
        named = [[name is not None for name in row] for row in prediction.tile_findings]
        return replace(explanation, left_out=field.cover(np.array(named) & ~field.shown))

    def open_field(self, source: ImageSource, mpp: Mpp | None = None) -> TissueField:
        """Open an image and cut what ``predict`` answers for: its tiles at the trained scale.

        Args:
            source: One image.
            mpp: Micrometres a pixel, as in ``predict``.

        Raises:
            ImageError: The image can't be used; the message says why.
        """
        return self._open(source, ImageLimits(), mpp, _Ask())[2]

    def _open(
        self,
        source: ImageSource,
        limits: ImageLimits,
        mpp: Mpp | None,
        ask: _Ask,
    ) -> tuple[_Opened, Image, TissueField]:
        """Open an image, lay its tiles, judge and prepare them."""
        _check_suitability(ask.suitability)
        if ask.views and self.tile_views != ask.views:
            raise InputError(f"{self.config.name} is calibrated for {self.tile_views} views alone")
        image, read = open_scaled(source, limits)
        scale = read if mpp is None else give_scale(mpp)
        layout = plan_layout(image.size, scale, self.mpp, self.field_um, limits.max_tiles)
        as_tiles = bool(ask.views) or layout.rows * layout.columns > 1
        config = self.config
        rule = (config.for_tiles if as_tiles else config.decision).at(ask.point)
        field = cut_field(np.asarray(image), layout, self.white_point)
        is_single = field.shown.size == 1
        camera = self._judge_camera(layout, len(field.tiles))
        found: list[Finding | None] = [None] * len(field.tiles)
        cells = [(row, column) for row, column in np.argwhere(field.shown).tolist()]
        if self.suitability and not is_single:
            found = find_unsuitable(field.tiles, self.suitability)
        if ask.suitability == "refer" and any(found) and not all(found):
            field = field.keep(np.array([one is None for one in found]))
        ready, margins = [], None
        if len(field.tiles) <= MAX_TILES_AT_ONCE:
            ready = [self.prepare(tile) for tile in field.tiles]
        else:
            margins = self._compute_in_turn(field.tiles)
        unjudged = field.tiles[0] if self.suitability and is_single else None
        one = _Opened(
            source,
            layout,
            field.shown,
            field.reasons,
            ready,
            margins,
            as_tiles,
            rule,
            ask,
            unjudged,
            {},
            camera,
        )
        return (one if is_single else one.note(found, cells)), image, field

    def _judge_camera(self, layout: Layout, tiles: int) -> Finding | None:
        """Return what speaks against a microscope camera's image, whose optics or file say so."""
        measured, scale = self.cameras, layout.scale
        if measured is None or measured.is_enough or scale is None or not scale.by_camera:
            return None
        if layout.rows * layout.columns == 1 and scale.source != OPTICS:  # a patch of any origin
            return None
        low = measured.auroc.low if measured.auroc else 0.0
        return Finding(CAMERA, low, MIN_CAMERA_AUROC, CAMERA_WORDS, tiles)

    def _judge_single(self, some: Iterable[Any]) -> list[Any]:
        """Judge images of one tile together: alone, each would take three times as long."""
        opened = list(some)
        tiles = [one.unjudged for one in opened if _is_unjudged(one)]
        if not tiles or not self.suitability:
            return opened
        found = iter(find_unsuitable(np.stack(tiles), self.suitability))
        return [one.note([next(found)], [(0, 0)]) if _is_unjudged(one) else one for one in opened]

    def _compute_in_turn(self, tiles: NDArray[np.uint8]) -> Margins:
        """Compute margins a limited number of tiles at a time."""
        values, runtime = [], ""
        for first in range(0, len(tiles), MAX_TILES_AT_ONCE):
            some = tiles[first : first + MAX_TILES_AT_ONCE]
            ready = [self.prepare(tile) for tile in some]
            computed, runtime = self.compute_margins(ready, as_tiles=True)
            values += computed
        return Margins(values, runtime)

    def _answer_to(self, one: _Opened) -> Prediction:
        (one,) = self._judge_single([one])
        margins = one.margins or self.compute_margins(one.ready, one.as_tiles)
        return self._answer(one, margins, self.weights_sha256)

    def _answer(self, one: _Opened, margins: Margins, sha256: str) -> Prediction:
        """Return the prediction that follows from the margins of an image's tiles."""
        if not all(map(math.isfinite, margins.values)):
            raise InputError(f"{self.config.name} gives no number: its weights are damaged")
        decision, layout, grid = one.rule, one.layout, np.full(one.shown.shape, np.nan)
        grid[one.shown] = margins.values
        smoothed = smooth_margins(grid, decision.context)[one.shown]
        probabilities = calibrate(smoothed, decision).tolist()
        probability = max(probabilities)
        label = choose_label(probability, decision)
        is_ignored, reasons = one.ask.suitability == "ignore", one.reasons
        if one.camera and not is_ignored:
            reasons = (*reasons, one.camera.words)
        if is_referred(probability, decision):
            reasons = (*reasons, IN_BAND)
        answers, tiles = iter(probabilities), one.shown.tolist()
        by_tile = tuple(tuple(next(answers) if shown else None for shown in row) for row in tiles)
        name = one.ask.point or decision.own_point
        point = decision.points.get(name)
        is_field, found = one.shown.size > 1, summarise(list(one.findings.values()))
        found = (one.camera, *found) if one.camera else found
        return Prediction(
            name=_name_of(one.source),
            label=label,
            probability=probability,
            decision="refer" if reasons else label,
            reasons=reasons,
            threshold=decision.threshold,
            refer=decision.refer,
            model=self.config.name,
            model_version=self.config.version,
            weights_sha256=sha256,
            width=layout.width,
            height=layout.height,
            runtime=margins.runtime,
            point=name,
            missed_of_100=point.missed_of_100 if point else None,
            mpp=layout.mpp,
            scale=layout.source,
            tile_probabilities=by_tile if is_field else (),
            findings=() if is_ignored else found,
            tile_findings=_name_tiles(one) if is_field and one.findings else (),
            ignored=found if is_ignored else (),
        )


def _is_unjudged(one: _Opened | _Failed) -> bool:
    return isinstance(one, _Opened) and one.unjudged is not None


def _check_suitability(chosen: str) -> None:
    if chosen not in get_args(Unsuitable):
        raise InputError(f"suitability is 'refer' or 'ignore', not {chosen!r}")


def _name_tiles(one: _Opened) -> tuple[tuple[str | None, ...], ...]:
    rows, columns = one.shown.shape
    found = {place: finding.name for place, finding in one.findings.items()}
    return tuple(tuple(found.get((y, x)) for x in range(columns)) for y in range(rows))


def as_list(images: ImageSource | Several) -> Several:
    """The images as a list or tuple, whether one was handed in or several."""
    return images if isinstance(images, (list, tuple)) else [images]


def _rereadable(source: ImageSource) -> ImageSource:
    """Return an open file's bytes, which it gives but once; anything else as it is."""
    try:
        return read_open(source) if hasattr(source, "read") else source
    except ImageError:  # which opening it will raise again, at its place
        return source


def _name_of(source: ImageSource) -> str:
    return Path(source).name if isinstance(source, (str, Path)) else "image"
