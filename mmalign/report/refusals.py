"""Refused rows in a page: their reasons, counted, and which of those that a run refused are its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

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


class KnownRefusals:
    """Refusals of a run, found by the rows of a page, whichever of file and folder the run and the page were given.

    A run over a folder calls a file "part/rows.jsonl", one over the file itself "rows.jsonl". A refusal belongs to a
    row when the whole path of the row's file ends with the name that the run gave; where a file of just that name is in
    `base`, it means this one and none further down.

    Args:
        refusals: of a run.
        base: directory in which the files of the page's rows are.
    """

    def __init__(self, refusals: Iterable[Refusal], base: Path) -> None:
        self._base = Path(base).resolve()
        self._waiting: dict[tuple[str, int], list[Refusal]] = {}
        for refusal in refusals:
            self._waiting.setdefault((PurePath(refusal.file).name, refusal.row), []).append(refusal)
        files = {refusal.file for known in self._waiting.values() for refusal in known}
        self._here = {file for file in files if (self._base / file).exists()}

    def take(self, file: str, row: int) -> list[Refusal]:
        """Return the refusals of a row, which are known no longer."""
        key = PurePath(file).name, row
        waiting = self._waiting.pop(key, [])
        taken = [refusal for refusal in waiting if self._is_of(refusal, file)]
        if len(taken) < len(waiting):
            self._waiting[key] = [refusal for refusal in waiting if refusal not in taken]
        return taken

    def rest(self) -> list[Refusal]:
        """Return the refusals that were not taken."""
        return [refusal for waiting in self._waiting.values() for refusal in waiting]

    def _is_of(self, refusal: Refusal, file: str) -> bool:
        if refusal.file == file or refusal.file in self._here:
            return refusal.file == file
        said = PurePath(refusal.file).parts
        return (self._base / file).parts[-len(said) :] == said
