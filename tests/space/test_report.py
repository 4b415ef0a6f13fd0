"""The PDF says what it must, shows a user's text as it is, and repeats to the byte."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader

from bcd_models.config import DecisionConfig, ModelConfig, PreprocessConfig
from bcd_models.explain.gradcam import Explanation
from bcd_models.prediction import NOTICE, Prediction
from clinic.report import report

WHEN = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
CONFIG = ModelConfig(
    name="bcd-test",
    version="1.2.3",
    backbone="mobilenetv2",
    preprocess=PreprocessConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    decision=DecisionConfig(threshold=0.4, refer=(0.35, 0.45)),
)
PREDICTION = Prediction(
    name="patch.png",
    label="malignant",
    probability=0.8125,
    decision="malignant",
    reasons=(),
    threshold=0.4,
    refer=(0.35, 0.45),
    model="bcd-test",
    model_version="1.2.3",
    weights_sha256="0123456789abcdef" * 4,
    width=60,
    height=40,
)


def explained(size=(60, 40), **changes) -> Explanation:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    heat = rng.random(size[::-1], np.float32)
    prediction = replace(PREDICTION, width=size[0], height=size[1], **changes)
    return Explanation(image, prediction.label, heat, prediction)


def text_of(pdf: bytes) -> str:
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    return " ".join(page.extract_text().split())


def test_all_that_must_be_on_the_page():
    text = text_of(report([explained()], CONFIG, WHEN))
    for words in (
        "Invasive carcinoma pattern",
        "0.812",
        "threshold 0.400",
        "0.350 to 0.450",
        "bcd-test, version 1.2.3",
        PREDICTION.weights_sha256,
        "patch.png",
        "60 × 40 pixels",
        "2030-01-02 03:04:05 UTC",
        "200 µm wide",
        "regions, not cells",
        "nothing speaks for it",
    ):
        assert words in text
    assert text.count(NOTICE) == 2


def test_a_referral_says_why():
    reasons = ("the probability lies within the referral band",)
    text = text_of(report([explained(decision="refer", reasons=reasons)], CONFIG, WHEN))
    assert "Unclear: refer to a pathologist" in text
    assert "Because the probability lies within the referral band." in text


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x>.png",
        "<b>bold</b> &amp; <font size=99>.png",
        "Žluťoučký Größe Ωμέγα Жизнь.png",
    ],
)
def test_a_user_s_text_is_shown_and_never_interpreted(name):
    assert name in text_of(report([explained(name=name)], CONFIG, WHEN))


def test_control_and_direction_characters_become_visible():
    text = text_of(report([explained(name="a\u202egnp\x00\n.png")], CONFIG, WHEN))
    assert "a\ufffdgnp\ufffd\ufffd.png" in text


def test_same_inputs_give_the_same_bytes():
    first, again = (report([explained()], CONFIG, WHEN) for _ in range(2))
    later = report([explained()], CONFIG, WHEN + timedelta(seconds=1))
    assert first == again != later


def test_time_is_shown_in_utc_and_needs_a_zone():
    east = WHEN.astimezone(timezone(timedelta(hours=5)))
    assert "2030-01-02 03:04:05 UTC" in text_of(report([explained()], CONFIG, east))
    with pytest.raises(ValueError, match="time zone"):
        report([explained()], CONFIG, WHEN.replace(tzinfo=None))


def test_fonts_are_embedded():
    (page,) = PdfReader(io.BytesIO(report([explained()], CONFIG, WHEN))).pages
    used = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    dejavu = [font for font in used if "DejaVu" in font["/BaseFont"]]
    assert len(dejavu) >= 2
    assert all("/FontFile2" in font["/FontDescriptor"].get_object() for font in dejavu)


@pytest.mark.parametrize(
    ("size", "probability"), [((16, 700), 0.0), ((1200, 16), 0.4), ((50, 50), 1.0)]
)
def test_one_page_whatever_the_image(size, probability):
    shown = explained(size, probability=probability, name="W" * 250 + ".png", refer=(0.0, 1.0))
    assert NOTICE in text_of(report([shown], CONFIG, WHEN))


def test_each_of_several_images_has_a_page():
    pdf = report([explained(), explained(name="another")], CONFIG, WHEN)
    first, second = (page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert "another" in second
    assert "another" not in first
    assert NOTICE in first
    assert NOTICE in second
