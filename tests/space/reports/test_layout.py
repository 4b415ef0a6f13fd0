"""The PDF says what it must, shows a user's text as it is, and repeats to the byte."""

import io
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader
from reportlab.pdfbase import pdfmetrics

from bcd_models.config import DecisionConfig, ModelConfig, PreprocessConfig
from bcd_models.explanation import Explanation
from bcd_models.prediction import NOTICE, Prediction
from clinic.records.texts import MAX_LENGTH, check_text
from clinic.reports.layout import (
    ReportedExamination,
    ReportedImage,
    lay_out_answers,
    lay_out_examination,
)
from clinic.reports.paper import REGULAR

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
    runtime="onnx float32",
)
SCRIPTS = {
    "Latin": "Größe und Žluťoučký kůň",
    "Greek": "Ελληνικά με τόνους",
    "Cyrillic": "Железистая ткань",
    "Arabic": "نسيج غدي",
    "Hebrew": "רקמת בלוטה",
    "CJK": "浸潤性乳管癌、がん",
    "Devanagari": "स्तन ऊतक की जाँच",
    "Thai": "เนื้อเยื่อเต้านม",
    "emoji": "\U0001f52c\U0001fa7a\U0001f1e9\U0001f1ea",
    "marks": "e\u0301\u0323\u0301\u0323o\u0308\u0304",
    "marks alone": "\u0301\u20dd\u0323",
    "wide": "\ufdfaW\u2e3b",
    "markup": "<br/>&nbsp;&#10;</para><img>",
    "tabs": "a\tb",
}


def repeated(words: str) -> str:
    """As many letters as a comment may have."""
    return (words * MAX_LENGTH)[:MAX_LENGTH].strip()


def lines(words: str) -> str:
    """A comment of as many lines as fit in, the letters of some words in turn, some lines blank."""
    letters = words.replace("\t", "")
    return "\n".join((letters * MAX_LENGTH)[: MAX_LENGTH // 2]).replace("\n ", "\n")


def numbered(what: str) -> str:
    """A comment of as many numbered lines as fit in."""
    return "\n".join(f"{what}{number}." for number in range(MAX_LENGTH))[:MAX_LENGTH].rpartition(
        "\n"
    )[0]


def explained(size=(60, 40), **changes) -> Explanation:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    heat = rng.random(size[::-1], np.float32)
    prediction = replace(PREDICTION, width=size[0], height=size[1], **changes)
    return Explanation(image, prediction.label, heat, prediction, np.ones(heat.shape, bool))


def examined(**changes) -> ReportedExamination:
    image = ReportedImage(1, (60, 40), "the field is 200 µm wide", (), (explained(),))
    told = ReportedExamination("R-1", "", (), False, "", (), (image,), (), True)
    return replace(told, **changes)


def text_of(pdf: bytes) -> str:
    (page,) = PdfReader(io.BytesIO(pdf)).pages
    return " ".join(page.extract_text().split())


def words_of(pdf: bytes) -> list[str]:
    """Of all pages, in order."""
    return [
        word for page in PdfReader(io.BytesIO(pdf)).pages for word in page.extract_text().split()
    ]


def test_all_that_must_be_on_the_page():
    text = text_of(lay_out_answers([explained()], CONFIG, WHEN))
    for words in (
        "Invasive carcinoma pattern",
        "0.812",
        "threshold 0.400",
        "0.350 to 0.450",
        "bcd-test, version 1.2.3",
        PREDICTION.weights_sha256,
        "Answered by ONNX Runtime, float32",
        "patch.png",
        "60 × 40 pixels",
        "2030-01-02 03:04:05 UTC",
        "200 µm wide",
        "regions, not cells",
        "nothing speaks for it",
    ):
        assert words in text
    assert text.count(NOTICE) == 2


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ("torch bfloat16", "Answered by torch, bfloat16"),
        ("onnx float32, torch float32", "Answered by ONNX Runtime, float32; torch, float32"),
        ("", None),
    ],
)
def test_what_answered_is_told_where_it_is_known(runtime, words):
    text = text_of(lay_out_answers([explained(runtime=runtime)], CONFIG, WHEN))
    assert words in text if words else "Answered by" not in text


def test_a_referral_says_why():
    reasons = ("the image is small: hand in a larger one", "the probability lies within the band")
    text = text_of(lay_out_answers([explained(decision="refer", reasons=reasons)], CONFIG, WHEN))
    assert "Unclear: refer to a pathologist" in text
    for reason in reasons:
        assert f"Because {reason}." in text


def test_scale_and_tiles_are_told():
    tiles = ((0.812, 0.1, None), (0.6, 0.3, 0.2))
    told = explained(mpp=0.5, scale="TIFF resolution", tile_probabilities=tiles)
    text = text_of(lay_out_answers([told], CONFIG, WHEN))
    assert "0.5 µm a pixel, by the file (TIFF resolution)" in text
    assert "2 of 5 (40%)" in text
    assert "highest of any tile" in text
    assert "highest of any tile" not in text_of(lay_out_answers([explained()], CONFIG, WHEN))


@pytest.mark.parametrize(
    "name",
    [
        "<img src=x>.png",
        "<b>bold</b> &amp; <font size=99>.png",
        "Žluťoučký Größe Ωμέγα Жизнь.png",
    ],
)
def test_a_user_s_text_is_shown_and_never_interpreted(name):
    assert name in text_of(lay_out_answers([explained(name=name)], CONFIG, WHEN))


