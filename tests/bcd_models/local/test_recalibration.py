"""A model is calibrated on a user's own labelled images, into a new folder."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from bcd_models import BCDClassifier, BCDEnsemble, local
from bcd_models.config import DecisionConfig
from bcd_models.decision import log_odds, sigmoid
from bcd_models.errors import InputError
from bcd_models.images.scale import give_scale
from bcd_models.local import page
from bcd_models.local.recalibration import CASES_FOR_PROMISE, FOLDS, assign_folds
from bcd_models.local.referral import HEADLINE
from bcd_models.models.ensemble import EnsembleConfig
from bcd_models.prediction import NOTICE
from tests.conftest import CARDS
from tests.support import synthetic
from tests.support.command_line import bcd
from tests.support.labelled import Row, write_list

CARD = CARDS / "bcd-mobilenetv2"


def sample(cases: int = 60, each: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers twice as sure as they may be, and too high, of cases that differ a little."""
    rng = np.random.default_rng(0)
    case = np.repeat(np.arange(cases), each)
    odds = rng.normal(-1, 1.5, len(case))
    truth = rng.random(len(case)) < sigmoid(odds + rng.normal(0, 0.3, cases)[case])
    return sigmoid(2 * odds + 1), np.where(truth, "malignant", "benign"), case


def test_a_line_off_is_put_right() -> None:
    found = local.calibrate(*sample(200), DecisionConfig())
    before, after = found.before, found.after
    assert before.slope.high < 0.7
    assert after.slope.low < 1 < after.slope.high
    assert after.in_the_large.low < 0 < after.in_the_large.high
    assert found.decision.slope == pytest.approx(0.5, abs=0.1)
    assert found.decision.intercept == pytest.approx(-0.5, abs=0.3)
    assert list(found.decision.points) == ["balanced", "screening", "confirm"]
    assert found.decision.threshold == found.decision.points["balanced"].threshold
    for name, point in found.decision.points.items():
        assert point.sensitivity == after.points[name].sensitivity
        assert point.refer is not None
        assert point.refer[0] <= point.threshold <= point.refer[1]
        assert after.points[name].loss.value <= found.promise
    assert found.promise == HEADLINE


def test_a_promise_takes_cases_and_without_it_none_is_given() -> None:
    assert CASES_FOR_PROMISE == 24
    enough, few = (
        local.calibrate(*sample(cases), DecisionConfig())
        for cases in (CASES_FOR_PROMISE, CASES_FOR_PROMISE - 1)
    )
    assert (enough.promise, few.promise) == (HEADLINE, None)
    for one in few.after.points.values():
        assert one.referred == pytest.approx(0.1, abs=0.04)
    assert "23 cases are too few to promise 5%, which takes 24" in page.describe_promise(few)
    assert "promise that of a further case like these 5%" in page.describe_promise(enough)


def test_the_promise_holds_on_cases_that_nothing_was_fitted_on() -> None:
    rng = np.random.default_rng(3)
    losses = []
    for _ in range(20):
        case = np.repeat(np.arange(160), 10)
        odds = rng.normal(-1, 1.5, len(case))
        truth = rng.random(len(case)) < sigmoid(odds + rng.normal(0, 0.5, 160)[case])
        probability, labels = sigmoid(2 * odds + 1), np.where(truth, "malignant", "benign")
        own = case < 80
        rule = local.calibrate(probability[own], labels[own], case[own], DecisionConfig()).decision
        assert rule.refer is not None
        answers = sigmoid(rule.slope * log_odds(probability) + rule.intercept)
        decided = (answers < rule.refer[0]) | (answers > rule.refer[1])
        losses.append((decided & ((answers >= rule.threshold) != truth))[~own].mean())
    assert 0.03 < np.mean(losses) <= 0.05


def test_views_and_context_are_the_models_own() -> None:
    rule = DecisionConfig(slope=2.0, intercept=0.5, views=4, context=0.75)
    found = local.calibrate(*sample(), rule)
    assert (found.decision.views, found.decision.context) == (4, 0.75)
    plain = local.calibrate(*sample(), DecisionConfig())
    # The margins that the probabilities come from are others, and so is the line of them.
    assert found.decision.slope == pytest.approx(2 * plain.decision.slope)


