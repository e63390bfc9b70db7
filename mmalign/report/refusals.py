"""Refused rows in a page: their reasons, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmalign.sources.quarantine import Refusal


@dataclass(frozen=True)
class Reason:
    """Why rows were refused, how many, and where the first stands."""

    text: str
    rows: int
    percent: float
    example: str


def reasons(refusals: Sequence[Refusal]) -> list[Reason]:
    """Return the reasons of refusals, most frequent first."""
    counts = Counter(refusal.reason for refusal in refusals)
    first = {refusal.reason: refusal for refusal in reversed(refusals)}
    most = max(counts.values(), default=1)
    return [
        Reason(reason, rows, round(100 * rows / most, 1), _where(first[reason]))
        for reason, rows in counts.most_common()
    ]


def _where(refusal: Refusal) -> str:
    row = f", row {refusal.row}" if refusal.row else ""  # media that stand alone have no row
    field = f", {refusal.field}" if refusal.field else ""
    value = f": {refusal.value}" if refusal.value else ""
    return f"{Path(refusal.file).name}{row}{field}{value}"