def test_control_and_direction_characters_become_visible():
    text = text_of(lay_out_answers([explained(name="a\u202egnp\x00\n.png")], CONFIG, WHEN))
    assert "a\ufffdgnp\ufffd\ufffd.png" in text


def test_same_inputs_give_the_same_bytes():
    first, again = (lay_out_answers([explained()], CONFIG, WHEN) for _ in range(2))
    later = lay_out_answers([explained()], CONFIG, WHEN + timedelta(seconds=1))
    assert first == again != later


def test_time_is_shown_in_utc_and_needs_a_zone():
    east = WHEN.astimezone(timezone(timedelta(hours=5)))
    assert "2030-01-02 03:04:05 UTC" in text_of(lay_out_answers([explained()], CONFIG, east))
    with pytest.raises(ValueError, match="time zone"):
        lay_out_answers([explained()], CONFIG, WHEN.replace(tzinfo=None))


def test_fonts_are_embedded():
    (page,) = PdfReader(io.BytesIO(lay_out_answers([explained()], CONFIG, WHEN))).pages
    used = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    dejavu = [font for font in used if "DejaVu" in font["/BaseFont"]]
    assert len(dejavu) >= 2
    assert all("/FontFile2" in font["/FontDescriptor"].get_object() for font in dejavu)


@pytest.mark.parametrize(
    ("size", "probability"),
    [((16, 700), 0.0), ((1200, 16), 0.4), ((50, 50), 1.0), ((1, 4000), 0.5), ((4000, 1), 0.5)],
)
def test_one_page_whatever_the_image(size, probability):
    shown = explained(size, probability=probability, name="W" * 250 + ".png", refer=(0.0, 1.0))
    assert NOTICE in text_of(lay_out_answers([shown], CONFIG, WHEN))


def test_each_of_several_images_has_a_page():
    pdf = lay_out_answers([explained(), explained(name="another")], CONFIG, WHEN)
    first, second = (page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)
    assert "another" in second
    assert "another" not in first
    assert NOTICE in first
    assert NOTICE in second


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_longest_text_of_every_script_is_all_there(script):
    texts = [repeated(SCRIPTS[script].replace(" ", "")), lines(SCRIPTS[script])]
    assert all(check_text(one, "comment") == one for one in texts)
    told = examined(facts=tuple(("Comment", one) for one in texts), images=())
    found = "".join(words_of(lay_out_examination(told)))
    known = pdfmetrics.getFont(REGULAR).face.charToGlyph
    for letter in set("".join(texts)) - {"\n", "\t", " "}:
        if ord(letter) in known:
            assert found.count(letter) >= sum(one.count(letter) for one in texts), letter


def test_every_field_of_an_examination_may_be_at_its_longest():
    fields = "ABCDEFGH"
    comments = [numbered(field) for field in fields]
    word = "W" * 4000  # taller than a page, in fields of one line
    explanation = explained((4000, 1), model=word, reasons=(word,), decision="refer")
    image = ReportedImage(1, (1, 4000), word, (word,) * 3, (explanation,) * 2)
    told = examined(
        letterhead=word,
        facts=tuple((f"{field} of a patient", numbered(field)) for field in fields[:4]),
        synthetic=True,
        read="Pattern of invasive carcinoma",
        reads=tuple(
            (f"Read {field}, 2026-01-01 00:00 UTC", numbered(field)) for field in fields[4:]
        ),
        images=(image,),
        models=((word, (("Version", word), ("Measured", word))),),
    )
    words = words_of(lay_out_examination(told))
    for field, comment in zip(fields, comments, strict=True):
        own = [one for one in words if one[0] == field and one[1:-1].isdigit() and one[-1] == "."]
        assert own == comment.split()
    letterhead, scale, warnings, answers, model = 1, 1, 3, 2 * 2, 3
    count = sum(one.count("W") for one in words)
    assert count >= len(word) * (letterhead + scale + warnings + answers + model)


@pytest.mark.parametrize("count", [60, 61, 62, 63, 64, 65, 66, 67, 68, 133])
def test_lines_of_a_comment_are_evenly_spaced_on_every_page(count):
    """Wherever a page ends, the next goes on at its top with the next line."""
    comment = "\n".join(f"C{number}." for number in range(count))
    places: list[tuple[int, float, str]] = []
    pdf = lay_out_examination(examined(facts=(("Patient", "P-1"), ("Comment", comment)), images=()))
    for number, page in enumerate(PdfReader(io.BytesIO(pdf)).pages):

        def note(words, moved, place, _font, _size, number=number):
            if words.strip()[:1] == "C" and words.strip()[-1:] == ".":
                places.append((number, moved[5] + place[5], words.strip()))

        page.extract_text(visitor_text=note)
    assert [words for _, _, words in places] == comment.split()
    pairs = list(itertools.pairwise(places))
    steps = {round(above - below, 2) for (a, above, _), (b, below, _) in pairs if a == b}
    assert steps == {11.2}
    tops = [place for (a, _, _), (b, place, _) in pairs if a != b]
    assert all(place > 780 for place in tops)


def test_an_image_s_name_and_model_may_be_taller_than_a_page():
    name = "n" * 9000
    pdf = lay_out_answers([explained(name=name, model=name)], CONFIG, WHEN)
    assert "".join(words_of(pdf)).count("n") >= 2 * len(name)
