"""What single values of a record must be. Rows come from strangers: a type that is only declared is not yet kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError

_LARGEST_EXACT = 2**53
"""Beyond it a float, and so a Parquet column, does not hold every whole number."""


def require_number(value: Any, field: str) -> None:
    """Refuse what is no finite number, or a whole one too large to be held exactly.

    Raises:
        RowError: naming `field`.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and isinstance(value, int) and abs(value) > _LARGEST_EXACT:
        raise RowError("number is too large", field=field, value=_digits(value), hint="at most 2**53 is held exactly")
    if not is_number or not math.isfinite(value):
        raise RowError("number is not finite", field=field, value=value)


def require_position(value: Any, field: str) -> None:
    """Refuse what does not count from 0: a text, 1.0, true, a negative number, one beyond 2**53.

    Raises:
        RowError: naming `field`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RowError("must be a whole number from 0", field=field, value=value)
    require_number(value, field)


def require_text(value: Any, field: str) -> None:
    """Refuse what is no text, or holds half of a surrogate pair and so has no UTF-8 form.

    Raises:
        RowError: naming `field`.
    """
    if not isinstance(value, str):
        shown, hint = ("nothing", "") if value is None else (value, "put it in quotes")
        raise RowError("must be a text", field=field, value=shown, hint=hint)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        around = value[max(0, error.start - 20) : error.end + 20]
        hint = f"character {error.start} is half of a surrogate pair"
        raise RowError("text is not valid Unicode", field=field, value=around, hint=hint) from error


def require_texts(values: Any, field: str) -> None:
    """Refuse what is no map from texts to texts.

    Raises:
        RowError: naming `field`, or the entry.
    """
    require_map(values, field)
    for name, value in values.items():
        require_text(name, field)
        require_text(value, f"{field}.{name}")


def require_map(values: Any, field: str) -> None:
    """Refuse what is no map of names to values.

    Raises:
        RowError: naming `field`.
    """
    if not isinstance(values, Mapping):
        raise RowError("must be {name: value}", field=field, value=values)


def _digits(value: int) -> str:
    """Return a whole number for a message; Python writes out no more than some thousand digits."""
    return str(value) if abs(value) < 10**30 else f"about 2**{value.bit_length() - 1}"
