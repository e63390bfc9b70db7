"""Rows that are refused: where they go, how many they are, and when they are too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmalign.errors import DataError, RowError, show

ROWS_BEFORE_AN_EARLY_STOP = 200


@dataclass(frozen=True)
class Refusal:
    """One refused row: where it stands, which field broke which rule, what stood there, and what to do about it."""

    file: str
    row: int
    field: str
    value: str
    reason: str
    hint: str = ""

    @classmethod
    def of(cls, file: str, row: int, error: RowError) -> Refusal:
        """Turn the error of a row into its record."""
        value = "" if error.value is None else show(error.value)
        return cls(file=file, row=row, field=error.field, value=value, reason=error.reason, hint=error.hint)


@dataclass(frozen=True)
class RefusedRow:
    """A row that is no preference: why, and what stands in its columns; nothing where it could not be read."""

    refusal: Refusal
    columns: Mapping[str, Any]


class Quarantine:
    """Collects refused rows in a file of JSON lines, counts them by reason, and stops the run when they are too many.

    Opening the file of an earlier run goes on in it: a row that stands there already is counted but not written again.

    Args:
        path: the quarantine file; it is made at the first refusal.
        max_share: largest share of refused rows that is accepted, between 0 and 1.
        rows_before_early_stop: how many rows must have been seen before the share can end the run.
        limit_name: what the user calls `max_share`.
        counted: what is counted, in the plural.
    """

    def __init__(
        self,
        path: str | Path,
        max_share: float = 0.05,
        rows_before_early_stop: int = ROWS_BEFORE_AN_EARLY_STOP,
        limit_name: str = "data.max_refused_share",
        counted: str = "rows",
    ) -> None:
        self.counted = counted
        self.path, self.max_share, self.limit_name = Path(path), max_share, limit_name
        self.rows_before_early_stop = rows_before_early_stop
        self.counts: Counter[str] = Counter()
        self.kept_rows = 0
        self._first: Refusal | None = None
        self._written = {(refusal.file, refusal.row, refusal.reason) for refusal in recorded(self.path)}
        self._file = None

    @property
    def refused_rows(self) -> int:
        """Number of rows refused so far."""
        return self.counts.total()

    def kept(self) -> None:
        """Count a row that passed."""
        self.kept_rows += 1

    def refuse(self, file: str, row: int, error: RowError) -> None:
        """Record that a row was refused; see `take`."""
        self.take(Refusal.of(file, row, error))

    def take(self, refusal: Refusal) -> None:
        """Record a refusal.

        Raises:
            DataError: too many rows are refused, or the file cannot be written.
        """
        self.counts[refusal.reason] += 1
        self._first = self._first or refusal
        key = (refusal.file, refusal.row, refusal.reason)
        if key not in self._written:
            self._written.add(key)
            self._write(refusal)
        if self.kept_rows + self.refused_rows >= self.rows_before_early_stop:
            self._require_share()

    def check(self) -> None:
        """Judge the whole data set at its end.

        Raises:
            DataError: no row is left, or the share of refused rows is too large.
        """
        if not self.kept_rows:
            raise DataError(f"no row is left: {self.summary()}. See {self.path}{self._example()}")
        self._require_share()

    def summary(self) -> str:
        """Say in one line how many rows were refused and why, most frequent reason first."""
        if not self.refused_rows:
            return f"all {self.kept_rows} {self.counted} are kept"
        total = self.kept_rows + self.refused_rows
        reasons = "; ".join(f"{reason}: {count}" for reason, count in self.counts.most_common())
        share = f"{100 * self.refused_rows / total:.1f}%"
        return f"{self.refused_rows} of {total} {self.counted} ({share}) are refused: {reasons}"

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, refusal: Refusal) -> None:
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                _drop_unfinished_line(self.path)
                self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
            self._file.write(json.dumps(asdict(refusal), ensure_ascii=False) + "\n")
            self._file.flush()  # a killed run must leave what it said
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _require_share(self) -> None:
        if self.refused_rows > self.max_share * (self.kept_rows + self.refused_rows):
            limit = f"more than the accepted share of {self.max_share:g}"
            way_out = f"See {self.path}; mend the rows, or raise {self.limit_name}"
            raise DataError(f"{self.summary()}; that is {limit}. {way_out}{self._example()}")

    def _example(self) -> str:
        """Return the first refusal as the end of a message: most often the others are like it."""
        first = self._first
        if first is None:
            return ""
        said = [f"{first.field}: {first.reason}" if first.field else first.reason]
        said += [f"got {first.value}"] if first.value else []
        said += [first.hint] if first.hint else []
        return f". The first: {first.file}, row {first.row}: {'; '.join(said)}"


def _drop_unfinished_line(path: Path) -> None:
    """Take off a last line that a killed run left without its end, so that the next one starts on a line of its own."""
    if path.is_file():
        with path.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def recorded(path: str | Path) -> list[Refusal]:
    """Return what a quarantine file holds; a last line cut short by a killed run is left out."""
    if not Path(path).is_file():
        return []
    refusals = []
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            refusals.append(Refusal(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return refusals
