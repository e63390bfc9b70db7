"""Options of relabellings: dataclass fields that say what they are, and the errors of wrong values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

from mmalign.errors import ConfigError, show

PLACES = ("system", "user")
"""Turns of a prompt that can carry a goal."""

_SEEDS = 2**32


def option(default: Any, says: str) -> Any:
    """Return a dataclass field with a default and a line of help."""
    return field(default=default, metadata={"says": says})


def require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Raise ConfigError, naming the option, unless the rule holds."""
    if not holds:
        raise ConfigError(f"{name} {rule} (got {show(value)})")


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ConfigError unless `value` is one of `choices`."""
    require(isinstance(value, str) and value in choices, name, value, f"must be one of {', '.join(choices)}")


def require_seed(value: Any) -> None:
    """Raise ConfigError unless `value` is a seed."""
    require(type(value) is int and 0 <= value < _SEEDS, "seed", value, "must be a whole number from 0, below 2^32")


def require_count(name: str, value: Any) -> None:
    """Raise ConfigError unless `value` is a whole number from 1."""
    require(type(value) is int and value >= 1, name, value, "must be a whole number from 1")
