"""Two ways to compute a published figure: as the released program does, or as its paper says."""

from __future__ import annotations

from typing import Literal, get_args

from mmalign.errors import ConfigError

Compat = Literal["official", "corrected"]


def require_compat(compat: str) -> None:
    """Refuse a mode that does not exist.

    Raises:
        ConfigError: naming it.
    """
    if compat not in get_args(Compat):
        raise ConfigError(f"compat {compat!r} is unknown; use one of {', '.join(get_args(Compat))}")
