"""Tables of numbers per token, filled by a model that scores the rows of a split once, on all ranks together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from mmalign.config.schema import DataConfig
from mmalign.engine.token_table import TokenTable
from mmalign.sources.quarantine import Quarantine
from mmalign.train.loader import BatchReader, LoadedBatch, load_ahead
from mmalign.train.progress import Counting
from mmalign.train.rows import PreparedRows
from mmalign.train.sampler import StepSampler
from mmalign.train.vanished import record, require_few


@dataclass(frozen=True, kw_only=True)
class Filling:
    """How the rows of one split are read to fill a table.

    Args:
        accelerator: deals rows to ranks, and knows the precision.
        reader, sampler: of the split.
        data: the recipe's `data` section.
        quarantine: names rows that cannot be loaded.
        name: of what is filled in, for people ("reference log-probs of train rows").
    """

    accelerator: Accelerator
    reader: BatchReader
    sampler: StepSampler
    data: DataConfig
    quarantine: Path
    name: str


def missing_rows(table: TokenTable, rows: PreparedRows) -> list[int]:
    """Return the numbers of the rows that a table misses in some view, in ascending order."""
    return sorted({number // (1 + len(rows.views)) for number in table.missing()})


def fill(table: TokenTable, missing: Sequence[int], how: Filling, write: Callable[[LoadedBatch], None]) -> BatchReader:
    """Score the missing rows and return the split's reader, which passes over rows that could not be loaded.

    Args:
        missing: asked by every rank before any of them writes: ranks share out the rows that they found missing.
        write: scores one micro-batch, on the device of the run, and writes what is no filler.

    Raises:
        DataError: too many rows could not be loaded.
    """
    accelerator, rows = how.accelerator, how.reader.rows
    if missing:
        sampler = replace(how.sampler, lengths=[how.sampler.lengths[row] for row in missing], shuffle=False)
        plan = (
            tuple(missing[row] for row in rows)
            for step in range(sampler.steps_per_epoch)
            for rows in sampler.micro_batches(step, accelerator.process_index)
        )
        counting = Counting(f"{how.name}, batches")
        loading = closing(load_ahead(how.reader, plan, how.data.num_workers))
        refused = Quarantine(how.quarantine, max_share=1.0)
        with loading as batches, closing(refused), counting, accelerator.autocast():
            for loaded in counting.each(batches):
                record(loaded.refused, refused)
                write(loaded)
        accelerator.wait_for_everyone()
    left_out = frozenset(missing_rows(table, rows))
    require_few(
        how.name, len(left_out), rows=len(rows), max_share=how.data.max_refused_share, quarantine=how.quarantine
    )
    return replace(how.reader, left_out=how.reader.left_out | left_out)
