"""Reports of examinations: what they tell, when they are the same, and how one is known again."""

import io
import json
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pypdf import PdfReader
from sqlalchemy import select, update

from bcd_models.prediction import NOTICE
from clinic.analysis.analyse import Analysis
from clinic.analysis.models import Models
from clinic.analysis.wording import runtime_words
from clinic.records import examinations, patients, reads
from clinic.records.examinations import Details
from clinic.records.export import export
from clinic.records.patient_fields import PatientForm
from clinic.records.texts import MAX_LENGTH
from clinic.reports import service as reports
from clinic.storage import clock
from clinic.storage.actor import NotAllowed, NotFound, NotSignedIn
from clinic.storage.tables import AuditEntry, Result, StoredReport

HOSTILE = '<img src="file:///etc/passwd"> <b>größer</b> &amp; {7*7} Жизнь'


def text_of(pdf: bytes) -> str:
    return " ".join(
        " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages).split()
    )


@pytest.fixture
def handed_out(clinic, ada, small_models, saved):
    def made(examination=None):
        return reports.issue_report(clinic, ada, small_models, examination or saved())

    return made


def test_it_tells_the_read_first_then_each_image_with_its_answers(
    clinic, ada, patient, saved, handed_out, analysed
):
    examination = saved()
    reads.record(clinic, ada, examination, "indeterminate", "needs levels")
    reads.record(clinic, ada, examination, "invasive", "", "levels have come")
    report_id, pdf = handed_out(examination)
    text = text_of(pdf)
    in_order = [report_id, "Pattern of invasive carcinoma", "Read 2,", "Read 1,", patient]
    in_order += [
        examination,
        "Image 1",
        "4 µm a pixel, as given; the field is 200 µm wide",
        "Image 2",
        "taken as the model's own",
        "The model small",
    ]
    places = [text.find(words) for words in in_order]
    assert places == sorted(places)
    assert -1 not in places
    for words in ("levels have come", "needs levels", "AB-1234", "by ada"):
        assert words in text
    for one in analysed:
        for explanation in one.explanations.values():
            assert f"this image: {explanation.prediction.probability:.3f}" in text
            assert explanation.prediction.weights_sha256 in text
            assert f"Answered by {runtime_words(explanation.prediction)}" in text


def test_what_answered_is_left_out_where_it_is_not_known(clinic, saved, handed_out):
    """Of examinations saved before it was kept: their reports stay what they were."""
    examination = saved()
    with clinic.database.transaction() as session:
        session.execute(update(Result).values(runtime=""))
    report_id, pdf = handed_out(examination)
    assert "Answered by" not in text_of(pdf)
    with clinic.database.transaction() as session:
        session.execute(update(Result).values(runtime="torch bfloat16"))
    other_id, pdf = handed_out(examination)
    assert "Answered by torch, bfloat16" in text_of(pdf)
    assert other_id != report_id


def test_every_page_has_the_notice_the_report_s_id_and_its_number(handed_out):
    report_id, pdf = handed_out()
    pages = PdfReader(io.BytesIO(pdf)).pages
    for number, page in enumerate(pages, 1):
        text = " ".join(page.extract_text().split())
        assert NOTICE in text
        assert f"Report {report_id}" in text
        assert f"page {number} of {len(pages)}" in text


def test_an_examination_that_nobody_read_says_so(handed_out):
    assert "has not been read by a pathologist" in text_of(handed_out()[1])


def test_answers_that_were_not_shown_are_not_told(clinic, ada, saved, handed_out):
    hidden = saved(shown=False)
    report_id, pdf = handed_out(hidden)
    assert "were kept hidden in this examination" in text_of(pdf)
    assert "Estimated probability" not in text_of(pdf)
    examinations.view(clinic, ada, hidden, reveal=True)
    later_id, later = handed_out(hidden)
    assert later_id != report_id
    assert "Estimated probability" in text_of(later)


def test_a_user_s_words_are_shown_and_never_interpreted(clinic, ada, patient, analysed, handed_out):
    details = Details(comment=f"{HOSTILE}\nsecond line")
    examination = examinations.save(clinic, ada, patient, Analysis(analysed, True), details)
    reads.record(clinic, ada, examination, "none", HOSTILE)
    text = text_of(handed_out(examination)[1])
    assert text.count(HOSTILE) == 2
    assert "second line" in text


def test_the_longest_comments_and_reasons_are_all_there(clinic, ada, patient, analysed, handed_out):
    def longest(mark):
        words = ("\n".join(f"{mark}{number}." for number in range(MAX_LENGTH)))[:MAX_LENGTH]
        return words.rpartition("\n")[0]

    details = Details(comment=longest("C"))
    examination = examinations.save(clinic, ada, patient, Analysis(analysed, True), details)
    reads.record(clinic, ada, examination, "none", longest("D"))
    reads.record(clinic, ada, examination, "indeterminate", "W" * MAX_LENGTH, longest("E"))
    reads.record(
        clinic, ada, examination, "invasive", "x" + "\n" * (MAX_LENGTH - 2) + "y", "levels"
    )
    first = handed_out(examination)
    words = text_of(first[1]).split()
    for mark in "CDE":
        own = [one for one in words if one[0] == mark and one[1:-1].isdigit()]
        assert own == longest(mark).split()
    assert "".join(words).count("W") >= MAX_LENGTH
    with clinic.database.transaction() as session:  # made anew, it is the same
        session.delete(session.get(StoredReport, first[0]))
    assert handed_out(examination) == first


