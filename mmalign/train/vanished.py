"""Rows that were fine when the data were prepared and cannot be loaded now: put on record, and too many end the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmalign.errors import DataError, RowError
from mmalign.formats.preference import Preference
from mmalign.sources.quarantine import Quarantine


@dataclass(frozen=True, kw_only=True)
class RefusedAtLoading:
    """A row that cannot be loaded: where it stands, and why."""

    file: str
    number: int
    error: RowError

    @classmethod
    def of(cls, preference: Preference, error: RowError) -> RefusedAtLoading:
        """Name a row by its provenance."""
        place = preference.provenance
        return cls(file=place.get("file", preference.id), number=int(place.get("row", 0)), error=error)


def record(rows: Iterable[RefusedAtLoading], refused: Quarantine) -> None:
    """Write rows to the quarantine file; those that stand there already are not written again."""
    for row in rows:
        refused.refuse(row.file, row.number, row.error)


def require_few(
    when: str, refused_rows: int, *, rows: int, epochs: float = 1.0, max_share: float, quarantine: Path
) -> None:
    """Stop when more rows vanish than the recipe accepts, as if they had been refused at the start.

    Args:
        when: for the message.
        refused_rows: counted in every epoch, over all ranks.
        rows: of one epoch.
        epochs: read so far.
        max_share: `data.max_refused_share`.
        quarantine: where the rows are named.

    Raises:
        DataError: there are more.
    """
    if refused_rows > max_share * rows * epochs:
        raise DataError(
            f"{when}: {refused_rows} rows could not be loaded so far; in {epochs:.3g} epoch(s) of {rows} rows that is "
            f"more than the accepted share of {max_share:g}. See {quarantine}, bring the files back, and go on with "
            "--resume"
        )
