"""Where a study is kept: a database by URL, SQLite for one machine or PostgreSQL for several.

A worker shows that it lives; when it stops doing so, its trial is failed and queued again with
equal numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from bcd_models.errors import InputError

DATABASE = "study.db"
MAX_MISSED_HEARTBEATS = 4
MAX_RETRIES = 2
CONNECT_SECONDS = 10
LOCKED_SECONDS = 60


def sqlite_url(folder: Path) -> str:
    """Return the URL of a study folder's own database."""
    return f"sqlite:///{folder.resolve() / DATABASE}"


@contextmanager
def open_storage(url: str, interval: int) -> Iterator[RDBStorage]:
    """Connect to a database, making its tables where it is new; close its connections at the end.

    Args:
        url: Of SQLite or PostgreSQL.
        interval: Seconds between a worker's signs of life.

    Raises:
        InputError: It can't be reached, or is something else.
    """
    with explain_failures(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat's, of 2021
        try:
            storage = _connect(make_url(url), interval)
        except (ImportError, RuntimeError, ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"study storage {_without_password(url)} is not Optuna's, or of another version "
                f"({error})"
            ) from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def explain_failures(url: str) -> Iterator[None]:
    """Raise a database's or a disk's failures as one line, without the URL's password."""
    try:
        yield
    except OSError as error:
        raise InputError(f"the study stopped: {error}; the same command goes on") from None
    except (SQLAlchemyError, StorageInternalError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(
            f"study storage {_without_password(url)} can't be used ({reason}): check --storage; "
            "what is finished is kept, and the same command goes on"
        ) from None


def copy_finished(name: str, source: BaseStorage, target: BaseStorage) -> None:
    """Copy a study's finished trials, and what it is bound to, into a storage without one.

    Trials under way stay where their workers are.
    """
    before = optuna.load_study(study_name=name, storage=source)
    after = optuna.create_study(storage=target, study_name=name, direction="maximize")
    for key, value in before.user_attrs.items():
        after.set_user_attr(key, value)
    after.add_trials([trial for trial in before.trials if trial.state.is_finished()])


def fail_dead_trials(study: optuna.Study) -> None:
    """Fail and queue again the trials of workers that show no life any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _connect(url: URL, interval: int) -> RDBStorage:
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
        grace_period=MAX_MISSED_HEARTBEATS * interval,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(
            max_retry=MAX_RETRIES
        ),
    )


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string()
    except SQLAlchemyError:
        return "(no URL)"
