"""What the environment may say, and what it may not."""

import os
import re
from pathlib import Path
from typing import Protocol

import pytest

from bcd_models.errors import InputError
from clinic.settings import Settings, read_published_models
from tests.conftest import ROOT


class Read(Protocol):
    def __call__(self, **variables: str) -> Settings: ...


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads an environment that holds nothing else of ours."""

    def read(**variables: str) -> Settings:
        for name in [name for name in os.environ if name.startswith("BCD_")]:
            monkeypatch.delenv(name)
        for name, value in ({"BCD_MODELS": "a, b"} | variables).items():
            monkeypatch.setenv(name, value)
        return Settings.from_environment()

    return read


def test_unset_means_sqlite_at_home_guests_and_no_demonstration(settings: Read) -> None:
    found = settings()
    assert found.models == ("a", "b")
    assert found.data == Path.home() / ".local/share/bcd-clinic"
    assert found.database == f"sqlite:///{found.data / 'clinic.db'}"
    assert (found.guests, found.demo, found.admin_password) == (True, False, "")
    assert found == settings(BCD_GUESTS="", BCD_DEMO=" ", BCD_SESSION_HOURS="")


def test_every_variable_is_read(settings: Read) -> None:
    found = settings(
        BCD_DATA_FOLDER="/srv/clinic",
        BCD_DATABASE_URL="postgresql://db/clinic",
        BCD_GUESTS="no",
        BCD_DEMO="1",
        BCD_ADMIN_PASSWORD="correct horse",
        BCD_LETTERHEAD="Department of Pathology",
        BCD_EXTERNAL_ID="[0-9]{6}",
        BCD_PROXIES="10.0.0.1, 10.0.0.2",
        BCD_HOSTS="clinic.example",
        BCD_SESSION_HOURS="0.5",
        BCD_HUB_ACCOUNTS="ada,grace",
        BCD_POINT="screening",
        BCD_DEVICE="cpu",
    )
    assert found == Settings(
        models=("a", "b"),
        data=Path("/srv/clinic"),
        database_url="postgresql://db/clinic",
        guests=False,
        demo=True,
        admin_password="correct horse",
        letterhead="Department of Pathology",
        external_id="[0-9]{6}",
        proxies=("10.0.0.1", "10.0.0.2"),
        hosts=("clinic.example",),
        session_hours=0.5,
        hub_accounts=("ada", "grace"),
        point="screening",
        device="cpu",
    )
    assert found.database == "postgresql://db/clinic"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BCD_GUESTS", "perhaps"),
        ("BCD_DEVICE", "gpu"),
        ("BCD_PROXIES", "10.0.0.1, proxy.example"),
        ("BCD_EXTERNAL_ID", "["),
        ("BCD_SESSION_HOURS", "soon"),
        ("BCD_SESSION_HOURS", "0"),
        ("BCD_SESSION_HOURS", "inf"),
        ("BCD_SESSION_HOURS", "nan"),
    ],
)
def test_what_can_not_be_read_is_told_by_name(settings: Read, name: str, value: str) -> None:
    with pytest.raises(InputError, match=name) as told:
        settings(**{name: value})
    assert "\n" not in str(told.value)


def test_a_variable_of_another_s_is_not_read(settings: Read) -> None:
    assert settings(BCD_DATA="/elsewhere", DEMO="1", HOSTS="x") == settings()


def test_what_code_sets_needs_no_environment(
    settings: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCD_GUESTS", "no")
    assert Settings(models=()).guests


@pytest.mark.parametrize("checkout", [True, False])
def test_without_models_those_at_hand_are_offered(
    settings: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkout: bool
) -> None:
    if not checkout:
        monkeypatch.setattr("clinic.settings.CARDS", tmp_path)
    found = settings(BCD_MODELS=" ").models
    assert found
    assert all(Path(one).is_dir() == checkout for one in found)


def test_the_model_that_the_readme_loads_comes_first(
    settings: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, *_ = re.findall(r'from_pretrained\("cards/([\w-]+)"\)', (ROOT / "README.md").read_text())
    checkout = settings(BCD_MODELS="").models
    monkeypatch.setattr("clinic.settings.CARDS", tmp_path)
    for names in (checkout, settings(BCD_MODELS="").models):
        assert Path(names[0]).name == name
        assert len(names) > 1


def test_a_card_that_names_no_models_is_told(
    settings: Read, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    card = tmp_path / "README.md"
    monkeypatch.setattr("clinic.settings.CARDS", tmp_path)
    monkeypatch.setattr(
        "clinic.settings.read_published_models", lambda: read_published_models(card)
    )
    with pytest.raises(InputError, match="set BCD_MODELS"):
        settings(BCD_MODELS="")
