"""Scripts: what looks unsuitable is referred, or answered where they ask for it, and says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clinic.analysis.models import Models
from clinic.ui.shared.anyway import ANYWAY, offer_anyway
from tests.support.clinic import PATCHES, draw_photograph
from tests.support.serving import (
    Serving,
    answer,
    in_json,
    serving_at,
    sign_in_doctor,
    start_call,
    upload,
)

AT = ("small-judge", 4, "")  # model, micrometres a pixel, operating point


@pytest.fixture(scope="module")
def judging(judging_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving_at(tmp_path_factory.mktemp("judging"), judging_models) as running:
        yield running


def test_a_guest_s_script_is_answered_all_the_same_where_it_asks(judging: Serving) -> None:
    client = judging.visitor()

    def said(*suitability: str) -> dict[str, object]:
        image = in_json(upload(client, draw_photograph()))
        (told,) = answer(client, "predict", image, *AT, *suitability)
        _, explained = answer(
            client, "explain", in_json(upload(client, draw_photograph())), AT[0], "predicted",
            0.5, *AT[1:], *suitability,
        )  # fmt: skip
        assert explained == told
        return dict(told)

    refused, answered = said(), said("ignore")
    assert said("refer") == refused
    assert (refused["decision"], refused["ignored"]) == ("refer", [])
    assert answered["decision"] == answered["label"]
    assert (answered["findings"], answered["ignored"]) == ([], refused["findings"])
    image = in_json(upload(client, draw_photograph()))
    event = start_call(client, "predict", image, *AT, "never")
    assert "event: error" in client.get(f"/gradio_api/call/predict/{event}").text


def test_the_button_names_the_images_that_it_is_about(judging_models: Models) -> None:
    model = judging_models.load(AT[0])
    refused = [model.predict(draw_photograph(), mpp=4)]
    fine = [model.predict(PATCHES[0], mpp=4)]
    for images, name in (
        ([refused], ANYWAY),
        ([refused, fine], f"{ANYWAY}: image 1"),
        ([refused, [], refused, fine, refused], f"{ANYWAY}: images 1, 3 and 5"),
    ):
        offered = offer_anyway(images)
        assert (offered["value"], offered["visible"]) == (name, True)
    assert not offer_anyway([fine, []])["visible"]


@pytest.mark.parametrize("shown", [True, False])
def test_a_saved_examination_says_it(judging: Serving, shown: bool) -> None:
    doctor = sign_in_doctor(judging)

    def saved(*suitability: str) -> dict[str, object]:
        image = in_json(upload(doctor.client, draw_photograph()))
        (told,) = answer(
            doctor.client, "save_examination", doctor.patient, [image], [AT[0]], 0, 0, "H&E",
            "other", "", shown, 4, "", *suitability,
        )  # fmt: skip
        return dict(told["images"][0])

    for suitability in ((), ("ignore",)):
        told = saved(*suitability)
        (warning,) = told["warnings"]  # type: ignore[misc]
        assert ("answered all the same" in warning) is bool(suitability)
        answers = told["answers"]
        assert isinstance(answers, list)
        assert [bool(one["ignored"]) for one in answers] == [bool(suitability)] * shown
