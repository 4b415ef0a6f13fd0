"""Whole slides: drawn slides of known layout, through the library and the command."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from shapely import Polygon
from skimage.data import chelsea

from bcd_models import BCDClassifier, BCDEnsemble, ImageError
from bcd_models.cli.slide import ProgressLine
from bcd_models.config import DecisionConfig
from bcd_models.errors import InputError
from bcd_models.explanation import LEFT_OUT
from bcd_models.images.open import open_image
from bcd_models.images.tissue import is_tissue
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.prediction import NOTICE, WORDS
from bcd_models.slides.grid import Block, choose_level, plan_grid
from bcd_models.slides.heatmap import colours
from bcd_models.slides.output import build_geojson, write
from bcd_models.slides.predict import predict_slide
from bcd_models.slides.prediction import SlidePrediction, UnsuitableTile
from bcd_models.slides.regions import outline, regions_of
from bcd_models.slides.slide_file import SlideReader, read_facts
from tests.bcd_models.slides.conftest import MPP, SIDE
from tests.support.command_line import COMMAND, bcd
from tests.support.processes import running
from tests.support.scanners import write_mrxs, write_ndpi
from tests.support.slides import (
    BENIGN,
    GLASS,
    TUMOUR,
    damage_tile,
    draw_layout,
    telling_model,
    write_slide,
)
from training.study.scanners import write_dicom, write_svs


def tile_of(image: np.ndarray, row: int, column: int, side: int) -> Image.Image:
    """A field of an image, cut by hand."""
    return Image.fromarray(
        image[row * side : (row + 1) * side, column * side : (column + 1) * side]
    )


@pytest.fixture(scope="module")
def at_4_um(picture: np.ndarray) -> np.ndarray:
    """The picture as the model gets it."""
    height, width = picture.shape[:2]
    half = Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.HAMMING)
    return np.asarray(half)


def test_the_map_follows_the_layout(found: SlidePrediction, layout: np.ndarray) -> None:
    assert (found.tissue == (layout != GLASS)).all()
    assert (np.isnan(found.probabilities) == (layout == GLASS)).all()
    tumour = layout == TUMOUR
    assert found.probabilities[tumour].mean() > 0.8
    assert found.probabilities[layout == BENIGN].mean() < 0.2
    assert (found.labelled == tumour)[found.tissue].mean() > 0.9
    assert found.failed == ()


def test_the_share_counts_labels_as_an_image_s_does(
    found: SlidePrediction, model: BCDClassifier, picture: np.ndarray
) -> None:
    everything = found.rule.model_copy(update={"refer": (0.0, 1.0)})
    referred = replace(found, rule=everything)
    assert referred.tiles("refer") == found.predicted
    assert referred.share == found.share == found.labelled.sum() / found.predicted
    assert found.share == pytest.approx(model.predict(picture, mpp=MPP).share, abs=0.02)


@pytest.mark.parametrize("lamp", [(1, 1, 1), (0.95, 0.9, 0.82), (0.9, 1, 0.85)])
def test_tissue_is_where_it_is_in_an_image_whatever_the_lamp(
    model: BCDClassifier, picture: np.ndarray, layout: np.ndarray, tmp_path: Path, lamp: Any
) -> None:
    tinted = np.rint(picture * np.array(lamp)).astype(np.uint8)
    on_slide = model.predict_slide(write_slide(tmp_path / "lamp.tif", tinted, MPP)).tissue
    by_tile = model.predict(tinted, mpp=MPP).tile_probabilities
    in_image = np.array([[p is not None for p in row] for row in by_tile])
    assert (on_slide == (layout != GLASS)).all()
    assert (on_slide == in_image).all()


def test_tiles_are_what_a_patch_would_be(
    found: SlidePrediction, model: BCDClassifier, at_4_um: np.ndarray
) -> None:
    assert found.level == 0
    cells = list(zip(*np.nonzero(found.tissue), strict=True))[::7]
    patches = [tile_of(at_4_um, *cell, side=50) for cell in cells]
    expected = model.predict_proba(patches)
    assert [found.probabilities[cell] for cell in cells] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("downsamples", [(1,), (1, 3), (1, 2, 4, 8, 16)])
def test_whatever_levels_there_are(
    found: SlidePrediction,
    model: BCDClassifier,
    picture: np.ndarray,
    tmp_path: Path,
    downsamples: tuple[int, ...],
) -> None:
    path = write_slide(tmp_path / "other.tif", picture, MPP, downsamples)
    other = model.predict_slide(path)
    assert (other.tissue == found.tissue).all()
    assert (other.labelled == found.labelled)[found.tissue].mean() > 0.93


@pytest.mark.parametrize(
    ("mpp", "downsamples", "level"),
    [
        (0.25, (1.0, 4.0, 16.0, 64.0), 1),
        (0.2527, (1.0, 4.0001, 8.0004, 16.0009), 2),  # 2.02 um: near enough
        (0.274, (1.0, 4.0, 8.0), 1),  # 2.2 um: not near enough
        (0.5, (1.0, 2.0, 4.0, 16.0), 2),
        (0.23, (1.0, 2.97, 8.9, 30.1), 1 + 1),
        (0.25, (1.0,), 0),
        (0.25, (1.0, 32.0), 0),
        (3.0, (1.0, 1.3, 4.0), 0),
    ],
)
def test_the_coarsest_level_that_is_sharp_enough(
    slide: Path, mpp: float, downsamples: tuple[float, ...], level: int
) -> None:
    facts = read_facts(slide)
    levels = tuple((int(facts.width / one), int(facts.height / one)) for one in downsamples)
    facts = replace(facts, mpp_x=mpp, mpp_y=mpp, levels=levels, downsamples=downsamples)
    assert choose_level(facts, 2.0) == level


def test_pixels_need_not_be_square(
    found: SlidePrediction, model: BCDClassifier, picture: np.ndarray, tmp_path: Path
) -> None:
    flat = np.asarray(Image.fromarray(picture).reduce((1, 2)))
    path = write_slide(tmp_path / "flat.tif", flat, (MPP, 2 * MPP))
    other = model.predict_slide(path)
    assert (other.tissue == found.tissue).all()
    assert (other.labelled == found.labelled)[found.tissue].mean() > 0.93
    assert (other.grid.tile_width, other.grid.tile_height) == (SIDE, SIDE / 2)


def test_tiles_of_no_whole_number_of_pixels(
    model: BCDClassifier, picture: np.ndarray, tmp_path: Path, layout: np.ndarray
) -> None:
    """1.93 um a pixel: fields are 103.6 pixels wide, drawn by stretching."""
    height, width = (round(side * MPP / 1.93) for side in picture.shape[:2])
    stretched = np.asarray(Image.fromarray(picture).resize((width, height)))
    path = write_slide(tmp_path / "stretched.tif", stretched, 1.93, (1, 2))
    found = model.predict_slide(path)
    rows, columns = found.tissue.shape
    expected = (layout != GLASS)[:rows, :columns]
    assert (found.tissue == expected).mean() > 0.97
    tumour = (layout == TUMOUR)[:rows, :columns]
    assert (found.labelled == tumour)[found.tissue].mean() > 0.85


def test_the_pixel_size_is_asked_for(
    model: BCDClassifier, picture: np.ndarray, tmp_path: Path, found: SlidePrediction
) -> None:
    path = write_slide(tmp_path / "bare.tif", picture, None, (1, 2, 8))
    with pytest.raises(ImageError, match=r"does not say how large its pixels are.*--mpp"):
        model.predict_slide(path)
    given = model.predict_slide(path, mpp=MPP)
    assert given.facts.mpp_given
    np.testing.assert_allclose(given.probabilities, found.probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("mpp", "told"),
    [(352.8, r"mpp-x = 35\d.*--mpp"), (0.001, "mpp-x = 0.001"), (8.0, "more than the 6 that can")],
)
def test_absurd_pixel_sizes_are_refused(
    model: BCDClassifier, tmp_path: Path, mpp: float, told: str
) -> None:
    path = write_slide(tmp_path / "s.tif", np.full((600, 600, 3), 200, np.uint8), mpp, (1,))
    with pytest.raises(ImageError, match=told):
        model.predict_slide(path)
    with pytest.raises(InputError, match="400 micrometres a pixel is no microscope"):
        model.predict_slide(path, mpp=400)


def test_less_than_a_tile_is_refused(model: BCDClassifier, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", np.full((300, 60, 3), 200, np.uint8), MPP, (1,))
    with pytest.raises(ImageError, match="shows 120 x 600 micrometres, less than one tile"):
        model.predict_slide(path)


def text(path: Path, _: Path) -> None:
    path.write_text("no slide")


def cut_short(path: Path, slide: Path) -> None:
    data = slide.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def untiled(path: Path, _: Path) -> None:
    tifffile.imwrite(path, np.zeros((500, 500, 3), np.uint8), photometric="rgb")


def picture(path: Path, _: Path) -> None:
    Image.new("RGB", (500, 500)).save(path, "JPEG")


def folder(path: Path, _: Path) -> None:
    path.mkdir()


def nothing(path: Path, _: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (text, r"^\S+ is no slide that OpenSlide reads"),
        (cut_short, r"is no slide.*cut short"),
        (untiled, "an untiled TIFF must be saved tiled"),
        (untiled, r"for an image of a field: bcd predict \S+.tif --mpp"),
        (picture, r"for an image of a field: bcd predict \S+.tif --mpp"),
        (folder, "is a folder: of a DICOM slide"),
        (nothing, "no such file"),
    ],
)
def test_what_is_no_slide_is_refused(
    model: BCDClassifier, slide: Path, tmp_path: Path, make: Callable[[Path, Path], None], told: str
) -> None:
    make(tmp_path / "s.tif", slide)
    with pytest.raises(ImageError, match=told):
        model.predict_slide(tmp_path / "s.tif", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_openslide_it_says_what_to_install(
    model: BCDClassifier, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(InputError, match=r"pip install 'bcd-models\[slides\]'"):
        model.predict_slide(slide)


@pytest.mark.parametrize("missing", ["pyarrow", "scipy", "shapely"])
def test_without_what_slides_need_it_says_what_to_install(
    found: SlidePrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=rf"need {missing} .*pip install 'bcd-models\[slides\]'"):
        write(found, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("vendor", "write", "beside", "off"),
    [
        ("aperio", lambda folder, *of: write_svs(folder / "s.svs", *of), {"label", "macro"}, 1e-4),
        ("dicom", lambda folder, *of: write_dicom(folder / "series", *of), {"macro"}, 1e-4),
        ("hamamatsu", lambda folder, *of: write_ndpi(folder / "s.ndpi", *of), {"macro"}, 0.15),
        ("mirax", lambda folder, *of: write_mrxs(folder / "s.mrxs", *of), {"macro"}, 1e-4),
    ],
    ids=["SVS", "DICOM", "NDPI", "MRXS"],
)
def test_a_scanner_s_own_format_gives_the_same_map(
    found: SlidePrediction,
    model: BCDClassifier,
    picture: np.ndarray,
    tmp_path: Path,
    vendor: str,
    write: Callable[..., Path],
    beside: set[str],
    off: float,
) -> None:
    path = write(tmp_path, picture, MPP, (1, 2, 8))
    with openslide.OpenSlide(path) as opened:
        assert beside <= set(opened.associated_images)
    other = model.predict_slide(path)
    assert (other.facts.vendor, other.facts.mpp_x, other.facts.mpp_y) == (vendor, MPP, MPP)
    same = tuple(map(slice, found.tissue.shape))  # MRXS fills up its last tiles with white
    assert (other.tissue[same] == found.tissue).all()
    assert other.tissue.sum() == found.tissue.sum()
    assert other.probabilities[same] == pytest.approx(found.probabilities, abs=off, nan_ok=True)


def test_label_and_macro_are_never_read(
    model: BCDClassifier, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("an associated image was asked for")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(refuse))
    monkeypatch.setattr(openslide.lowlevel, "read_associated_image", refuse)
    model.predict_slide(slide)


def test_only_what_was_scanned_is_looked_at(slide: Path) -> None:
    facts = replace(read_facts(slide), bounds=(250, 130, 999, 505))
    grid = plan_grid(facts, 200, 4)
    assert (grid.rows, grid.columns) == (5, 9)
    assert grid.edges(0, 0) == (250, 130, 350, 230)


def test_glass_dust_and_ink_are_no_tissue() -> None:
    colours = {
        "stroma": (230, 190, 210),
        "pale stroma": (240, 222, 234),
        "nuclei": (110, 75, 150),
        "tumour": (170, 120, 175),
        "glass": (243, 244, 242),
        "bluish glass": (238, 240, 246),
        "dust": (120, 118, 119),
        "black ink": (25, 24, 28),
        "blue ink": (40, 60, 170),
        "green ink": (30, 130, 80),
    }
    rgb = np.array(list(colours.values()), np.uint8)[None]
    taken = {name for name, one in zip(colours, is_tissue(rgb)[0], strict=True) if one}
    assert taken == {"stroma", "pale stroma", "nuclei", "tumour"}


@pytest.mark.parametrize("grey", [255, 240, 128])
def test_no_tissue_is_said(model: BCDClassifier, tmp_path: Path, grey: int) -> None:
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(grey, 1.6, (900, 900, 3)), 0, 255).astype(np.uint8)
    path = write_slide(tmp_path / "glass.tif", glass, MPP)
    found = model.predict_slide(path, out=tmp_path)
    assert not found.tissue.any()
    assert np.isnan(found.probabilities).all()
    assert found.words == "no tissue found: nothing was looked at"
    summary = json.loads((tmp_path / "glass-telling.json").read_text())
    assert summary["decisions"]["malignant"]["share_of_predicted"] is None
    assert json.loads((tmp_path / "glass-telling.geojson").read_text())["features"] == []
    assert pq.read_table(tmp_path / "glass-telling.parquet").num_rows == 0


def test_a_damaged_spot_costs_its_tiles_only(
    telling: Path, picture: np.ndarray, found: SlidePrediction, tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "drawn.tif", picture, MPP, (1, 2, 8))
    damage_tile(path, 0, 300, 300)  # pixels 256 to 512: rows and columns 2 to 5
    done = bcd("slide", path, "--model", telling, "--out", tmp_path)
    assert done.returncode == 1, done.stderr
    summary = json.loads((tmp_path / "drawn-telling.json").read_text())
    spoilt = {(one["row"], one["column"]) for one in summary["failed"]}
    assert spoilt == {(row, column) for row in range(2, 6) for column in range(2, 6)}
    assert f"{len(spoilt)} of {int(found.tissue.sum())} tiles could not be read" in done.stderr
    assert "error: tile in row 2, column 2: " in done.stderr
    table = pq.read_table(tmp_path / "drawn-telling.parquet").to_pylist()
    for tile in table:
        if (tile["row"], tile["column"]) in spoilt:
            assert tile["probability"] is tile["label"] is tile["decision"] is None
            assert tile["failed"]
        else:
            expected = found.probabilities[tile["row"], tile["column"]]
            assert tile["probability"] == pytest.approx(expected, abs=1e-4)
            assert tile["failed"] is None
    assert len(table) == found.tissue.sum()
    assert summary["tiles"]["failed"] == len(spoilt)
    assert summary["tiles"]["predicted"] == len(table) - len(spoilt)


def test_a_slide_that_cannot_be_read_at_all(
    model: BCDClassifier, picture: np.ndarray, tmp_path: Path
) -> None:
    path = write_slide(tmp_path / "s.tif", picture[:500, :500], MPP, (1,))
    for x in (0, 300):
        for y in (0, 300):
            damage_tile(path, 0, x, y)
    found = model.predict_slide(path)
    assert len(found.failed) == 25
    assert found.predicted == 0
    assert found.words.startswith("no tile of the tissue found could be read")


def glue_photograph(picture: np.ndarray, folder: Path) -> Path:
    """A slide of the picture, with a photograph over two tiles of tumour."""
    glued = picture.copy()
    photograph = Image.fromarray(chelsea()).resize((2 * SIDE, SIDE), Image.Resampling.BOX)
    glued[4 * SIDE : 5 * SIDE, 5 * SIDE : 7 * SIDE] = np.asarray(photograph)
    return write_slide(folder / "glued.tif", glued, MPP)


def test_unsuitable_tiles_are_left_out_counted_and_kept(
    model: BCDClassifier, light_model: BCDClassifier, picture: np.ndarray, tmp_path: Path
) -> None:
    """A second run takes both from the journal."""
    slide = glue_photograph(picture, tmp_path)
    judged = model.__copy__()
    judged.config = model.config.model_copy(update={"suitability": light_model.suitability})
    with pytest.raises(Enough):
        judged.predict_slide(slide, out=tmp_path, progress=stop_after(1))
    found, whole = judged.predict_slide(slide, out=tmp_path), model.predict_slide(slide)
    left_out = {(tile.row, tile.column) for tile in found.unsuitable}
    assert {(4, 5), (4, 6)} <= left_out
    assert len(left_out) <= 4
    assert whole.unsuitable == ()
    assert np.isnan([found.probabilities[cell] for cell in left_out]).all()
    assert found.predicted == whole.predicted - len(left_out)
    summary = json.loads((tmp_path / "glued-telling.json").read_text())
    assert sum(summary["tiles"]["unsuitable"].values()) == len(left_out)
    rows = pq.read_table(tmp_path / "glued-telling.parquet").to_pylist()
    named = {(row["row"], row["column"]) for row in rows if row["unsuitable"]}
    assert named == left_out
    assert {row["decision"] for row in rows if row["unsuitable"]} == {None}
    marks = np.asarray(colours(found))[4 * 8 : 5 * 8, 5 * 8 : 7 * 8]
    assert (marks[marks[..., 3] > 0] == (*LEFT_OUT, 255)).all()  # struck through, nothing else
    assert 0 < (marks[..., 3] > 0).mean() < 0.5


def test_unsuitable_tiles_are_counted_all_the_same_where_asked_and_named(
    model: BCDClassifier, light_model: BCDClassifier, picture: np.ndarray, tmp_path: Path
) -> None:
    """By the command; the journal of a run that left them out goes on all the same."""
    slide = glue_photograph(picture, tmp_path)
    judged = model.__copy__()
    judged.config = model.config.model_copy(update={"suitability": light_model.suitability})
    judged.save_pretrained(tmp_path / "telling")
    with pytest.raises(Enough):
        judged.predict_slide(slide, out=tmp_path, progress=stop_after(1))
    command = ("slide", slide, "--model", tmp_path / "telling", "--out", tmp_path)
    done = bcd(*command, "--suitability", "ignore")
    assert done.returncode == 0, done.stderr
    assert "all the same: drawn or photographed, not tissue" in done.stdout
    summary = json.loads((tmp_path / "glued-telling.json").read_text())["tiles"]
    assert summary["predicted"] == summary["tissue"]
    assert summary["unsuitable"] == {}
    assert sum(summary["ignored"].values()) >= 2
    rows = pq.read_table(tmp_path / "glued-telling.parquet").to_pylist()
    ignored = [row for row in rows if row["ignored"]]
    assert {(4, 5), (4, 6)} <= {(row["row"], row["column"]) for row in ignored}
    assert all(row["decision"] and not row["unsuitable"] for row in ignored)
    regions = json.loads((tmp_path / "glued-telling.geojson").read_text())["features"]
    told = "Unsuitable tiles counted all the same"
    assert all("drawn or photographed" in one["properties"]["metadata"][told] for one in regions)
    assert bcd(*command).returncode == 0
    left_out = json.loads((tmp_path / "glued-telling.json").read_text())["tiles"]
    assert left_out["unsuitable"] == summary["ignored"]
    assert left_out["predicted"] == summary["predicted"] - sum(summary["ignored"].values())


def test_a_slide_of_mostly_unsuitable_tissue_says_so(found: SlidePrediction) -> None:
    cells = np.argwhere(found.tissue).tolist()
    some = tuple(UnsuitableTile(*cell, "out of focus") for cell in cells[: len(cells) // 2 + 1])
    blurred = replace(found, unsuitable=some)
    assert f"{len(some)} of {len(cells)} tiles look unsuitable and are left out" in blurred.words
    assert "unsuitable" not in replace(found, unsuitable=some[:2]).words


def test_an_ensemble_answers_too(
    model: BCDClassifier, slide: Path, at_4_um: np.ndarray, found: SlidePrediction
) -> None:
    other = telling_model("other")
    config = EnsembleConfig(name="both", version="1", members=("telling", "other"))
    other.network.classifier.bias.data += 0.05
    both = BCDEnsemble(config, [model, other])
    both.runtime = "torch"
    answer = both.predict_slide(slide)
    cell = (4, 5)
    expected = both.predict_proba([tile_of(at_4_um, *cell, side=50)])
    assert answer.probabilities[cell] == pytest.approx(expected[0], abs=1e-4)
    wider = other.config.preprocess.model_copy(update={"field_width_um": 300.0})
    other.config = other.config.model_copy(update={"preprocess": wider})
    with pytest.raises(InputError, match="fields differ \\(200, 300 micrometres\\)"):
        both.predict_slide(slide)


@dataclass(frozen=True)
class GreenModel:
    """A model of numpy alone: the less green a tile is, the more malignant."""

    config: SimpleNamespace
    field_um: float = 200.0
    mpp: float = 4.0
    weights_sha256: str = "0" * 64

    def margins_of(self, tiles: np.ndarray) -> np.ndarray:
        return 1 - tiles[..., 1].mean((1, 2)) / 128


def test_any_object_with_the_members_is_mapped(
    slide: Path, at_4_um: np.ndarray, found: SlidePrediction, tmp_path: Path
) -> None:
    config = SimpleNamespace(name="green", version="3", for_tiles=DecisionConfig())
    answer = predict_slide(GreenModel(config), slide, out=tmp_path)
    assert (answer.tissue == found.tissue).all()
    cell = (4, 5)
    tile = np.asarray(tile_of(at_4_um, *cell, side=50))
    margin = 1 - tile[..., 1].mean() / 128
    assert answer.probabilities[cell] == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-3)
    assert (answer.model, answer.model_version) == ("green", "3")
    assert {path.stem for path in tmp_path.iterdir()} == {"drawn-green"}


def test_slides_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom bcd_models.slides import output, predict"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_files_hold(
    model: BCDClassifier, slide: Path, found: SlidePrediction, tmp_path: Path
) -> None:
    answer = model.predict_slide(slide, out=tmp_path / "deep" / "out", batch=7)
    np.testing.assert_allclose(answer.probabilities, found.probabilities, atol=1e-4)
    names = {path.name for path in (tmp_path / "deep" / "out").iterdir()}
    assert names == {f"drawn-telling{kind}" for kind in (".png", ".geojson", ".parquet", ".json")}
    stem = tmp_path / "deep" / "out" / "drawn-telling"
    summary = json.loads(stem.with_suffix(".json").read_text())
    assert summary["notice"] == NOTICE
    assert summary["words"].startswith(f"{WORDS['malignant']} in ")
    assert summary["model"]["weights_sha256"] == model.weights_sha256
    assert summary["slide"]["mpp_x"] == MPP
    assert summary["tissue"]["area_mm2"] == pytest.approx(140 * 0.04)
    decisions = summary["decisions"]
    assert sum(one["tiles"] for one in decisions.values()) == 140
    assert sum(one["share_of_predicted"] for one in decisions.values()) == pytest.approx(1)
    largest = summary["top_regions"][0]
    assert largest["tiles"] >= 16
    assert (largest["x"], largest["y"]) == pytest.approx((400, 300), abs=SIDE)
    table = pq.read_table(stem.with_suffix(".parquet"))
    assert table.schema.metadata[b"notice"].decode() == NOTICE
    for tile in table.to_pylist():
        assert (tile["x"], tile["y"]) == (tile["column"] * SIDE, tile["row"] * SIDE)
        assert tile["width"] == tile["height"] == SIDE
        probability = tile["probability"]
        assert probability == answer.probabilities[tile["row"], tile["column"]]
        assert tile["label"] == ("malignant" if probability >= 0.5 else "benign")
        assert tile["decision"] == ("refer" if 0.45 <= probability <= 0.55 else tile["label"])
    heat = open_image(stem.with_suffix(".png"))
    assert heat.width > 18 * 8
    pixels = np.asarray(heat)
    assert (pixels[16 + 4 * 32 + 5, 16 + 5 * 32 + 5] != pixels[16, 16]).any()


def test_regions_are_what_qupath_reads(
    model: BCDClassifier, slide: Path, found: SlidePrediction, tmp_path: Path
) -> None:
    """QuPath's own names: see its QuPathTypeAdapters."""
    write(found, tmp_path)
    document = json.loads((tmp_path / "drawn-telling.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    area = {WORDS["malignant"]: 0.0, WORDS["refer"]: 0.0}
    for feature in document["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        properties = feature["properties"]
        assert properties["objectType"] == "annotation"
        name = properties["classification"]["name"]
        assert all(type(c) is int and 0 <= c <= 255 for c in properties["classification"]["color"])
        assert all(isinstance(v, (int, float)) for v in properties["measurements"].values())
        assert all(isinstance(v, str) for v in properties["metadata"].values())
        rings = feature["geometry"]["coordinates"]
        assert all(ring[0] == ring[-1] for ring in rings)
        inside = sum(map(signed_area, rings))
        assert inside == properties["measurements"]["Tiles"] * SIDE**2
        area[name] += inside
    for decision in ("malignant", "refer"):
        assert area[WORDS[decision]] == found.tiles(decision) * SIDE**2


def test_regions_are_placed_where_qupath_shows_them(found: SlidePrediction, tmp_path: Path) -> None:
    """QuPath cuts a slide to its bounds."""
    moved = replace(
        found,
        facts=replace(found.facts, bounds=(1000, 50, 1800, 1400)),
        grid=replace(found.grid, left=1000, top=50),
    )
    assert build_geojson(moved) == build_geojson(found)


def signed_area(ring: list[Any]) -> float:
    return sum(x * v - u * y for (x, y), (u, v) in pairwise(ring)) / 2


def test_a_ring_round_a_hole() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], bool)
    first, second = regions_of(mask)
    assert [len(region.cells) for region in (first, second)] == [8, 1]
    outer, hole = outline(first)
    assert outer == [(0, 0), (3, 0), (3, 3), (0, 3), (0, 0)]
    assert sorted(hole[1:]) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert signed_area(hole) == -1


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_outlines_enclose_what_they_should(mask: np.ndarray) -> None:
    regions = regions_of(mask)
    again = np.zeros_like(mask)
    for region in regions:
        again[region.cells[:, 0], region.cells[:, 1]] = True
        outer, *holes = outline(region)
        assert signed_area(outer) > 0
        assert all(signed_area(hole) < 0 for hole in holes)
        assert sum(map(signed_area, (outer, *holes))) == len(region.cells)
        for ring in (outer, *holes):
            assert ring[0] == ring[-1]
            assert len(set(ring[1:])) == len(ring) - 1
        assert Polygon(outer, holes).is_valid
    assert (again == mask).all()
    assert sum(len(region.cells) for region in regions) == mask.sum()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of three blocks, all tissue."""
    fields = draw_layout(np.full((16, 16), BENIGN), 4.0, seed=5)
    image = np.tile(fields, (1, 3, 1))
    return write_slide(tmp_path_factory.mktemp("large") / "large.tif", image, 4.0, (1, 4))


def killed_run(slide: Path, telling: Path, out: Path) -> Path:
    """Kill ``bcd slide`` once it has finished a block; its journal."""
    journal = out / f"{slide.stem}-telling.unfinished"
    command = [*COMMAND, "slide", slide, "--model", telling, "--out", out, "--batch", "4"]
    with running(command, signal.SIGKILL, stderr=subprocess.PIPE) as mapping:
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            assert mapping.poll() is None, mapping.stderr.read()
            time.sleep(0.005)
    assert mapping.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == [journal.name]
    return journal


@pytest.mark.slow
def test_a_killed_run_goes_on(
    large: Path, telling: Path, model: BCDClassifier, tmp_path: Path
) -> None:
    journal = killed_run(large, telling, tmp_path)
    with journal.open("ab") as file:
        file.write(b'{"row": 16, "column": 16, "rows": 16, "col')  # as a kill may leave it
    seen: list[tuple[int, int]] = []
    found = model.predict_slide(large, out=tmp_path, progress=lambda *now: seen.append(now))
    assert 256 <= seen[0][0] < 16 * 48
    assert seen[-1] == (16 * 48, 16 * 48)
    assert not journal.exists()
    fresh = model.predict_slide(large)
    np.testing.assert_allclose(found.probabilities, fresh.probabilities, atol=1e-4)
    assert not np.isnan(found.probabilities).any()


class Enough(Exception):
    """Ends a run from its progress callback."""


def stop_after(blocks: int) -> Callable[[int, int], None]:
    calls: list[int] = []

    def progress(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) > blocks:
            raise Enough(calls[0])

    return progress


def test_another_runs_journal_is_refused(
    large: Path, slide: Path, model: BCDClassifier, tmp_path: Path
) -> None:
    with pytest.raises(Enough):
        model.predict_slide(large, out=tmp_path, progress=stop_after(1))
    journal = tmp_path / "large-telling.unfinished"
    with pytest.raises(Enough, match="256"):  # this very run goes on
        model.predict_slide(large, out=tmp_path, progress=stop_after(0))
    copy = tmp_path / "copy" / "large.tif"
    copy.parent.mkdir()
    shutil.copy(slide, copy)
    with pytest.raises(InputError, match=r"another slide, or the slide has changed.*delete that"):
        model.predict_slide(copy, out=tmp_path)
    with pytest.raises(InputError, match="the slide has changed"):
        model.predict_slide(large, out=tmp_path, mpp=3.9)
    other = telling_model()
    other.network.classifier.bias.data += 1
    with pytest.raises(InputError, match="another model"):
        other.predict_slide(large, out=tmp_path)
    journal.write_bytes(b'{"format": 1')  # cut short in its first line: nothing is lost
    with pytest.raises(Enough, match="0"):
        model.predict_slide(large, out=tmp_path, progress=stop_after(0))


def test_the_command(slide: Path, telling: Path, tmp_path: Path) -> None:
    done = bcd("slide", slide, "--model", telling, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{NOTICE}\n"
    assert "generic-tiff, 1,800 x 1,400 pixels, 2 x 2 um a pixel" in done.stdout
    assert f"{WORDS['malignant']} in " in done.stdout
    for path in (tmp_path / "out").iterdir():
        assert str(path) in done.stdout
    assert "diagnos" not in done.stdout


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    progress = ProgressLine()
    for done in (256, 257, 300):
        progress(done, 300)
    progress.end()
    shown = capsys.readouterr().err
    assert ("predicting 300 of 300 tiles, 100%" in shown) == shown.endswith("\n") == terminal
    assert terminal or not shown


def test_a_slide_that_is_gone_halfway(
    model: BCDClassifier, slide: Path, found: SlidePrediction, tmp_path: Path
) -> None:
    path = tmp_path / "s.tif"
    shutil.copy(slide, path)
    facts = read_facts(path)
    reader = SlideReader(facts)
    area = found.grid.area(Block(5, 5, 1, 1))
    path.unlink()
    for _ in range(2):
        with pytest.raises(ImageError, match="no such file"):
            reader.read(area, 1, (50, 50))
    shutil.copy(slide, path)
    assert reader.read(area, 1, (50, 50)).shape == (50, 50, 3)
    reader.close()


def test_a_model_that_gives_no_number_is_told(
    model: BCDClassifier, slide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BCDClassifier, "margins_of", lambda _, tiles: np.full(len(tiles), math.nan))
    found = model.predict_slide(slide)
    assert len(found.failed) == found.tissue.sum()
    assert {tile.reason for tile in found.failed} == {"the model gave no number"}


def test_bad_usage_is_one_line(slide: Path, telling: Path, tmp_path: Path) -> None:
    text(tmp_path / "s.svs", slide)
    done = bcd("slide", tmp_path / "s.svs", "--model", telling, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 2000, 16_000])
def test_a_full_disk_is_told(
    model: BCDClassifier, slide: Path, found: SlidePrediction, tmp_path: Path, size: int
) -> None:
    """Refused while the journal is begun, while it grows, and while the results are written."""
    with pytest.raises(InputError, match="can't be written: File too large"):
        with files_of_at_most(size):
            model.predict_slide(slide, out=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]
    again = model.predict_slide(slide, out=tmp_path)
    np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-4)


def test_where_nothing_may_be_written(model: BCDClassifier, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written: "):
        model.predict_slide(slide, out=tmp_path / "file")
    with pytest.raises(InputError, match="a batch of 0 tiles"):
        model.predict_slide(slide, batch=0)
