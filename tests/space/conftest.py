"""Installations on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from bcd_models import Prediction
from clinic.accounts import passwords
from clinic.analysis.analyse import Analysed, Analysis, HandedIn, analyse
from clinic.analysis.models import Models
from clinic.installation import Installation
from clinic.records import examinations, patients
from clinic.records.examinations import Details
from clinic.records.patient_fields import PatientForm
from clinic.storage import clock
from clinic.storage.actor import Actor, Role
from clinic.storage.tables import Account
from clinic.storage.tallies import model_key
from tests.support.clinic import (
    DATABASES,
    NAMES,
    PATCHES,
    Clock,
    empty_database,
    installation_at,
)
from tests.support.running_app import POINTS, read_suitability, save_small_model
from tests.support.serving import Serving, serving_at


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing as it is, but for its cost."""
    quick = PasswordHash([Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)])
    monkeypatch.setattr(passwords, "_get_hasher", lambda: quick)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database of each kind; "": SQLite in the data folder."""
    if request.param == "sqlite":
        yield ""
        return
    with empty_database(request.getfixturevalue("postgres")) as url:
        yield url


@pytest.fixture
def clinic(database_url: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation on each kind of database."""
    with installation_at(tmp_path, database_url) as opened:
        yield opened


@pytest.fixture
def doctors(clinic: Installation) -> dict[str, Actor]:
    """Two doctors and an admin; without passwords, whose hashing takes its time."""
    roles: dict[str, Role] = {"admin": "admin", "ada": "doctor", "grace": "doctor"}
    with clinic.database.transaction() as session:
        made = [Account(name=name, role=roles[name], created_at=clock.now()) for name in roles]
        session.add_all(made)
        session.flush()
        return {one.name: Actor(one.id, one.name, one.role, "10.0.0.1") for one in made}


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clinic's clock, which stands still until it is moved."""
    stands = Clock()
    monkeypatch.setattr(clock, "now", stands)
    return stands


@pytest.fixture
def ada(doctors: dict[str, Actor]) -> Actor:
    """A doctor."""
    return doctors["ada"]


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """One quick model of each backbone."""
    root = tmp_path_factory.mktemp("models")
    backbones = ("mobilenetv2", "efficientnet_b2")
    return Models(
        [str(save_small_model(root, *pair)) for pair in zip(NAMES, backbones, strict=True)]
    )


@pytest.fixture(scope="session")
def pointed_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """One quick model with operating points."""
    folder = tmp_path_factory.mktemp("pointed")
    return Models([str(save_small_model(folder, "small-pointed", points=POINTS))])


@pytest.fixture(scope="session")
def judging_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """One quick model with operating points that tells tissue from what is none."""
    folder, suitability = tmp_path_factory.mktemp("judging"), read_suitability()
    saved = save_small_model(folder, "small-judge", points=POINTS, suitability=suitability)
    return Models([str(saved)])


@pytest.fixture(scope="session")
def analysed(small_models: Models) -> tuple[Analysed, ...]:
    """Two images, one of them of known scale, and what both models say of them."""
    handed_in = [
        HandedIn(path.read_bytes(), mpp) for path, mpp in zip(PATCHES, (4, None), strict=False)
    ]
    return analyse(small_models, handed_in, NAMES)


@pytest.fixture
def patient(clinic: Installation, ada: Actor) -> str:
    """One of the doctor's patients."""
    return patients.create(clinic, ada, PatientForm("AB-1234", 1957, "größer"))


@pytest.fixture
def saved(
    clinic: Installation, ada: Actor, patient: str, analysed: tuple[Analysed, ...]
) -> Callable[..., str]:
    """Saves an examination of the patient; returns its id."""
    return lambda shown=True: examinations.save(
        clinic, ada, patient, Analysis(analysed, shown), Details()
    )


@pytest.fixture
def save_on(
    clinic: Installation, analysed: tuple[Analysed, ...], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Saves an examination of both images on some day."""

    def save(day: date, doctor: Actor, patient: str, shown: bool = True) -> str:
        at = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
        with monkeypatch.context() as then:
            then.setattr(clock, "now", lambda: at)
            return examinations.save(clinic, doctor, patient, Analysis(analysed, shown), Details())

    return save


@pytest.fixture(scope="session")
def keys(small_models: Models) -> list[str]:
    """Of both models, as tallies name them."""
    offered = map(small_models.describe, small_models.names)
    return [model_key(o.config.name, o.config.version, o.weights_sha256) for o in offered]


@pytest.fixture(scope="session")
def said(analysed: tuple[Analysed, ...]) -> list[list[Prediction]]:
    """What each model says of both images."""
    return [[one.explanations[name].prediction for one in analysed] for name in NAMES]


@pytest.fixture(scope="session")
def serving(small_models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The whole app; tests share it, each with accounts of its own."""
    with serving_at(tmp_path_factory.mktemp("serving"), small_models) as running:
        yield running
