"""What becomes of a row between its file and training: relabelled as the recipe says, then read or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from mmalign.config.schema import DataConfig
from mmalign.formats.preference import Preference
from mmalign.pairs.relabel import Relabelling, relabelling
from mmalign.pairs.select import Selection


@dataclass(frozen=True, kw_only=True)
class RowChange:
    """What becomes of a row between its file and training.

    Args:
        relabellings: applied one after the other, each to all rows that the one before made.
        selection: which of these are read; None reads all.
    """

    relabellings: tuple[Relabelling, ...] = ()
    selection: Selection | None = None

    def apply(self, preference: Preference, left_out: Counter[str]) -> tuple[Preference, ...]:
        """Return the rows that are read, and count in `left_out` the rules by which others are not.

        Raises:
            RowError: nothing can be made of the row, or it lacks what the selection reads.
        """
        rows = (preference,)
        for relabel in self.relabellings:
            rows = tuple(made for row in rows for made in relabel(row))
        return tuple(self._selected(rows, left_out))

    def _selected(self, rows: tuple[Preference, ...], left_out: Counter[str]) -> Iterator[Preference]:
        for row in rows:
            read, rule = (row, "") if self.selection is None else self.selection.apply(row)
            if read is None:
                left_out[rule] += 1
            else:
                yield read


def row_change(config: DataConfig, *, held_out: bool = False) -> RowChange:
    """Return what a recipe makes of its rows; held-out rows are relabelled, but all are read."""
    relabellings = tuple(relabelling(spec.how, spec.options()) for spec in config.relabel)
    selects = config.select is not None and not held_out
    return RowChange(relabellings=relabellings, selection=config.select.selection() if selects else None)