def test_the_same_examination_gives_the_same_bytes_whenever(
    clinic, ada, saved, handed_out, monkeypatch
):
    examination = saved()
    first = handed_out(examination)
    monkeypatch.setattr(clock, "now", lambda: datetime(2031, 1, 1, tzinfo=UTC))
    assert handed_out(examination) == first
    with clinic.database.transaction() as session:  # and not only because they were kept
        session.delete(session.get(StoredReport, first[0]))
    assert handed_out(examination) == first
    reads.record(clinic, ada, examination, "none")
    assert handed_out(examination)[0] != first[0]


def test_a_letterhead_stands_first(clinic, ada, small_models, saved):
    named = replace(
        clinic, settings=clinic.settings.model_copy(update={"letterhead": "Pathology <b>Süd</b>"})
    )
    _, pdf = reports.issue_report(named, ada, small_models, saved())
    assert "Pathology <b>Süd</b> Examination report" in text_of(pdf)


def test_a_demonstration_s_report_says_so(clinic, ada, analysed, handed_out):
    drawn = patients.create(clinic, ada, PatientForm(), synthetic=True)
    examination = examinations.save(clinic, ada, drawn, Analysis(analysed, True), Details())
    told = text_of(handed_out(examination)[1])
    assert "synthetic record of a demonstration" in told
    assert "drawn" not in told  # a visitor may have handed in anything


def test_test_figures_are_told_of_these_very_weights(clinic, ada, saved, small_models, tmp_path):
    offered = small_models.describe("small-one")
    folder = tmp_path / "small-one"
    folder.mkdir()
    for file in offered.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    interval = {"value": 0.912, "low": 0.884, "high": 0.939}
    counts = {"images": 1601, "cases": 36}
    metrics = {
        "model": {"weights_sha256": offered.weights_sha256},
        "data": {"counts": counts, "train_counts": counts, "part": "test", "split": "grouped"},
        "overall": dict.fromkeys(("auroc", "recall", "specificity"), interval),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    _, pdf = reports.issue_report(clinic, ada, Models([str(folder)]), saved())
    text = text_of(pdf)
    assert "AUROC 0.912 (0.884 to 0.939), sensitivity 91.2% (88.4% to 93.9%)" in text
    assert "1,601 images of 36 cases (test part of the grouped split)" in text
    assert "not known here for these weights" in text  # of the other model, which isn't offered


def test_only_the_patient_s_doctor_gets_it(clinic, doctors, saved, small_models):
    examination = saved()
    for actor, error in (
        (None, NotSignedIn),
        (doctors["admin"], NotAllowed),
        (doctors["grace"], NotFound),
    ):
        with pytest.raises(error):
            reports.issue_report(clinic, actor, small_models, examination)


def test_each_handing_out_is_logged(clinic, ada, saved, handed_out):
    examination = saved()
    report_id, _ = handed_out(examination)
    handed_out(examination)
    with clinic.database.snapshot() as session:
        logged = session.scalars(
            select(AuditEntry).where(AuditEntry.action == "report_handed_out")
        ).all()
        assert [entry.detail["report"] for entry in logged] == [report_id, report_id]
        assert len(session.scalars(select(StoredReport)).all()) == 1


def test_a_report_is_known_by_its_bytes_and_its_id(clinic, doctors, ada, handed_out):
    report_id, pdf = handed_out()
    sha256 = reports.hash_report(pdf)
    for actor in doctors.values():
        assert reports.check_report(clinic, actor, f" {sha256.upper()} ").genuine
    assert reports.check_report(clinic, ada, sha256, report_id.lower()).genuine
    changed = reports.check_report(clinic, ada, reports.hash_report(pdf + b" "), report_id)
    assert not changed.genuine
    assert "other bytes" in changed.words


def test_of_another_s_report_nothing_is_told_without_its_bytes(clinic, doctors, handed_out):
    report_id, _ = handed_out()
    told = reports.check_report(clinic, doctors["grace"], "0" * 64, report_id)
    assert told == reports.check_report(clinic, doctors["grace"], "0" * 64, "R-0000000000")
    with pytest.raises(NotSignedIn):
        reports.check_report(clinic, None, "0" * 64)


def test_reports_leave_with_their_patient(clinic, ada, patient, handed_out):
    number, pdf = handed_out()
    with zipfile.ZipFile(io.BytesIO(export(clinic, ada, patient))) as archive:
        assert archive.read(f"reports/{number}.pdf") == pdf
        (examination,) = json.loads(archive.read("patient.json"))["examinations"]
    assert examination["reports"] == [f"reports/{number}.pdf"]


def test_reports_go_with_their_patient(clinic, ada, patient, handed_out):
    _, pdf = handed_out()
    sha256 = reports.hash_report(pdf)
    assert sha256 in set(clinic.storage.list_hashes())
    patients.delete(clinic, ada, patient, patient)
    assert not list(clinic.storage.list_hashes())
    assert not reports.check_report(clinic, ada, sha256).genuine
