"""What the environment says about this installation."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from bcd_models.errors import InputError

SPACE_CARD = Path(__file__).resolve().parents[1] / "README.md"
CARDS = Path(__file__).resolve().parents[2] / "cards"
DATA = Path("~/.local/share/bcd-clinic")
DATABASE = "clinic.db"  # of SQLite, in the data folder
EXTERNAL_ID = r"[A-Z]{1,4}-?[0-9]{2,12}"
YES, NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """One installation's settings.

    Attributes:
        models: Model folders or Hub ids, the default model first.
        data: Folder of the database, of images, heat maps and reports, and of the audit's key.
        database_url: Of the database; "": SQLite in the data folder.
        guests: Whether anyone may try an image.
        demo: Whether a demonstration's doctor and synthetic patients are made, and the login shown.
        admin_password: The first admin's, where no account is there yet; "": one is made up.
        letterhead: First line of every report.
        external_id: Pattern that an external id must match as a whole.
        proxies: Addresses and networks whose forwarded headers are believed.
        hosts: Names the app is reached by; empty: any.
        session_hours: How long a sign-in lasts without use; three times as long at most.
        hub_accounts: Hub accounts that may sign in as doctors; empty: none may.
    """

    models: tuple[str, ...]
    data: Path = field(default_factory=lambda: DATA.expanduser())
    database_url: str = ""
    guests: bool = True
    demo: bool = False
    admin_password: str = ""
    letterhead: str = ""
    external_id: str = EXTERNAL_ID
    proxies: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    session_hours: float = 8.0
    hub_accounts: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables that begin with ``BCD_``; docs/clinic.md lists them.

        Where ``BCD_MODELS`` is unset, the models of the checkout this file lies in are offered,
        and where there is no checkout, as on the Hub, those that the Space's card names.

        Raises:
            InputError: A variable can't be read, or the card names no models.
        """
        known = _Environment(environment)
        return cls(
            models=known.several("BCD_MODELS") or _checkout_models() or published_models(),
            data=Path(known.text("BCD_DATA_FOLDER", str(DATA))).expanduser(),
            database_url=known.text("BCD_DATABASE_URL"),
            guests=known.yes("BCD_GUESTS", True),
            demo=known.yes("BCD_DEMO", False),
            admin_password=known.text("BCD_ADMIN_PASSWORD"),
            letterhead=known.text("BCD_LETTERHEAD"),
            external_id=known.pattern("BCD_EXTERNAL_ID", EXTERNAL_ID),
            proxies=known.networks("BCD_PROXIES"),
            hosts=known.several("BCD_HOSTS"),
            session_hours=known.positive("BCD_SESSION_HOURS", 8.0),
            hub_accounts=known.several("BCD_HUB_ACCOUNTS"),
        )

    @property
    def database(self) -> str:
        """URL of the database in use."""
        return self.database_url or f"sqlite:///{self.data / DATABASE}"


@dataclass(frozen=True)
class _Environment:
    """Variables, read with a clear error."""

    variables: Mapping[str, str]

    def text(self, name: str, default: str = "") -> str:
        return self.variables.get(name, "").strip() or default

    def several(self, name: str) -> tuple[str, ...]:
        parts = (part.strip() for part in self.text(name).split(","))
        return tuple(part for part in parts if part)

    def networks(self, name: str) -> tuple[str, ...]:
        texts = self.several(name)
        for text in texts:
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise InputError(f"{name} holds {text!r}: name addresses or networks") from None
        return texts

    def yes(self, name: str, default: bool) -> bool:
        text = self.text(name).lower()
        if name not in self.variables or not text:
            return default
        if text not in (*YES, *NO):
            raise InputError(f"{name} is {text!r}: set it to yes or no")
        return text in YES

    def pattern(self, name: str, default: str) -> str:
        text = self.text(name, default)
        try:
            re.compile(text)
        except re.error as error:
            raise InputError(f"{name} is no regular expression: {error}") from None
        return text

    def positive(self, name: str, default: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise InputError(f"{name} is {text!r}: set it to a number above 0")
        return value


def _checkout_models(cards: Path = CARDS) -> tuple[str, ...]:
    return tuple(str(config.parent) for config in sorted(cards.glob("bcd-*/config.json")))


def published_models(card: Path = SPACE_CARD) -> tuple[str, ...]:
    """The Hub ids that the Space's card names, the default model first."""
    from huggingface_hub import metadata_load

    try:
        named = (metadata_load(card) or {}).get("models")
    except (OSError, ValueError):
        named = None
    if not named:
        raise InputError(f"{card} names no models: set BCD_MODELS to model folders or Hub ids")
    return tuple(named)
