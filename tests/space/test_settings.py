"""What the environment may say, and what it may not."""

from pathlib import Path

import pytest

from bcd_models.errors import InputError
from clinic.settings import Settings


def settings(**variables: str) -> Settings:
    return Settings.from_environment({"BCD_MODELS": "a, b"} | variables)


def test_unset_means_sqlite_at_home_guests_and_no_demonstration() -> None:
    found = settings()
    assert found.models == ("a", "b")
    assert found.data == Path.home() / ".local/share/bcd-clinic"
    assert found.database == f"sqlite:///{found.data / 'clinic.db'}"
    assert (found.guests, found.demo, found.admin_password) == (True, False, "")
    assert found == settings(BCD_GUESTS="", BCD_DEMO=" ", BCD_SESSION_HOURS="")


def test_every_variable_is_read() -> None:
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
    )
    assert found.database == "postgresql://db/clinic"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BCD_GUESTS", "perhaps"),
        ("BCD_PROXIES", "10.0.0.1, proxy.example"),
        ("BCD_EXTERNAL_ID", "["),
        ("BCD_SESSION_HOURS", "soon"),
        ("BCD_SESSION_HOURS", "0"),
        ("BCD_SESSION_HOURS", "inf"),
        ("BCD_SESSION_HOURS", "nan"),
    ],
)
def test_what_can_not_be_read_is_told_by_name(name: str, value: str) -> None:
    with pytest.raises(InputError, match=name):
        settings(**{name: value})
