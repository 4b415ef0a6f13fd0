"""What scripts rely on: names, order and defaults of arguments, and the keys of what is returned.

A new argument comes last and has a default; a key is only added.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.clinic import NAMES, PATCHES
from tests.support.serving import Serving, add_account, answer, in_json, upload

REQUIRED = object()
MODEL, MPP, POINT = ("model", NAMES[0]), ("mpp", 0), ("point", "")
SUITABILITY = ("suitability", "refer")
ARGUMENTS: dict[str, list[tuple[str, Any]]] = {
    "models": [],
    "predict": [("image", REQUIRED), MODEL, MPP, POINT, SUITABILITY],
    "explain": [
        ("image", REQUIRED),
        MODEL,
        ("label", "predicted"),
        ("opacity", 0.5),
        MPP,
        POINT,
        SUITABILITY,
    ],
    "report": [("image", REQUIRED), MODEL, MPP, POINT, SUITABILITY],
    "create_patient": [("external_id", ""), ("birth_year", 0), ("note", "")],
    "save_examination": [
        ("patient", REQUIRED),
        ("images", REQUIRED),
        ("names", [NAMES[0]]),
        ("field_width_um", 0),
        ("um_per_pixel", 0),
        ("stain", "H&E"),
        ("specimen", "not known"),
        ("comment", ""),
        ("shown", True),
        MPP,
        POINT,
        SUITABILITY,
    ],
    "record_read": [
        ("examination", REQUIRED),
        ("verdict", "none"),
        ("comment", ""),
        ("reason", ""),
    ],
    "examination_report": [("examination", REQUIRED)],
}
PREDICTION = {
    "name", "label", "probability", "decision", "reasons", "threshold", "refer", "model",
    "model_version", "weights_sha256", "width", "height", "words", "notice", "mpp", "scale",
    "tile_probabilities", "tiles", "share", "point", "missed_of_100", "findings", "tile_findings",
    "ignored", "runtime",
}  # fmt: skip
OF_GUESTS = ("models", "predict", "explain", "report")


@pytest.mark.parametrize(("role", "endpoints"), [("guest", OF_GUESTS), ("doctor", ARGUMENTS)])
def test_arguments_stay_where_they_are(serving: Serving, role: str, endpoints: Any) -> None:
    actor = add_account(serving.clinic) if role == "doctor" else None
    info = serving.visitor(actor).get("/gradio_api/info").json()["named_endpoints"]
    for endpoint in endpoints:
        found = [
            (
                one["parameter_name"],
                one["parameter_default"] if one["parameter_has_default"] else REQUIRED,
            )
            for one in info[f"/{endpoint}"]["parameters"]
        ]
        known = ARGUMENTS[endpoint]
        assert found[: len(known)] == known, endpoint
        assert all(default is not REQUIRED for _, default in found[len(known) :]), endpoint


def test_returned_keys_are_kept(serving: Serving) -> None:
    client = serving.visitor(add_account(serving.clinic))

    def image() -> dict[str, Any]:
        return in_json(upload(client, PATCHES[0].read_bytes()))

    ((offered, *_),) = answer(client, "models")
    assert offered.keys() >= {"name", "title", "version", "weights_sha256", "threshold", "points"}
    (said,) = answer(client, "predict", image(), NAMES[0], 4)
    assert said.keys() >= PREDICTION
    overlay, said = answer(client, "explain", image(), NAMES[0], "predicted", 0.5, 4)
    assert overlay["path"]
    assert said.keys() >= PREDICTION
    (pdf,) = answer(client, "report", image(), NAMES[0], 4)
    assert pdf["path"]
    (made,) = answer(client, "create_patient", "AB-1234", 1957, "")
    assert made.keys() >= {"patient"}
    (saved,) = answer(
        client, "save_examination", made["patient"], [image()], [NAMES[0]], 200, 0, "H&E",
        "not known", "", True, 0,
    )  # fmt: skip
    assert saved.keys() >= {"examination", "images"}
    (examined,) = saved["images"]
    assert examined.keys() >= {"position", "sha256", "field_width_um", "warnings", "answers"}
    assert examined["answers"][0].keys() >= PREDICTION
    (read,) = answer(client, "record_read", saved["examination"], "none", "", "")
    assert read.keys() >= {"examination", "read"}
    (report,) = answer(client, "examination_report", saved["examination"])
    assert report.keys() >= {"report", "sha256", "pdf"}
