"""A module that makes its parts when they are asked for, and knows whether anyone has asked."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

import torch
from torch import nn

_one_at_a_time = RLock()


class Later(nn.Module):
    """Stands for a part until somebody needs it.

    Args:
        make: Makes it; called once.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.make = make


class Lending(nn.Module):
    """A module that notes when somebody gets hold of its parts, and so may change them.

    Whatever torch or a user does with a module's parts gets at them by name or by ``_modules``,
    as ``parameters``, ``state_dict``, ``to`` and all the others do. Parts may be ``Later`` ones.

    Attributes:
        _lent: Whether anyone got hold of them since this was last set to False.
    """

    _lent = True

    def _lend(self) -> None:
        """Make all parts: somebody is about to get hold of them."""
        for name in self.__dict__["_modules"]:
            self._own(name)
        self._lent = True

    def _own(self, name: str) -> nn.Module:
        """A part by name, for those who change nothing of it."""
        parts: dict[str, nn.Module] = self.__dict__["_modules"]
        if isinstance(parts[name], Later):
            with _one_at_a_time, torch.inference_mode(False):  # whatever the asker's mode
                if isinstance(part := parts[name], Later):
                    parts[name] = part.make()
        return parts[name]

    @property
    def _modules(self) -> dict[str, nn.Module | None]:
        self._lend()
        parts: dict[str, nn.Module | None] = self.__dict__["_modules"]
        return parts

    @_modules.setter
    def _modules(self, parts: dict[str, nn.Module | None]) -> None:
        self.__dict__["_modules"] = parts

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if not isinstance(found, nn.Module):
            return found
        self._lend()
        return self._own(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_modules", ()):
            self._lend()
        super().__setattr__(name, value)
