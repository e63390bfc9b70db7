"""Numbers per response token on disk, made once by a model and read in every epoch.

    <directory>/manifest.json     what the numbers were made with, and the rows: id and lengths of the responses
    <directory>/<column>.<dtype>  the numbers, row by row, response by response, little-endian
    <directory>/done.uint8        one byte per row, 1 once its numbers stand in the files

Rows may be written in any order and by several processes; a row is marked done after its numbers are on disk, so a run
that was killed goes on with the rows that are missing. A table made with another model, other data or another processor
is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import CheckpointError, DataError, TrainingError, show

_MANIFEST, _DONE = "manifest.json", "done.uint8"


@dataclass(frozen=True)
class Column:
    """Numbers of one kind.

    Args:
        name: of the file.
        width: how many per token.
        dtype: "float32" or "int32".
    """

    name: str
    width: int = 1
    dtype: str = "float32"

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.name}.{self.dtype}"

    @property
    def type(self) -> np.dtype:
        """Type of one number on disk."""
        return np.dtype(self.dtype).newbyteorder("<")

    @property
    def bytes_per_token(self) -> int:
        """Size of the numbers of one token."""
        return self.width * self.type.itemsize


class TokenTable:
    """A table of numbers per token; `open` makes it when it is not there.

    Args:
        directory: of an existing table.
        rows: id and response lengths in tokens of every row, in the order of the table.
        columns: what it holds.
        noun: what messages call it.
        whose: who made the numbers, for messages.
    """

    def __init__(
        self,
        directory: Path,
        rows: Sequence[tuple[str, Sequence[int]]],
        columns: Sequence[Column],
        *,
        noun: str,
        whose: str,
    ) -> None:
        self.directory, self.columns, self.noun, self.whose = directory, tuple(columns), noun, whose
        self._lengths = [tuple(lengths) for _, lengths in rows]
        self._row_of = {row_id: number for number, (row_id, _) in enumerate(rows)}
        self._starts = np.concatenate([[0], np.cumsum([sum(lengths) for lengths in self._lengths])]).astype(np.int64)
        self._values = {column.name: self._mapped(column) for column in columns}
        self._done = np.memmap(directory / _DONE, dtype=np.uint8, mode="r") if rows else np.empty(0, np.uint8)

    @classmethod
    def prepare(
        cls,
        directory: Path,
        rows: Sequence[tuple[str, Sequence[int]]],
        columns: Sequence[Column],
        made_with: Mapping[str, str],
        *,
        noun: str,
    ) -> list[tuple[str, list[int]]]:
        """Find the files of a table, or make empty ones, and return its rows. Several processes may do so at once.

        Raises:
            CheckpointError: the table there was made with something else (the message says with what), or is damaged.
            DataError: two rows have the same id.
        """
        rows = [(row_id, [int(length) for length in lengths]) for row_id, lengths in rows]
        manifest = {"made_with": dict(made_with), "rows": [list(row) for row in rows]}
        if not directory.exists():
            _require_unique(row_id for row_id, _ in rows)
            tokens = sum(sum(lengths) for _, lengths in rows)
            sizes = {column.file: tokens * column.bytes_per_token for column in columns}
            _make(directory, manifest, {**sizes, _DONE: len(rows)}, noun)
        _require_same(_read_manifest(directory, noun), manifest, directory, noun)
        return rows

    def missing(self) -> list[int]:
        """Return the numbers of the rows that have no numbers yet, in ascending order."""
        return np.flatnonzero(np.asarray(self._done) == 0).tolist()

    def write_columns(self, ids: Sequence[str], cells: Mapping[str, Tensor], response_lengths: Tensor) -> None:
        """Store the numbers of a batch and mark its rows done.

        Args:
            ids: of the rows [B].
            cells: column -> [B, K, R] or [B, K, R, width]; response k of row b fills its first
                `response_lengths[b, k]` cells.
            response_lengths: [B, K], 0 where there is no response.

        Raises:
            TrainingError: a number is not finite.
            CheckpointError: the disk is full, or the lengths are not those of the table.
        """
        lengths = response_lengths.tolist()
        numbers = [self._number_of(row_id, own) for row_id, own in zip(ids, lengths, strict=True)]
        for column in self.columns:
            pieces = []
            for number, row_id, row, own in zip(numbers, ids, cells[column.name].detach(), lengths, strict=True):
                values = torch.cat([row[k, :length] for k, length in enumerate(own)]).cpu().numpy()
                self._require_finite(row_id, values)
                offset = int(self._starts[number]) * column.bytes_per_token
                pieces.append((offset, values.astype(column.type).tobytes()))
            self._write_at(column.file, pieces)
        self._write_at(_DONE, [(number, b"\x01") for number in numbers])

    def read_columns(self, ids: Sequence[str], response_lengths: Tensor) -> dict[str, Tensor]:
        """Return the numbers of a batch by column, [B, K, R] or [B, K, R, width] on the CPU; 0 behind a response.

        Raises:
            CheckpointError: a row is not in the table, not done yet, or of other lengths.
        """
        shape = (*response_lengths.shape, int(response_lengths.max()))
        cells = {
            column.name: torch.zeros(
                *shape, *([column.width] if column.width > 1 else []), dtype=getattr(torch, column.dtype)
            )
            for column in self.columns
        }
        for b, (row_id, lengths) in enumerate(zip(ids, response_lengths.tolist(), strict=True)):
            number = self._number_of(row_id, lengths)
            if not self._done[number]:
                raise CheckpointError(
                    f"{self.noun} {self.directory} has no log-probs of row {show(row_id)} yet; precompute it first"
                )
            present = [k for k, length in enumerate(lengths) if length]
            for name, values in self._values.items():
                row = torch.from_numpy(np.array(values[self._starts[number] : self._starts[number + 1]]))
                for k, response in zip(present, row.split([lengths[k] for k in present]), strict=True):
                    cells[name][b, k, : len(response)] = response
        return cells

    def _mapped(self, column: Column) -> np.ndarray:
        shape = (int(self._starts[-1]), column.width) if column.width > 1 else (int(self._starts[-1]),)
        if not self._starts[-1]:
            return np.empty(shape, column.type)
        return np.memmap(self.directory / column.file, dtype=column.type, mode="r", shape=shape)

    def _require_finite(self, row_id: str, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise TrainingError(
                f"the {self.whose} gives row {show(row_id)} a log-prob that is not finite; check its weights"
            )

    def _number_of(self, row_id: str, lengths: Sequence[int]) -> int:
        number = self._row_of.get(row_id)
        if number is None:
            raise CheckpointError(f"{self.noun} {self.directory} has no row {show(row_id)}; it was made for other data")
        present = tuple(length for length in lengths if length)
        if present != self._lengths[number]:
            raise CheckpointError(
                f"row {show(row_id)} has responses of {list(present)} tokens, {self.noun} {self.directory} was "
                f"made for {list(self._lengths[number])}; remove the table to make it anew"
            )
        return number

    def _write_at(self, name: str, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Write pieces at their offsets and wait until they are on disk; other processes write other offsets."""
        try:
            handle = os.open(self.directory / name, os.O_WRONLY)
            try:
                for offset, piece in pieces:
                    os.pwrite(handle, piece, offset)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise CheckpointError(
                f"cannot write {self.noun} {self.directory}: {error.strerror}; the rows done so far are kept, "
                "make room and start again"
            ) from error


