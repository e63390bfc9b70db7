"""What can be wrong with a recipe, as data: where, what, and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]

_CLOSE_ENOUGH = 0.6


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a recipe.

    Args:
        path: keys from the top of the file down to the culprit, list positions as integers.
        text: the value, the rule and the way out, in one line that reads on after the key.
    """

    path: KeyPath
    text: str


def dotted(path: KeyPath) -> str:
    """Return ("objective", 0, "beta") as "objective.0.beta", the form overrides use."""
    return ".".join(str(key) for key in path)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was most likely meant to be, or None."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=_CLOSE_ENOUGH)
    return found[0] if found else None
