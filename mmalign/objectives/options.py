"""Options of a preset: declared with their meaning and rule, read from a recipe with errors a person can act on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from mmalign.errors import ConfigError, show

OptionsType = TypeVar("OptionsType")


def number(
    default: float,
    meaning: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare an option that is a finite number, with open (`above`, `below`) or closed (`at_least`) bounds."""
    bounds = [("above", above), ("at least", at_least), ("below", below)]
    rule = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    def broken(value: Any) -> str | None:
        wanted = f"must be a number {rule}".rstrip()
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return wanted + (f"; YAML reads {value} as text, write it with a point" if _is_number_text(value) else "")
        outside = (
            not math.isfinite(value)
            or (above is not None and value <= above)
            or (at_least is not None and value < at_least)
            or (below is not None and value >= below)
        )
        return wanted if outside else None

    return field(default=default, metadata={"meaning": meaning, "broken": broken})


def choice(default: str, meaning: str, among: tuple[str, ...]) -> Any:
    """Declare an option that is one of a few words."""

    def broken(value: Any) -> str | None:
        if value in among:
            return None
        near = get_close_matches(str(value), among, n=1)
        return f"must be one of {', '.join(among)}" + (f"; did you mean {near[0]!r}?" if near else "")

    return field(default=default, metadata={"meaning": meaning, "broken": broken})


def read_options(
    options: type[OptionsType], given: Mapping[str, Any], where: str, refused: Mapping[str, str]
) -> OptionsType:
    """Build `options` from what a recipe gives.

    Args:
        options: a frozen dataclass whose fields are declared by `number` and `choice`.
        given: option -> value.
        where: how the message names the place ("dpo", or "objective[1] dpo").
        refused: options that other objectives have but that make no sense here -> why, and the way out.

    Raises:
        ConfigError: unknown, refused or out-of-range option.
    """
    declared = {option.name: option for option in fields(options)}
    for name, value in given.items():
        if name in refused:
            raise ConfigError(f"{where}: option {name!r} makes no sense here: {refused[name]}")
        if name not in declared:
            near = get_close_matches(str(name), declared, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(f"{where}: unknown option {show(name)}{meant} It has: weight, {', '.join(declared)}")
        if (problem := declared[name].metadata["broken"](value)) is not None:
            raise ConfigError(f"{where}: option {name!r} {problem} (got {show(value)})")
    return options(**given)


def _is_number_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