def test_figures_are_of_cases_that_nothing_was_fitted_on() -> None:
    probability, labels, case = sample(24)
    truth, margins = labels == "malignant", log_odds(probability)
    folds = assign_folds(truth, case)
    called = np.empty(len(truth), bool)
    for fold in range(FOLDS):
        here = folds == fold
        line = LogisticRegression(C=np.inf, tol=1e-9).fit(margins[~here, None], truth[~here])
        answers = line.predict_proba(margins[:, None])[:, 1]
        falling = np.sort(answers[~here & truth])[::-1]
        called[here] = answers[here] >= falling[int(np.ceil(0.95 * len(falling))) - 1] - 1e-9
    found = local.calibrate(probability, labels, case, DecisionConfig())
    screening = found.after.points["screening"]
    assert screening.sensitivity.value == pytest.approx(called[truth].mean())
    assert screening.specificity.value == pytest.approx((~called[~truth]).mean())


def test_folds_are_of_whole_cases_of_both_kinds() -> None:
    case = np.repeat(np.arange(25), 4)
    truth = case < 10
    folds = assign_folds(truth, case)
    assert all(len(set(folds[case == one])) == 1 for one in range(25))
    for fold in range(FOLDS):
        assert len(set(case[(folds == fold) & truth])) == 2
        assert len(set(case[(folds == fold) & ~truth])) == 3


def test_too_few_cases_are_refused_with_the_number_needed() -> None:
    probability, labels, case = sample()
    benign = np.where(case < 7, labels, "malignant")
    with pytest.raises(InputError, match=r"7 cases hold benign .* at least 10: 3 more cases"):
        local.calibrate(probability, benign, case, DecisionConfig())
    few = slice(0, 80)  # of eight cases: figures would take two more, calibration these
    both = np.where(case < 3, "malignant", "benign")
    with pytest.raises(
        InputError, match=r"5 cases hold benign .* 3 cases hold malignant .* 7 more"
    ):
        local.calibrate(probability[few], both[few], case[few], DecisionConfig())


def test_answers_that_are_not_shown_to_rise_with_the_labels_are_refused() -> None:
    probability, labels, case = sample()
    with pytest.raises(InputError, match=r"rise with the labels .*slope -0\.\d"):
        local.calibrate(1 - probability, labels, case, DecisionConfig())
    chance = np.random.default_rng(1).permutation(probability)
    slope = local.measure(chance, labels, case, DecisionConfig()).slope
    assert slope.low < 0 < slope.high
    shown = f"{slope.value:.2f} ({slope.low:.2f} to {slope.high:.2f})"
    with pytest.raises(InputError, match=re.escape(shown)):
        local.calibrate(chance, labels, case, DecisionConfig())


def test_a_new_folder_holds_the_calibrated_model(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    kept = {path.name: path.read_bytes() for path in telling.iterdir()}
    out = tmp_path / "ours"
    done = bcd("calibrate", drawn[0] / "list.csv", "--model", telling, "--out", out)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in telling.iterdir()} == kept
    old, new = (BCDClassifier.from_pretrained(folder) for folder in (telling, out))
    assert new.weights_sha256 == old.weights_sha256
    told = local.Calibration.model_validate_json((out / "calibration.json").read_bytes())
    assert new.config.decision == told.decision
    assert new.config.for_tiles == old.config.for_tiles
    patch = Image.open(drawn[0] / "7.png")
    margin = (log_odds(old.predict(patch).probability) - old.config.decision.intercept) / (
        old.config.decision.slope
    )
    answer = new.predict(patch, point="screening")
    expected = sigmoid(told.decision.slope * margin + told.decision.intercept)
    assert answer.probability == pytest.approx(float(expected), abs=1e-6)
    assert answer.threshold == told.after.points["screening"].threshold
    (where,) = new.config.calibrated
    assert (where.images, where.cases, where.malignant) == (60, 20, told.before.counts.malignant)
    assert (where.parent, where.parent_version) == (old.config.name, "1.2.3")
    assert where.parent_weights_sha256 == old.weights_sha256
    assert new.config.version == f"1.2.3+local.{where.fingerprint[:8]}"
    info = bcd("info", out).stdout
    assert "calibrated locally" in info
    assert f"{where.words}\n" in info
    assert "calibrated" not in json.loads(bcd("info", telling, "--json").stdout)
    card = (out / "README.md").read_text()
    for text in (
        where.words,
        NOTICE,
        "| own | before |",
        "| screening | after |",
        "No promise holds of referral",
    ):
        assert text in card
    again = bcd("calibrate", drawn[0] / "list.csv", "--model", telling, "--out", out)
    assert again.returncode == 2
    assert "is there already" in again.stderr


