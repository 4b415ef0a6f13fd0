"""A module that knows whether anyone took hold of its parts, and so may have changed them."""

from __future__ import annotations

from typing import Any

from torch import nn


class Lending(nn.Module):
    """A module that notes when its parts are asked for.

    Whatever torch or a user does with a module's parts gets at them by name or by ``_modules``,
    as ``parameters``, ``state_dict``, ``to`` and all the others do.

    Attributes:
        _lent: Whether anyone got at them since this was last set to False.
    """

    _lent = True

    @property
    def _modules(self) -> dict[str, nn.Module | None]:
        self.__dict__["_lent"] = True
        parts: dict[str, nn.Module | None] = self.__dict__["_modules"]
        return parts

    @_modules.setter
    def _modules(self, parts: dict[str, nn.Module | None]) -> None:
        self.__dict__["_modules"] = parts

    def _own(self, name: str) -> nn.Module:
        """A part by name, for those who change nothing of it."""
        part: nn.Module = self.__dict__["_modules"][name]
        return part

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if isinstance(found, nn.Module):
            self.__dict__["_lent"] = True
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            self.__dict__["_lent"] = True
        super().__setattr__(name, value)
