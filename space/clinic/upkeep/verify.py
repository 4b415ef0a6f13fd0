"""Whether an installation is sound: rows against stored files, and the audit log's chain."""

from __future__ import annotations

from dataclasses import dataclass

from clinic.installation import Installation
from clinic.storage import tallies
from clinic.storage.files import StorageError
from clinic.storage.references import list_referenced


@dataclass(frozen=True)
class Findings:
    """What was found."""

    files: int  # how many stored files rows name
    broken: tuple[str, ...]  # what is wrong and can't be repaired here, in words
    orphans: tuple[str, ...]  # hashes of stored files that no row names
    unfinished: int  # how many files killed writers have left
    miscounted: bool  # whether the dashboard's tallies are not what a new count finds

    @property
    def problems(self) -> list[str]:
        """All of it in words; empty where the installation is sound."""
        found = list(self.broken)
        if self.orphans:
            found.append(f"{len(self.orphans)} stored files belong to nothing")
        if self.unfinished:
            found.append(f"{self.unfinished} files were never finished")
        if self.miscounted:
            found.append("the dashboard's tallies are not what its examinations come to")
        return found


def verify(clinic: Installation, repair: bool = False) -> Findings:
    """Look at everything; savers wait while it looks at files.

    ``repair`` deletes files that belong to nothing, and unfinished ones, and counts tallies again.
    """
    storage = clinic.storage
    with storage.lock_for_deleting():
        with clinic.database.snapshot() as session:
            # The log first: acts go on meanwhile, and its head must not be newer than these rows.
            broken = clinic.log.find_problems(session)
            named = list_referenced(session)
        for sha256 in sorted(named):
            try:
                storage.read(sha256)
            except StorageError as error:
                broken.append(str(error))
        orphans = tuple(sha256 for sha256 in storage.list_hashes() if sha256 not in named)
        unfinished = storage.list_unfinished()
        if repair:
            for sha256 in orphans:
                storage.delete(sha256)
            for path in unfinished:
                path.unlink()
    miscounted = _find_miscounted(clinic, repair)
    return Findings(len(named), tuple(broken), orphans, len(unfinished), miscounted)


def _find_miscounted(clinic: Installation, repair: bool) -> bool:
    """Return whether the tallies were wrong; savers of images need not wait for this."""
    with clinic.database.snapshot() as session:
        miscounted = not tallies.are_sound(session)
    if repair and miscounted:
        with clinic.database.transaction() as session:
            tallies.rebuild(session)
    return miscounted
