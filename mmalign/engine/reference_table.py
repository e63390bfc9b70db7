"""Log-probs of a reference on disk: one number per response token (`token_table.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mmalign.engine.token_table import Column, TokenTable

_COLUMNS = (Column("logps"),)
_NOUN = "reference table"


class ReferenceTable(TokenTable):
    """A table of per-token log-probs; `open` makes it when it is not there.

    Args:
        directory: of an existing table.
        rows: id and response lengths in tokens of every row, in the order of the table.
    """

    def __init__(self, directory: Path, rows: Sequence[tuple[str, Sequence[int]]]) -> None:
        super().__init__(directory, rows, _COLUMNS, noun=_NOUN, whose="reference")

    @classmethod
    def open(
        cls, directory: str | Path, *, rows: Sequence[tuple[str, Sequence[int]]], made_with: Mapping[str, str]
    ) -> ReferenceTable:
        """Open the table in `directory`, or make an empty one. Several processes may do so at once.

        Args:
            directory: of the table.
            rows: id and response lengths in tokens of every row of the data set.
            made_with: fingerprints, e.g. of "model", "data" and "processor".

        Raises:
            CheckpointError: the table there was made with something else (the message says with what), or is damaged.
            DataError: two rows have the same id.
        """
        directory = Path(directory)
        return cls(directory, cls.prepare(directory, rows, _COLUMNS, made_with, noun=_NOUN))

    def write(self, ids: Sequence[str], token_logps: Tensor, response_lengths: Tensor) -> None:
        """Store the log-probs of a batch, [B, K, R], and mark its rows done; see `TokenTable.write_columns`."""
        self.write_columns(ids, {"logps": token_logps.float()}, response_lengths)

    def read(self, ids: Sequence[str], response_lengths: Tensor) -> Tensor:
        """Return the log-probs of a batch, fp32 [B, K, R] on the CPU; see `TokenTable.read_columns`."""
        return self.read_columns(ids, response_lengths)["logps"]
