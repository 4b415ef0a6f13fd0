"""A patient's zip holds the whole record, and nothing that tells more."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable

import pytest
from PIL import Image

from bcd_models.prediction import NOTICE
from clinic.analysis.analyse import Analysed
from clinic.installation import Installation
from clinic.records import patients, reads
from clinic.records.export import export
from clinic.storage.actor import Actor, NotAllowed, NotFound, NotSignedIn
from clinic.storage.files import StorageError
from clinic.storage.tables import AuditEntry
from tests.support.clinic import NAMES


def test_the_zip_holds_the_whole_record(
    clinic: Installation,
    ada: Actor,
    patient: str,
    saved: Callable[..., str],
    analysed: tuple[Analysed, ...],
) -> None:
    number = saved()
    reads.record(clinic, ada, number, "none", "clear <b>margins</b>")
    reads.record(clinic, ada, number, "indeterminate", reason="second look")
    data = export(clinic, ada, patient)
    assert data == export(clinic, ada, patient)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        record = json.loads(archive.read("patient.json"))
        assert NOTICE in archive.read("README.txt").decode()
        pictures = {name: archive.read(name) for name in names if name.endswith(".png")}
    assert set(pictures) == {
        *(f"images/{number}-{place}.png" for place in (1, 2)),
        *(f"heatmaps/{number}-{place}-{which}.png" for place in (1, 2) for which in (1, 2)),
    }
    for picture in pictures.values():
        Image.open(io.BytesIO(picture)).verify()
    assert (record["id"], record["external_id"], record["note"]) == (patient, "AB-1234", "größer")
    (examination,) = record["examinations"]
    first = examination["images"][0]
    assert [result["model"] for result in first["results"]] == list(NAMES)
    assert first["results"][0]["refer"] == [0.35, 0.45]
    answered_by = [one.prediction.runtime for one in analysed[0].explanations.values()]
    assert [result["runtime"] for result in first["results"]] == answered_by
    assert [(result["mpp"], result["scale"]) for result in first["results"]] == [(4, "given")] * 2
    assert [result["tile_probabilities"] for result in first["results"]] == [[]] * 2
    assert [read["verdict"] for read in examination["reads"]] == [
        "no pattern of invasive carcinoma",
        "indeterminate",
    ]
    assert examination["reads"][0]["comment"] == "clear <b>margins</b>"
    assert examination["reads"][0]["result_shown"] is True
    named = re.findall(r'"(?:file|heat_map)": "([^"]+)"', json.dumps(record))
    assert set(named) == set(pictures)


def test_it_is_the_doctors_alone_and_logged(
    clinic: Installation, doctors: dict[str, Actor], patient: str
) -> None:
    refusals = {None: NotSignedIn, "admin": NotAllowed, "grace": NotFound}
    for name, refusal in refusals.items():
        with pytest.raises(refusal):
            export(clinic, doctors[name] if name else None, patient)
    export(clinic, doctors["ada"], patient)
    with clinic.database.snapshot() as session:
        exported = session.query(AuditEntry).filter_by(action="patient_exported").all()
    assert [(row.account_name, row.subject) for row in exported] == [("ada", f"patient {patient}")]


def test_a_damaged_file_is_told(
    clinic: Installation, ada: Actor, patient: str, saved: Callable[..., str]
) -> None:
    saved()
    sha256 = next(iter(clinic.storage.list_hashes()))
    clinic.storage.path(sha256).write_bytes(b"other")
    with pytest.raises(StorageError, match="damaged"):
        export(clinic, ada, patient)
    patients.delete(clinic, ada, patient, patient)
