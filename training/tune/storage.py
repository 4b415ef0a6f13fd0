"""Where a study is kept: a database by URL (SQLite, PostgreSQL), or a journal file.

A worker shows that it lives; when it stops doing so, its trial is failed and queued again with
equal numbers. Optuna does this for databases alone, so the journal learns it here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from bcd_models.errors import InputError

DATABASE = "study.db"
MISSED = 4
RETRIES = 2
CONNECT_SECONDS = 10
LOCKED_SECONDS = 60


class JournalWithHeartbeat(JournalStorage, BaseHeartbeat):
    """Optuna's journal, and beside it a folder with a file a running trial, touched by its worker.

    A shared disk's server stamps the files, so that clocks of machines need not agree.

    Args:
        path: The journal file.
        interval: Seconds between touches.
    """

    def __init__(self, path: Path, interval: int) -> None:
        super().__init__(JournalFileBackend(str(path)))
        self._alive = path.with_name(f"{path.name}.alive")
        self._alive.mkdir(exist_ok=True)
        self._interval = interval

    def record_heartbeat(self, trial_id: int) -> None:
        """Touch the trial's file."""
        (self._alive / str(trial_id)).touch()

    def get_heartbeat_interval(self) -> int:
        """Seconds between touches."""
        return self._interval

    def get_heartbeat_stale_trial_callback(self) -> Any:
        """What is done about a trial whose worker is gone."""
        return _retry()

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        clock = self._alive / "clock"
        clock.touch()
        oldest = clock.stat().st_mtime - MISSED * self._interval
        running = self.get_all_trials(study_id, states=(TrialState.RUNNING,))
        seen = [(trial._trial_id, self._alive / str(trial._trial_id)) for trial in running]
        return [number for number, file in seen if file.exists() and file.stat().st_mtime < oldest]


def sqlite_url(folder: Path) -> str:
    """The URL of a study folder's own database."""
    return f"sqlite:///{folder.resolve() / DATABASE}"


def opened(where: str, interval: int) -> BaseStorage:
    """Connect to a storage, making its tables or its file where it is new; then ``close`` it.

    Args:
        where: A database URL, or the path of a journal file.
        interval: Seconds between a worker's signs of life.

    Raises:
        InputError: It can't be reached, or is something else.
    """
    with reached(where), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat's, of 2021
        try:
            if "://" in where:
                return _database(where, interval)
            return JournalWithHeartbeat(Path(where), interval)
        except (ImportError, RuntimeError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"study storage {_shown(where)} is not Optuna's, or of another version ({error})"
            ) from None


def close(storage: BaseStorage) -> None:
    """Close a database's connections; a journal keeps none."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def reached(where: str) -> Iterator[None]:
    """Tell a storage's or a disk's failures in one line, without the URL's password."""
    try:
        yield
    except OSError as error:
        raise InputError(f"the study stopped: {error}; the same command goes on") from None
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"study storage {_shown(where)} can't be used ({reason}): check --storage; what is "
            "finished is kept, and the same command goes on"
        ) from None


def copy_finished(name: str, source: str, target: str) -> int:
    """Copy a study's finished trials, and what it is bound to, into a storage without one.

    Trials under way stay where their workers are.

    Returns:
        How many trials there are.
    """
    storages = [opened(where, interval=1) for where in (source, target)]
    try:
        before = optuna.load_study(study_name=name, storage=storages[0])
        after = optuna.create_study(storage=storages[1], study_name=name, direction="maximize")
        for key, value in before.user_attrs.items():
            after.set_user_attr(key, value)
        finished = [trial for trial in before.trials if trial.state.is_finished()]
        after.add_trials(finished)
    finally:
        for storage in storages:
            close(storage)
    return len(finished)


def fail_dead_trials(study: optuna.Study) -> None:
    """Fail and queue again the trials of workers that show no life any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _database(where: str, interval: int) -> RDBStorage:
    url = make_url(where)
    settings: dict[str, Any] = {}
    if url.get_backend_name() == "sqlite":
        settings = {"connect_args": {"timeout": LOCKED_SECONDS}}
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
        settings = {"connect_args": {"connect_timeout": CONNECT_SECONDS}, "pool_pre_ping": True}
    # Optuna fills in braces of the URL as of a template.
    escaped = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return RDBStorage(
        escaped,
        settings,
        heartbeat_interval=interval,
        grace_period=MISSED * interval,
        heartbeat_stale_trial_callback=_retry(),
    )


def _retry() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)


def _shown(where: str) -> str:
    try:
        return make_url(where).render_as_string() if "://" in where else where
    except SQLAlchemyError:
        return "(no URL)"
