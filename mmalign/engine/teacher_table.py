"""A teacher's next-token distributions on disk: the k likeliest tokens at every response token (`token_table.py`).

Of each place stand there the ids of the k tokens, their log-probs, and the log of the mass that all others share, so
that what is kept is a whole distribution over k + 1 outcomes. Where the teacher is contrasted with a second model, that
model's log-probs of the same tokens stand beside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmalign.engine.token_table import Column, TokenTable
from mmalign.engine.tree import TreeBatch

_NOUN = "teacher table"


@dataclass(frozen=True)
class LikeliestTokens:
    """What is stored of the tokens of a batch.

    Args:
        ids: int64 [B, K, R, k].
        teacher: fp32 [B, K, R, k + 1], their log-probs, and that of all other tokens together.
        contrast: the same under the second model; None where there is none.
    """

    ids: Tensor
    teacher: Tensor
    contrast: Tensor | None


class TeacherTable(TokenTable):
    """A table of likeliest tokens; `open` makes it when it is not there.

    Args:
        directory: of an existing table.
        rows: id and response lengths in tokens of every row, in the order of the table.
        top_k: how many tokens of each place.
        contrasted: whether there is a second model.
    """

    def __init__(
        self, directory: Path, rows: Sequence[tuple[str, Sequence[int]]], *, top_k: int, contrasted: bool
    ) -> None:
        self.top_k, self.contrasted = top_k, contrasted
        super().__init__(directory, rows, _columns(top_k, contrasted), noun=_NOUN, whose="teacher")

    @classmethod
    def open(
        cls,
        directory: str | Path,
        *,
        rows: Sequence[tuple[str, Sequence[int]]],
        made_with: Mapping[str, str],
        top_k: int,
        contrasted: bool,
    ) -> TeacherTable:
        """Open the table in `directory`, or make an empty one. Several processes may do so at once.

        Args:
            made_with: fingerprints, e.g. of "model", "data" and "processor"; further arguments as those of the class.

        Raises:
            CheckpointError: the table there was made with something else (the message says with what), or is damaged.
            DataError: two rows have the same id.
        """
        directory, columns = Path(directory), _columns(top_k, contrasted)
        made_with = {**made_with, "top_k": str(top_k)}
        rows = cls.prepare(directory, rows, columns, made_with, noun=_NOUN)
        return cls(directory, rows, top_k=top_k, contrasted=contrasted)

    def write(self, batch: TreeBatch, found: LikeliestTokens) -> None:
        """Store what was found about a batch and mark its rows done; see `TokenTable.write_columns`."""
        cells = {"ids": found.ids, "teacher": found.teacher}
        cells |= {} if found.contrast is None else {"contrast": found.contrast}
        self.write_columns(batch.ids, cells, batch.response_lengths)

    def read(self, batch: TreeBatch) -> LikeliestTokens:
        """Return what is stored of a batch, on its device; see `TokenTable.read_columns`."""
        found = self.read_columns(batch.ids, batch.response_lengths)
        return self._on(
            batch, found["ids"].reshape(*batch.response_mask.shape, -1), found["teacher"], found.get("contrast")
        )

    def blank(self, batch: TreeBatch) -> LikeliestTokens:
        """Return something of the right shape for a batch that no table knows and that counts for nothing."""
        ids = torch.arange(self.top_k).expand(*batch.response_mask.shape, -1)
        even = torch.zeros(*batch.response_mask.shape, self.top_k + 1)
        return self._on(batch, ids, even, even if self.contrasted else None)

    def _on(self, batch: TreeBatch, ids: Tensor, teacher: Tensor, contrast: Tensor | None) -> LikeliestTokens:
        device = batch.input_ids.device
        return LikeliestTokens(
            ids.long().to(device), teacher.to(device), None if contrast is None else contrast.to(device)
        )


def bytes_per_token(top_k: int, contrasted: bool) -> int:
    """Return what a table takes on disk of every response token."""
    return sum(column.bytes_per_token for column in _columns(top_k, contrasted))


def _columns(top_k: int, contrasted: bool) -> tuple[Column, ...]:
    numbers = ("teacher", "contrast") if contrasted else ("teacher",)
    return Column("ids", top_k, "int32"), *(Column(name, top_k + 1) for name in numbers)