def _require_unique(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for row_id in ids:
        if row_id in seen:
            raise DataError(f"two rows have the id {show(row_id)}; a table needs an id of its own for every row")
        seen.add(row_id)


def _make(directory: Path, manifest: dict, sizes: Mapping[str, int], noun: str) -> None:
    """Make an empty table under another name and rename it, so that nobody meets half of one."""
    half_made = directory.with_name(f".{directory.name}.{os.getpid()}-{uuid.uuid4().hex}")
    try:
        half_made.mkdir(parents=True)
        for name, size in sizes.items():
            with open(half_made / name, "wb") as file:
                file.truncate(size)
        (half_made / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        half_made.rename(directory)
    except OSError as error:
        shutil.rmtree(half_made, ignore_errors=True)
        if not (directory / _MANIFEST).is_file():  # another process was not faster, so this is a real error
            raise CheckpointError(f"cannot make {noun} {directory}: {error.strerror}") from error


def _read_manifest(directory: Path, noun: str) -> dict:
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        return {"made_with": dict(manifest["made_with"]), "rows": list(manifest["rows"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory} is no {noun} ({_MANIFEST} is missing or unreadable); remove it to make one"
        ) from error


def _require_same(stored: dict, wanted: dict, directory: Path, noun: str) -> None:
    """Refuse a table that was made with something else."""
    names = sorted(stored["made_with"].keys() | wanted["made_with"].keys())
    changed = [
        f"{name} (then {stored['made_with'].get(name)}, now {wanted['made_with'].get(name)})"
        for name in names
        if stored["made_with"].get(name) != wanted["made_with"].get(name)
    ]
    if not changed and stored["rows"] != wanted["rows"]:
        changed = [f"rows (then {len(stored['rows'])}, now {len(wanted['rows'])}, or their ids or lengths)"]
    if changed:
        raise CheckpointError(
            f"{noun} {directory} is stale: what changed is {', '.join(changed)}; remove the directory to make "
            "it anew, or go back to what it was made with"
        )
