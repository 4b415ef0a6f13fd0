"""A demonstration: a doctor whose password everybody is shown, with synthetic patients."""

from __future__ import annotations

from clinic import passwords
from clinic.settings import Settings

NAME = "demo"
PASSWORD = "demo.password"  # file in the data folder


def login(settings: Settings) -> tuple[str, str]:
    """Name and password of the demonstration's doctor; the password is made up once and kept."""
    path = settings.data / PASSWORD
    if not path.exists():
        path.write_text(passwords.generated(), "utf-8")
        path.chmod(0o600)
    return NAME, path.read_text("utf-8").strip()
