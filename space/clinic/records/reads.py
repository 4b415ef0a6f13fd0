"""Reads: what a pathologist makes of an examination; amended by a further read, never changed."""

from __future__ import annotations

from bcd_models.errors import InputError
from clinic.accounts.permissions import require_doctor
from clinic.analysis.wording import capitalise
from clinic.installation import Installation
from clinic.records import examinations
from clinic.records.texts import check_text
from clinic.storage import clock, tallies
from clinic.storage.actor import Actor
from clinic.storage.tables import Read

VERDICTS = {
    "invasive": "pattern of invasive carcinoma",
    "none": "no pattern of invasive carcinoma",
    "indeterminate": "indeterminate",
}


def describe_verdict(read: Read) -> str:
    """Return the verdict of a read."""
    return capitalise(VERDICTS[read.verdict])


def describe_timing(read: Read) -> str:
    """Say whether answers about its images had been shown to the reader before, on any page."""
    return f"{'after' if read.result_shown else 'before'} the models' answers were shown"


def record(
    clinic: Installation,
    actor: Actor | None,
    examination_id: str,
    verdict: str,
    comment: str = "",
    reason: str = "",
) -> int:
    """Record a read; returns its number, from 1.

    Whether an answer about one of the images had been shown to the reader before, in this
    examination or elsewhere, is noted with it. ``reason`` says why an earlier read is amended; it
    is needed then, and only then.

    Raises:
        NotSignedIn, NotAllowed, NotFound: The actor is no doctor, or there is none of theirs.
        InputError: No such verdict, no reason, or a text that can't be accepted.
    """
    doctor = require_doctor(actor)
    if verdict not in VERDICTS:
        raise InputError(f"no verdict {verdict!r}: choose one of {', '.join(VERDICTS)}")
    comment = check_text(comment, "comment")
    reason = check_text(reason, "reason")
    with clinic.database.transaction() as session:
        examination = examinations.get_own(session, doctor, examination_id)
        number = len(examination.reads) + 1
        if number > 1 and not reason:
            raise InputError("this examination has been read: say why the read is amended")
        if number == 1 and reason:
            raise InputError("a first read amends nothing: leave the reason empty")
        before = tallies.count_examinations(doctor.account_id, [examination])
        examination.reads.append(
            Read(
                number=number,
                verdict=verdict,
                comment=comment,
                reason=reason,
                by=doctor.account_id,
                at=clock.now(),
                result_shown=examinations.has_seen_answers(session, doctor, examination),
            )
        )
        after = tallies.count_examinations(doctor.account_id, [examination])
        tallies.change(session, before, after)
        examinations.log(clinic, session, "read_recorded", doctor, examination, number=number)
        return number
