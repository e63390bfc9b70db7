"""Which rows a step reads, and how they are cut and dealt: a pure function of (seed, epoch, step).

A step reads `per_device_rows * accumulation * world_size` rows of the epoch's permutation. They are sorted by length,
cut into micro-batches and dealt to ranks in turn, so that what runs at the same time has about the same size. The cut
changes speed and memory only: losses are normalised over the whole step (see `step.py`), hence 1 x 8 = 8 x 1 and one
rank = two ranks. Nothing here remembers anything: a resumed run asks for its next step and decodes no media before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmalign.errors import ConfigError

MicroBatch = tuple[int, ...]
"""Row numbers of one forward pass; empty for a filler, which keeps ranks in step and weighs nothing."""


@dataclass(frozen=True, kw_only=True)
class StepSampler:
    """The order of all rows over a run.

    Args:
        lengths: tokens of every row as one forward pass sees it, [rows].
        per_device_rows: rows of one micro-batch, and the unit of a step.
        accumulation: micro-batches a rank runs per step.
        world_size: number of ranks.
        seed: seed of the permutations.
        shuffle: draw a new order every epoch; False keeps the order of the file.
        max_tokens_per_batch: cut by padded tokens (rows * longest row) instead of by rows. A longer row runs alone.
        step_rows: rows of a step in place of `per_device_rows * accumulation * world_size`.

    Raises:
        ConfigError: there are no rows.
    """

    lengths: Sequence[int] = field(repr=False)
    per_device_rows: int
    accumulation: int = 1
    world_size: int = 1
    seed: int = 0
    shuffle: bool = True
    max_tokens_per_batch: int | None = None
    step_rows: int | None = None
    _permutations: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.lengths) == 0:
            raise ConfigError("there are no rows to train or evaluate on: every row was refused, or the file is empty")

    @property
    def rows_per_step(self) -> int:
        """Rows of a full step, over all ranks."""
        return self.step_rows or self.per_device_rows * self.accumulation * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch; the last one may hold fewer rows."""
        return math.ceil(len(self.lengths) / self.rows_per_step)

    def total_steps(self, *, epochs: float | None, max_steps: int | None) -> int:
        """Return the number of steps of a run that is `epochs` long, or `max_steps` when that is given."""
        if max_steps is not None:
            return max_steps
        assert epochs is not None, "the config gives a run one length"
        return max(1, math.ceil(epochs * self.steps_per_epoch - 1e-9))

    def rows(self, step: int) -> np.ndarray:
        """Return the row numbers of `step` (counted from 0 over the run), in drawn order, int64 [<= rows_per_step]."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        return order[position * self.rows_per_step : (position + 1) * self.rows_per_step]

    def micro_batches(self, step: int, rank: int = 0) -> tuple[MicroBatch, ...]:
        """Return what `rank` runs in `step`; every rank gets the same number of micro-batches."""
        cut = self._cut(self.rows(step))
        missing = -len(cut) % self.world_size
        return tuple((cut + [()] * missing)[rank :: self.world_size])

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.lengths))
        if epoch not in self._permutations:
            # RandomState's streams are frozen by NumPy for ever; those of Generator may change between versions.
            drawn = np.random.RandomState([self.seed, epoch]).permutation(len(self.lengths))
            self._permutations.clear()
            self._permutations[epoch] = drawn
        return self._permutations[epoch]

    def _cut(self, rows: np.ndarray) -> list[MicroBatch]:
        # Longest first: a run that does not fit in memory fails at once. Equal lengths stand in file order.
        ordered = sorted(rows.tolist(), key=lambda row: (-int(self.lengths[row]), row))
        if self.max_tokens_per_batch is None:
            starts = range(0, len(ordered), self.per_device_rows)
            return [tuple(ordered[start : start + self.per_device_rows]) for start in starts]
        cut: list[MicroBatch] = []
        start = 0
        while start < len(ordered):
            longest = max(1, int(self.lengths[ordered[start]]))
            stop = start + max(1, self.max_tokens_per_batch // longest)
            cut.append(tuple(ordered[start:stop]))
            start = stop
        return cut
