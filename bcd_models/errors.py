"""One small tree of exceptions; every message says what was wrong and what to do."""

from __future__ import annotations


class BCDError(Exception):
    """Anything this project raises on purpose."""


class HubError(BCDError):
    """The Hub refused something, broke off, or could not be reached."""


class InputError(BCDError, ValueError):
    """Something handed in (a path, an option, a recipe, a corpus) can't be used as it is."""


class ImageError(InputError):
    """An image can't be used; the message says why."""


class ModelFolderError(InputError):
    """A model folder or Hub repository is missing, incomplete, unknown or newer than this code."""
