"""What is no H&E-stained tissue is referred, whatever the model says; tissue is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from bcd_models import BCDClassifier, BCDEnsemble
from bcd_models.errors import InputError
from bcd_models.images.suitability import NUMBERS, WORDS, measure_tiles
from bcd_models.local import degradations as d
from bcd_models.models.ensemble import EnsembleConfig
from tests.support import synthetic

Pixels = NDArray[np.uint8]
RNG = np.random.default_rng(0)


def patch_of(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).convert("RGB").resize((50, 50)))


def grey_noise(side: int) -> Pixels:
    """Noise of one signal about the colour of eosin, in squares of some pixels."""
    values = RNG.normal(0, 20, (17, 17) if side == 3 else (51, 51)).repeat(side, 0).repeat(side, 1)
    return (np.array((220, 150, 190)) + values[:50, :50, None]).clip(0, 255).astype(np.uint8)


def mark(ink: tuple[int, int, int]) -> Pixels:
    """Tissue under a stroke of ink, 60 micrometres wide."""
    patch = TISSUE[1].astype(float)
    patch[15:30] *= np.array(ink) / 255
    return patch.astype(np.uint8)


CAT = patch_of(data.chelsea())
TISSUE = [synthetic.patch(kind, seed) for seed in range(10) for kind in synthetic.KINDS]


@pytest.mark.parametrize(
    "degrade",
    [
        lambda p: p,
        lambda p: d.compress_as_jpeg(p, 40, "4:2:0"),
        lambda p: d.compress_as_webp(p, 75),
        lambda p: d.blur(p, 1.2),
        lambda p: d.add_noise(p, 10, np.random.default_rng(0)),
        lambda p: d.shift_hue(p, 0.05),
        lambda p: d.shift_hue(p, -0.03),
        lambda p: d.scale_brightness(p, 0.8),
        lambda p: d.scale_stains(p, 0.8, 1.2),
        lambda p: np.ascontiguousarray(np.rot90(p)),
    ],
)
def test_tissue_is_answered_clean_and_degraded(
    light_model: BCDClassifier, degrade: Callable[[Pixels], Pixels]
) -> None:
    answers = light_model.predict([degrade(patch) for patch in TISSUE])
    assert sum(bool(answer.findings) for answer in answers) <= 1


@pytest.mark.parametrize("name", ["chelsea", "coffee", "text", "astronaut", "immunohistochemistry"])
def test_photographs_documents_and_other_stains_are_referred(
    model: BCDClassifier, name: str
) -> None:
    answer = model.predict(patch_of(getattr(data, name)()))
    assert answer.decision == "refer"
    assert [WORDS[finding.name] in answer.reasons[0] for finding in answer.findings] == [True]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("flat", np.full((50, 50, 3), (222, 160, 200), np.uint8)),
        ("flat", np.full((50, 50, 3), 255, np.uint8)),
        ("glass", np.where(np.mgrid[:50, :50][0][..., None] < 49, 250, TISSUE[0]).astype(np.uint8)),
        ("grey", np.repeat(TISSUE[0].mean(2, keepdims=True), 3, axis=2).astype(np.uint8)),
        ("stain", 255 - TISSUE[0]),
        ("stain", d.stain_brown(TISSUE[0], 0.8, 1.2)),
        ("picture", CAT),
        ("noise", RNG.integers(256, size=(50, 50, 3), dtype=np.uint8)),
        ("noise", grey_noise(1)),
        ("noise", grey_noise(3)),
        ("dark", (TISSUE[1] * 0.1).astype(np.uint8)),
        *(("pen", mark(ink)) for ink in ((40, 60, 200), (40, 140, 70), (25, 25, 30))),
        ("focus", d.blur(TISSUE[1], 2.5)),
    ],
)
def test_each_finding_is_named_with_its_value(
    light_model: BCDClassifier, name: str, image: Pixels
) -> None:
    (finding,) = light_model.predict(image).findings
    assert (finding.name, finding.words, finding.tiles) == (name, WORDS[name], 1)
    is_low = name in ("flat", "grey", "focus")
    assert (finding.value < finding.threshold) == is_low


def test_what_is_ignored_is_recorded_and_changes_no_probability(light_model: BCDClassifier) -> None:
    referred = light_model.predict(CAT)
    answered = light_model.predict(CAT, suitability="ignore")
    assert answered.decision == answered.label
    assert answered.probability == referred.probability
    assert (answered.findings, answered.ignored) == ((), referred.findings)
    assert answered.to_dict()["ignored"][0]["words"] == WORDS["picture"]
    assert answered.to_row()["ignored"] == WORDS["picture"]
    assert (referred.is_unsuitable, answered.is_unsuitable) == (True, False)
    (_, streamed), *_ = light_model.stream([CAT], suitability="ignore")
    assert streamed == answered
    with pytest.raises(InputError, match="'refer' or 'ignore', not 'never'"):
        light_model.predict(CAT, suitability="never")  # type: ignore[call-overload]


def test_unsuitable_tiles_of_a_field_are_left_out_and_shown(light_model: BCDClassifier) -> None:
    field = np.vstack((np.hstack((TISSUE[1], TISSUE[3])), np.hstack((TISSUE[5], CAT))))
    answer = light_model.predict(field, mpp=4)
    assert answer.tile_findings == ((None, None), (None, "picture"))
    assert answer.tile_probabilities[1][1] is None
    assert (answer.tiles, answer.findings[0].tiles) == (3, 1)
    ignored = light_model.predict(field, mpp=4, suitability="ignore")
    assert (ignored.tiles, ignored.ignored, ignored.findings) == (4, answer.findings, ())
    explained = light_model.explain(field, mpp=4)
    assert explained.seen[:50].all()
    assert not explained.seen[50:, 50:].any()
    ((_, streamed),) = light_model.explanations([field], mpp=4)
    np.testing.assert_array_equal(streamed.heatmap, explained.heatmap)
    for one in (explained, streamed):
        assert one.left_out is not None
        assert np.argwhere(one.left_out).min(0).tolist() == [50, 50]
        assert one.left_out.sum() == 50 * 50
        alpha = np.asarray(one.coloured())[..., 3]
        assert alpha[:50].all()
        assert 0.2 < (alpha[50:, 50:] > 0).mean() < 0.3  # stripes
    whole = light_model.explain(field, mpp=4, suitability="ignore")
    assert (whole.left_out, whole.prediction) == (None, ignored)
    assert whole.seen.all()
    ((_, streamed),) = light_model.explanations([field], mpp=4, suitability="ignore")
    np.testing.assert_array_equal(streamed.heatmap, whole.heatmap)


def test_a_field_of_mostly_unsuitable_tiles_is_referred(light_model: BCDClassifier) -> None:
    field = np.vstack((np.hstack((TISSUE[1], CAT)), np.hstack((CAT, CAT))))
    answer = light_model.predict(field, mpp=4)
    assert answer.decision == "refer"
    assert answer.reasons[0].startswith("3 of 4 tiles look unsuitable: drawn or photographed")
    assert answer.tiles == 1
    whole = light_model.predict(np.tile(CAT, (2, 2, 1)), mpp=4)
    assert (whole.decision, whole.tiles, whole.judged_tiles) == ("refer", 4, 4)
    assert (answer.judged_tiles, answer.is_unsuitable, whole.is_unsuitable) == (4, True, True)
    half = light_model.predict(np.hstack((TISSUE[1], CAT)), mpp=4)
    assert (half.judged_tiles, half.is_unsuitable) == (2, False)


def test_a_folder_without_statistics_refuses_nothing(light_model: BCDClassifier) -> None:
    older = light_model.__copy__()
    older.config = light_model.config.model_copy(update={"suitability": None})
    answer = older.predict(CAT)
    assert answer.probability == light_model.predict(CAT).probability
    assert (answer.decision, answer.findings, answer.ignored) == (answer.label, (), ())


def test_an_ensemble_refers_what_its_members_do(light_model: BCDClassifier) -> None:
    config = EnsembleConfig(name="pair", version="1", members=("one", "two"))
    without = light_model.__copy__()
    without.config = light_model.config.model_copy(update={"suitability": None})
    pair = BCDEnsemble(config, [without, light_model])
    cat, tissue = pair.predict([CAT, TISSUE[1]])
    alone, _ = light_model.predict([CAT, TISSUE[1]])
    assert (cat.decision, cat.findings) == ("refer", alone.findings)
    assert tissue.findings == ()


def test_a_tile_s_numbers_do_not_depend_on_its_company() -> None:
    together = measure_tiles(np.stack(TISSUE))
    alone = np.concatenate([measure_tiles(patch[None]) for patch in TISSUE])
    assert together.shape == (len(TISSUE), len(NUMBERS))
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
