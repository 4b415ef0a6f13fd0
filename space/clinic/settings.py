"""What the environment says about this installation."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bcd_models.config import Strict, first_error
from bcd_models.errors import InputError
from bcd_models.runtime.device import DEVICES

SPACE_CARD = Path(__file__).resolve().parents[1] / "README.md"
CARDS = Path(__file__).resolve().parents[2] / "cards"
DATA = Path("~/.local/share/bcd-clinic")
DATABASE = "clinic.db"  # of SQLite, in the data folder
EXTERNAL_ID = r"[A-Z]{1,4}-?[0-9]{2,12}"


def split_list(value: object) -> object:
    """Return the parts of a text between commas; anything else as it is."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def check_networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return addresses or networks as they are; ValueError where one is neither."""
    for text in texts:
        try:
            ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is no address or network") from None
    return texts


def check_pattern(text: str) -> str:
    """Return a regular expression as it is; ValueError where it is none."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"that is no regular expression: {error}") from None
    return text


def check_device(name: str) -> str:
    """Return the name of a device as it is; ValueError where there is none of that name."""
    if name not in DEVICES:
        raise ValueError(f"choose one of {', '.join(DEVICES)}")
    return name


List = Annotated[tuple[str, ...], BeforeValidator(split_list)]
Folder = Annotated[Path, AfterValidator(Path.expanduser)]


class Settings(Strict):
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
        point: Operating point that the pages begin with; "": each model's own.
        device: What models compute on, one of ``bcd_models.runtime.device.DEVICES``.
    """

    models: List
    data: Folder = Field(DATA, validate_default=True)
    database_url: str = ""
    guests: bool = True
    demo: bool = False
    admin_password: str = ""
    letterhead: str = ""
    external_id: Annotated[str, AfterValidator(check_pattern)] = EXTERNAL_ID
    proxies: Annotated[List, AfterValidator(check_networks)] = ()
    hosts: List = ()
    session_hours: float = Field(8.0, gt=0)
    hub_accounts: List = ()
    point: str = ""
    device: Annotated[str, AfterValidator(check_device)] = "auto"

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the variables that begin with ``BCD_``; docs/clinic.md lists them.

        Where ``BCD_MODELS`` is unset, the models of the checkout this file lies in are offered,
        and where there is no checkout, as on the Hub, those that the Space's card names.

        Raises:
            InputError: A variable can't be read, or the card names no models.
        """
        try:
            return cls(**dict(_Environment()))
        except ValidationError as error:
            value = error.errors()[0]["input"]
            raise InputError(f"{first_error(error)} (it is {value!r})") from None

    @property
    def database(self) -> str:
        """URL of the database in use."""
        return self.database_url or f"sqlite:///{self.data / DATABASE}"


class _Environment(Settings, BaseSettings):
    """The same, from variables."""

    model_config = SettingsConfigDict(
        alias_generator=lambda name: f"BCD_{name.upper()}",
        enable_decoding=False,  # lists are no JSON
    )

    models: List = Field(default_factory=lambda: _find_checkout_models() or read_published_models())
    data: Folder = Field(DATA, validation_alias="BCD_DATA_FOLDER", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_blank(cls, variables: dict[str, Any]) -> dict[str, Any]:
        """Treat a variable that is set to nothing as one that isn't set."""
        stripped = {name: text.strip() for name, text in variables.items()}
        return {name: text for name, text in stripped.items() if text}


def _find_checkout_models() -> tuple[str, ...]:
    """Return the checkout's model folders as the Space's card orders them, any others last."""
    folders = [config.parent for config in sorted(CARDS.glob("bcd-*/config.json"))]
    if not folders:
        return ()
    order = [name.rpartition("/")[2] for name in read_published_models()]
    folders.sort(key=lambda one: order.index(one.name) if one.name in order else len(order))
    return tuple(map(str, folders))


def read_published_models(card: Path = SPACE_CARD) -> tuple[str, ...]:
    """Return the Hub ids that the Space's card names, the default model first."""
    from huggingface_hub import metadata_load

    try:
        named = (metadata_load(card) or {}).get("models")
    except (OSError, ValueError):
        named = None
    if not named:
        raise InputError(f"{card} names no models: set BCD_MODELS to model folders or Hub ids")
    return tuple(named)
