"""Images at a known scale become tiles of the trained field; nothing is squashed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import nullcontext
from copy import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bcd_models import BCDClassifier
from bcd_models.decision import log_odds
from bcd_models.errors import ImageError, InputError
from bcd_models.images.field import TRAINED, UNKNOWN, cut_field, plan_layout
from bcd_models.images.scale import Scale, give_scale
from bcd_models.models.predictor import MAX_TILES_AT_ONCE
from bcd_models.slides.grid import plan_grid
from bcd_models.slides.slide_file import read_facts
from tests.support import synthetic
from tests.support.slides import write_slide

MPP, FIELD = 4.0, 200.0
SIDE = 50


def layout(width: int, height: int, mpp: float | None = None):
    return plan_layout((width, height), None if mpp is None else give_scale(mpp), MPP, FIELD)


@pytest.mark.parametrize("side", [40, 50, 60])
def test_the_training_patches_size_is_taken_as_their_scale(side: int) -> None:
    laid = layout(side, side)
    assert (laid.mpp, laid.source, laid.reasons) == (MPP, TRAINED, ())
    assert (laid.rows, laid.columns) == (1, 1)


@pytest.mark.parametrize("size", [(39, 50), (50, 61), (224, 224), (700, 460), (50, 100)])
def test_any_other_size_needs_a_scale(size: tuple[int, int]) -> None:
    laid = layout(*size)
    assert laid.mpp is None
    assert laid.source == UNKNOWN
    assert "scale is unknown" in laid.reasons[0]
    assert "micrometres a pixel" in laid.reasons[0]


def test_a_small_field_and_a_coarse_scale_are_told() -> None:
    assert layout(300, 300, 0.51).reasons == ()
    assert "three quarters" in layout(300, 290, 0.51).reasons[0]
    assert "too coarse" in layout(300, 300, 6.1).reasons[0]
    assert layout(50, 50, 5.9).reasons == ()


@pytest.mark.parametrize("trained", [1.0, 2.0, 4.0])
def test_too_coarse_is_the_same_of_images_and_slides(trained: float, tmp_path: Path) -> None:
    pixels = np.full((300, 300, 3), 255, np.uint8)
    for mpp, is_coarse in ((1.49 * trained, False), (1.51 * trained, True)):
        reasons = plan_layout((300, 300), give_scale(mpp), trained, FIELD).reasons
        assert is_coarse == any("too coarse" in reason for reason in reasons)
        facts = read_facts(write_slide(tmp_path / f"{mpp}.tif", pixels, mpp))
        with pytest.raises(ImageError, match="enlarged") if is_coarse else nullcontext():
            plan_grid(facts, FIELD, trained)


@pytest.mark.parametrize(
    ("width", "height", "mpp", "rows", "columns"),
    [
        (50, 50, 4, 1, 1),
        (62, 38, 4, 1, 1),
        (63, 50, 4, 1, 2),
        (4000, 4000, 0.5, 10, 10),
        (700, 460, 0.9, 2, 3),
        (2000, 200, 1, 1, 10),
    ],
)
def test_a_grid_covers_the_image(
    width: int, height: int, mpp: float, rows: int, columns: int
) -> None:
    laid = layout(width, height, mpp)
    assert (laid.rows, laid.columns) == (rows, columns)
    for side, count in zip(laid.reduced, (columns, rows), strict=True):
        assert -0.75 * SIDE <= side - count * SIDE <= 0.25 * SIDE + 1e-9


def test_more_tiles_than_can_be_answered_for_are_refused() -> None:
    assert layout(7000, 7000, 4).rows == 140
    with pytest.raises(ImageError, match="44,100 tiles"):
        layout(7000, 7000, 6)


@pytest.mark.parametrize(
    ("size", "mpp"), [((16, 60_000), None), ((2000, 2000), 20), ((400, 9), 20)]
)
def test_of_an_image_without_a_usable_scale_the_middle_is_looked_at(
    size: tuple[int, int], mpp: float | None
) -> None:
    laid = layout(*size, mpp)
    pixels = np.full((size[1], size[0], 3), 200, np.uint8)
    assert len(cut_field(pixels, laid).tiles) == 1
    heat = cut_field(pixels, laid).lay_out([np.ones((SIDE, SIDE), np.float32)])
    left, top, width, height = laid.window
    assert heat.shape == size[::-1]
    assert heat.sum() == heat[top : top + height, left : left + width].sum() > 0


def test_no_map_lies_where_nothing_was_looked_at() -> None:
    pixels = np.full((60, 60, 3), 200, np.uint8)
    heat = cut_field(pixels, layout(60, 60)).lay_out([np.ones((SIDE, SIDE), np.float32)])
    assert heat.sum() == SIDE**2
    assert heat[5:55, 5:55].all()


def test_a_patch_at_the_trained_scale_is_shown_as_it_is(patches: list[Image.Image]) -> None:
    pixels = np.array(patches[1])
    field = cut_field(pixels, layout(SIDE, SIDE))
    assert np.array_equal(field.tiles, pixels[None])


def test_tiles_of_a_field_are_its_very_pixels() -> None:
    kinds = [["malignant", "benign", "malignant"], ["benign", "malignant", "benign"]]
    drawn = [[synthetic.patch(kind, seed=i) for i, kind in enumerate(row)] for row in kinds]
    pixels = np.vstack([np.hstack(row) for row in drawn])
    field = cut_field(pixels, layout(150, 100, MPP))
    expected = [tile for row in drawn for tile in row]
    assert field.shown.all()
    assert np.array_equal(field.tiles, expected)
    one, other = (np.full((SIDE, SIDE), value, np.float32) for value in (0.25, 1))
    heat = field.lay_out([one, other] * 3)
    assert heat.shape == (100, 150)
    assert (heat[:SIDE, :SIDE] == 0.25).all()
    assert (heat[SIDE:, :SIDE] == 1).all()


def test_what_lies_beyond_the_edge_is_reflected_and_alike_at_both_ends() -> None:
    pixels = synthetic.patch("malignant", seed=3)[:44, :38]
    (tile,) = cut_field(pixels, layout(38, 44, MPP)).tiles
    assert np.array_equal(tile[3:47, 6:44], pixels)
    assert np.array_equal(tile[3:47, 5], pixels[:, 1])
    assert np.array_equal(tile[3:47, 44], pixels[:, -2])


def test_the_middle_of_a_slightly_larger_image_is_shown() -> None:
    pixels = synthetic.patch("malignant", seed=3)
    wide = np.pad(pixels, ((4, 6), (5, 5), (0, 0)), mode="edge")
    (tile,) = cut_field(wide, layout(60, 60)).tiles
    assert np.array_equal(tile, wide[5:55, 5:55])


def test_grids_turn_with_the_image() -> None:
    rng = np.random.default_rng(0)
    pixels = np.array(Image.fromarray(synthetic.patch("malignant", seed=1)).resize((180, 130)))
    pixels = pixels - rng.integers(0, 9, pixels.shape, dtype=np.uint8)
    tiles = cut_field(pixels, layout(180, 130, 4)).tiles
    turned = cut_field(np.rot90(pixels, 2).copy(), layout(180, 130, 4)).tiles
    assert np.array_equal(tiles, np.rot90(turned[::-1], 2, (1, 2)))


def test_tiles_without_tissue_are_left_out_unless_there_is_none() -> None:
    glass = np.full((200, 200, 3), 244, np.uint8)
    empty = cut_field(glass, layout(200, 200, MPP))
    assert empty.shown.sum() == len(empty.tiles) == 1
    assert "tissue" in empty.reasons[0]
    glass[50:100, 100:150] = synthetic.patch("malignant", seed=1)
    one = cut_field(glass, layout(200, 200, MPP))
    assert np.argwhere(one.shown).tolist() == [[1, 2]]
    assert one.reasons == ()


def test_too_little_tissue_is_told_from_none() -> None:
    """The tile that shows most of it stands for the field, and the reason says so."""
    field = np.full((200, 200, 3), 244, np.uint8)
    field[0:13, 150:163] = synthetic.patch("malignant", seed=1)[:13, :13]
    field[60:66, 60:66] = synthetic.patch("malignant", seed=1)[:6, :6]
    little = cut_field(field, layout(200, 200, MPP))
    assert np.argwhere(little.shown).tolist() == [[0, 3]]
    assert not little.has_tissue
    assert little.reasons[0].startswith("too little H&E-stained tissue was found, at most 6%")
    none = cut_field(np.full((200, 200, 3), 244, np.uint8), layout(200, 200, MPP))
    assert np.argwhere(none.shown).tolist() == [[2, 2]]
    assert none.reasons[0].startswith("no H&E-stained tissue was found")


def test_what_was_not_looked_at_stays_as_it_is(light_model: BCDClassifier) -> None:
    """A tile of glass, and what lies beyond the tiles; at a scale at which the map is enlarged."""
    patch = synthetic.patch("malignant", seed=3)
    field = np.pad(np.hstack([patch, np.full_like(patch, 244), patch]), ((4, 4), (0, 0), (0, 0)))
    image = Image.fromarray(np.repeat(np.repeat(field, 2, 0), 2, 1))
    explained = light_model.explain(image, mpp=MPP / 2, label="benign")
    seen = np.zeros((116, 300), bool)
    seen[8:108, :100] = seen[8:108, 200:] = True
    assert np.array_equal(explained.seen, seen)
    assert np.array_equal(np.asarray(explained.coloured())[..., 3], np.where(seen, 255, 0))
    changed = (np.asarray(explained.overlay(1)) != np.asarray(image)).any(2)
    assert not changed[~seen].any()
    assert changed[seen].all()


def test_pixels_need_not_be_square() -> None:
    pixels = synthetic.patch("malignant", seed=1)
    stretched = np.repeat(np.repeat(pixels, 4, 0), 2, 1)
    laid = plan_layout((100, 200), Scale(2.0, 1.0, "TIFF resolution"), MPP, FIELD)
    assert laid.mpp == 1.5
    assert np.array_equal(cut_field(stretched, laid).tiles, pixels[None])


def test_enlarged_patches_are_brought_back(light_model: BCDClassifier) -> None:
    pixels = synthetic.patch("malignant", seed=1)
    expected = light_model.predict(pixels)
    for times in (2, 4, 9):
        large = np.repeat(np.repeat(pixels, times, 0), times, 1)
        again = light_model.predict(large, mpp=MPP / times)
        assert again.probability == pytest.approx(expected.probability, abs=1e-6)
        assert again.scale == "given"
        unknown = light_model.predict(large)
        assert unknown.decision == "refer"
        assert "scale is unknown" in unknown.reasons[0]


def test_a_large_field_is_answered_tile_by_tile(light_model: BCDClassifier) -> None:
    kinds = ["malignant", "benign", "malignant"]
    tiles = [synthetic.patch(kind, seed=i) for i, kind in enumerate(kinds, 2)]
    alone = [light_model.predict(tile).probability for tile in tiles]
    field = np.hstack(tiles)
    answer = light_model.predict(field, mpp=MPP)
    assert answer.tile_probabilities == (pytest.approx(alone, abs=1e-6),)
    assert answer.probability == pytest.approx(max(alone), abs=1e-6)
    assert answer.tiles == 3
    assert answer.share == pytest.approx(2 / 3)
    explained = light_model.explain(field, mpp=MPP, label="malignant")
    assert explained.prediction.tiles == answer.tiles
    maps = [light_model.explain(tile, label="malignant").heatmap for tile in tiles]
    assert np.allclose(explained.heatmap, np.hstack(maps), atol=1e-5)


@pytest.fixture
def of_four_views(light_model: BCDClassifier) -> Iterator[BCDClassifier]:
    """The model with four views of an image, and a rule of its own for tiles."""
    before = light_model.config
    patches = before.decision.model_copy(update={"views": 4})
    tiles = before.decision.model_copy(update={"slope": 0.5, "threshold": 0.4})
    changes = {"decision": patches, "tile_decision": tiles}
    light_model.config = before.model_copy(update=changes)
    yield light_model
    light_model.config = before


def test_a_patch_is_seen_four_times_and_a_tile_once(of_four_views: BCDClassifier) -> None:
    model = of_four_views
    tiles = [synthetic.patch("malignant", seed=seed) for seed in (2, 3)]
    turned = [np.rot90(tiles[0], quarter).copy() for quarter in range(4)]
    alike = model.predict_proba(turned)  # but for Pillow, which resizes row by row first
    assert alike == pytest.approx(alike[0], abs=0.005)
    ones = model.predict(tiles, views=1)
    assert {one.threshold for one in ones} == {0.4}
    field = model.predict(np.hstack(tiles), mpp=MPP)
    assert field.threshold == 0.4
    assert field.tile_probabilities == (pytest.approx([one.probability for one in ones], abs=1e-6),)
    once = [one.probability for one in model.predict(turned, views=1)]
    assert max(once) - min(once) > 0.01
    rule = model.config.decision  # of the same intercept as that of tiles
    margin = np.mean(log_odds(once) - rule.intercept) / 0.5
    assert log_odds(model.predict(tiles[0]).probability) == pytest.approx(
        rule.slope * margin + rule.intercept, abs=0.05
    )
    mixed = model.predict([tiles[0], np.hstack(tiles), tiles[1]], mpp=MPP)
    assert mixed[1].tile_probabilities == field.tile_probabilities
    assert mixed[2] == model.predict(tiles[1], mpp=MPP)


def test_a_tile_leans_on_its_neighbours_where_the_rule_says_so(
    of_four_views: BCDClassifier,
) -> None:
    model = of_four_views
    pixels = np.hstack([synthetic.patch(kind, seed=5) for kind in ("benign", "malignant")])
    apart = log_odds(model.predict(pixels, mpp=MPP).tile_probabilities[0])
    rule = model.config.for_tiles.model_copy(update={"context": 1.0})
    model.config = model.config.model_copy(update={"tile_decision": rule})
    together = log_odds(model.predict(pixels, mpp=MPP).tile_probabilities[0])
    share = np.exp(-0.5) / (1 + np.exp(-0.5))  # of the neighbour's margin, by the Gaussian
    assert together == pytest.approx((1 - share) * apart + share * apart[::-1], abs=1e-6)


def test_a_point_that_is_not_there_costs_no_pass(
    of_four_views: BCDClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_four_views, "compute_margins", None)
    field = np.tile(synthetic.patch("malignant", seed=1), (9, 9, 1))  # of more than one batch
    for pixels in (field, field[:50, :50]):
        with pytest.raises(InputError, match="no operating point 'none'"):
            of_four_views.predict(pixels, mpp=MPP, point="none")


def test_one_view_is_refused_where_several_alone_are_calibrated(
    of_four_views: BCDClassifier,
) -> None:
    of_four_views.config = of_four_views.config.model_copy(update={"tile_decision": None})
    with pytest.raises(InputError, match="calibrated for 4 views alone"):
        of_four_views.predict(synthetic.patch("benign", seed=1), views=1)


def test_a_scale_for_each_image_or_for_all(light_model: BCDClassifier) -> None:
    pixels = synthetic.patch("benign", seed=1)
    large = np.repeat(np.repeat(pixels, 4, 0), 4, 1)
    shown = [pixels, large, large]  # the last one's tiles out of focus
    answers = light_model.predict(shown, mpp=[None, 1, 2], suitability="ignore")
    assert [answer.mpp for answer in answers] == [4, 1, 2]
    assert answers[0].probability == pytest.approx(answers[1].probability, abs=1e-6)
    assert [answer.tiles for answer in answers] == [1, 1, 4]
    assert all(one.mpp == 1 for one in light_model.predict([large, large], mpp=1))
    explained = [e for _, e in light_model.explanations([large, large], mpp=[1, 2])]
    for one, mpp in zip(explained, (1, 2), strict=True):
        alone = light_model.predict(large, mpp=mpp)
        assert one.prediction.mpp == mpp
        assert one.prediction.probability == pytest.approx(alone.probability, abs=1e-6)
    for one, other in pairwise(explained):
        assert one.heatmap.shape == other.heatmap.shape == (200, 200)
    with pytest.raises(InputError, match=r"0\.001 micrometres"):
        light_model.predict(pixels, mpp=0.001)
    with pytest.raises(InputError, match="must be a number"):
        light_model.predict(pixels, mpp=[1])
    with pytest.raises(InputError, match="1 scales for 2 images"):
        light_model.predict([pixels, pixels], mpp=[1])


def test_the_colour_of_glass_is_divided_out_where_the_model_says_so(
    light_model: BCDClassifier, tmp_path: Path
) -> None:
    trained = light_model.config.preprocess.model_copy(update={"white_point": True})
    model = copy(light_model)
    model.config = light_model.config.model_copy(update={"preprocess": trained})
    field = np.full((400, 400, 3), 255, np.uint8)
    field[50:100, 50:100] = synthetic.patch("malignant", seed=1)
    tinted = np.rint(field * np.array([0.95, 0.9, 0.82])).astype(np.uint8)
    expected = light_model.predict(field, mpp=MPP).probability
    assert model.predict(tinted, mpp=MPP).probability == pytest.approx(expected, abs=0.02)
    assert light_model.predict(tinted, mpp=MPP).probability != pytest.approx(expected, abs=0.02)
    slides = (write_slide(tmp_path / f"{i}.tif", x, MPP) for i, x in enumerate((field, tinted)))
    plain, warm = (model.predict_slide(slide).probabilities[1, 1] for slide in slides)
    assert warm == pytest.approx(plain, abs=0.02)


def test_many_tiles_are_answered_for_as_the_image_is_opened(light_model: BCDClassifier) -> None:
    kinds = ("malignant", "benign")
    rows = [[synthetic.patch(kinds[(r + c) % 2], seed=r) for c in range(9)] for r in range(9)]
    field = np.vstack([np.hstack(row) for row in rows])
    assert MAX_TILES_AT_ONCE < 9 * 9
    alone = [light_model.predict(tile).probability for row in rows for tile in row]
    for answer in (light_model.predict(field, mpp=MPP), *light_model.predict([field] * 2, mpp=MPP)):
        by_tile = [p for row in answer.tile_probabilities for p in row]
        assert by_tile == pytest.approx(alone, abs=1e-5)


def test_a_pil_image_may_be_handed_in_several_times(
    light_model: BCDClassifier, patch_file: Path
) -> None:
    with Image.open(patch_file) as image:
        answers = light_model.predict([image] * 5, mpp=MPP)
    assert len({answer.probability for answer in answers}) == 1


def test_what_is_no_scale_is_refused(light_model: BCDClassifier) -> None:
    pixels = synthetic.patch("benign", seed=1)
    for wrong in ("4", True, float("nan"), 4 + 0j):
        with pytest.raises(InputError):
            light_model.predict(pixels, mpp=wrong)


def test_files_that_give_nothing_cost_themselves_alone(light_model: BCDClassifier) -> None:
    pixels = synthetic.patch("benign", seed=1)
    closed = io.BytesIO(b"")
    closed.close()
    text = io.StringIO("space/examples/synthetic-malignant-1.png")
    found = [answer for _, answer in light_model.explanations([pixels, closed, text, pixels])]
    assert [isinstance(answer, ImageError) for answer in found] == [False, True, True, False]