@pytest.mark.parametrize("out", ["model", "model/ours", "model/one/../ours", "link/ours", "."])
def test_a_model_s_folder_stays_as_it_is(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path, out: str
) -> None:
    model = shutil.copytree(telling, tmp_path / "model")
    (tmp_path / "link").symlink_to(model, target_is_directory=True)
    before = sorted(tmp_path.rglob("*"))
    asked = drawn[0] / "list.csv", "--model", model, "--out", tmp_path / out
    reasons = {"calibrate": "is there already" if out in (".", "model") else "the model folder"}
    if out != ".":  # a report may lie beside the model
        reasons["validate"] = "the model folder"
    for verb, reason in reasons.items():
        done = bcd(verb, *asked)
        assert (done.returncode, done.stdout) == (2, "")
        assert reason in done.stderr
        assert sorted(tmp_path.rglob("*")) == before


def test_a_calibration_of_other_weights_is_an_error(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    images, _ = local.read_labelled(drawn[0] / "list.csv")
    ours, found, _ = local.recalibrate(BCDClassifier.from_pretrained(telling), images)
    local.write_folder(ours, found, tmp_path / "ours")
    trained = BCDClassifier.from_pretrained(tmp_path / "ours")
    trained.network.get_classifier().bias.data += 1
    trained.save_pretrained(tmp_path / "trained")
    again = BCDClassifier.from_pretrained(tmp_path / "trained")
    assert again.config.calibrated == ()
    assert again.config.decision == ours.config.decision
    for name in ("model.safetensors", "model.onnx"):  # the weights are exchanged, and the graph
        shutil.copy(tmp_path / "trained" / name, tmp_path / "ours")
    settings = json.loads((tmp_path / "ours" / "config.json").read_text())
    settings["bcd"]["graphs"] = json.loads((tmp_path / "trained" / "config.json").read_text())[
        "bcd"
    ]["graphs"]
    (tmp_path / "ours" / "config.json").write_text(json.dumps(settings))
    listed = drawn[0] / "list.csv"
    for asked in (
        ["info"],
        ["predict", drawn[0] / "7.png", "--model"],
        ["validate", listed, "--ladder-images", "0", "--model"],
        ["calibrate", listed, "--out", tmp_path / "more", "--model"],
    ):
        done = bcd(*asked, tmp_path / "ours")
        assert (done.returncode, done.stdout) == (2, "")
        assert "calibrated locally with other weights" in done.stderr


def test_a_second_calibration_stands_beside_that_of_the_other_kind(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    single, _ = local.read_labelled(drawn[0] / "list.csv")
    larger, _ = local.read_labelled(draw_larger_fields(tmp_path))
    model = BCDClassifier.from_pretrained(telling)
    first, _, _ = local.recalibrate(model, single)
    both, found, _ = local.recalibrate(first, larger)
    local.write_folder(both, found, tmp_path / "both")
    both = BCDClassifier.from_pretrained(tmp_path / "both")
    alone, _, _ = local.recalibrate(model, larger)
    assert both.config.decision == first.config.decision
    assert both.config.for_tiles == alone.config.for_tiles  # of the same margins, not of answers
    assert [one.larger_fields for one in both.config.calibrated] == [False, True]
    assert both.config.calibrated[1].parent_version == first.config.version
    info, card = bcd("info", tmp_path / "both").stdout, (tmp_path / "both/README.md").read_text()
    for one in both.config.calibrated:
        assert one.words in info
        assert one.words in card
    tiles = both.config.for_tiles.points["screening"].threshold
    assert f"tiles, point screening threshold {tiles:.3f}" in " ".join(info.split())
    anew, _, _ = local.recalibrate(both, single[3:])
    assert [one.larger_fields for one in anew.config.calibrated] == [True, False]
    straight, _, _ = local.recalibrate(model, single[3:])
    fitted, expected = anew.config.decision, straight.config.decision
    assert (fitted.slope, fitted.intercept) == pytest.approx((expected.slope, expected.intercept))


def test_what_else_is_referred_is_left_out(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    images, _ = local.read_labelled(drawn[0] / "list.csv")
    model = BCDClassifier.from_pretrained(telling)
    far = [replace(one, scale=give_scale(0.5)) for one in images]  # a field far too small
    with pytest.raises(InputError, match=r"no image can be .* 60 of 60 .* hand in a larger field"):
        local.recalibrate(model, far)
    some = [*far[:3], *images[3:]]
    ours, found, _ = local.recalibrate(model, some)
    assert (found.left_out, found.before.counts.images) == (3, 57)
    local.write_folder(ours, found, tmp_path / "ours")
    card = " ".join((tmp_path / "ours" / "README.md").read_text().split())
    assert "3 images were left out of the fit and of each figure. 3 of 60 images are" in card
    alone, _, _ = local.recalibrate(model, images[3:])
    assert ours.config.decision == alone.config.decision
    assert ours.config.calibrated[0].fingerprint != alone.config.calibrated[0].fingerprint
    again, _, _ = local.recalibrate(ours, images)
    assert again.config.version.count("+") == 1


def test_other_images_or_labels_have_another_fingerprint(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    model = BCDClassifier.from_pretrained(telling)
    images, _ = local.read_labelled(drawn[0] / "list.csv")
    first, second = (
        local.recalibrate(model, some)[0].config.calibrated for some in (images, images[::-1])
    )
    assert first == second  # in any order
    (fewer,) = local.recalibrate(model, images[:-1])[0].config.calibrated
    assert fewer.fingerprint != first[0].fingerprint
    assert model.config.calibrated == ()


def draw_larger_fields(folder: Path) -> Path:
    """Draw fields of two tiles, of 24 cases; one in seven is labelled the other way round."""
    rows: list[Row] = []
    for number in range(24):
        kind = synthetic.KINDS[number % 2]
        pixels = synthetic.patch(kind, number, pixels=(110, 60), width_um=440)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        label = synthetic.KINDS[(number + (number % 7 == 0)) % 2]
        rows.append((f"{number}.png", label, f"c{number}", "4"))
    return write_list(folder, rows)


def test_larger_fields_calibrate_the_rule_of_tiles(telling: Path, tmp_path: Path) -> None:
    images, _ = local.read_labelled(draw_larger_fields(tmp_path))
    model = BCDClassifier.from_pretrained(telling)
    ours, found, _ = local.recalibrate(model, images)
    assert ours.config.decision == model.config.decision
    assert ours.config.for_tiles == found.decision
    assert ours.config.calibrated[0].larger_fields
    Image.fromarray(synthetic.patch("benign", 1)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match="1 images show one field of the model's and 23 show more"):
        local.recalibrate(model, images)


def test_an_ensemble_is_calibrated_too(
    drawn: tuple[Path, list[Row]], telling: Path, tmp_path: Path
) -> None:
    members = [BCDClassifier.from_pretrained(telling) for _ in range(2)]
    config = EnsembleConfig(name="both", version="1.0.0", members=("one", "two"))
    ensemble = BCDEnsemble(config, members)
    images, _ = local.read_labelled(drawn[0] / "list.csv")
    ours, found, _ = local.recalibrate(ensemble, images)
    local.write_folder(ours, found, tmp_path / "ours")
    again = BCDEnsemble.from_pretrained(tmp_path / "ours")
    assert again.config == ours.config
    assert again.config.decision == found.decision
    assert ensemble.config == config
