"""Log-probs of a reference on disk: one number per response token, made once and read in every epoch.

    <directory>/manifest.json    what the numbers were made with, and the rows: id and lengths of the responses
    <directory>/logps.float32    the numbers, row by row, response by response, little-endian float32
    <directory>/done.uint8       one byte per row, 1 once its numbers stand in the file

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
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import CheckpointError, DataError, TrainingError, show

_MANIFEST, _VALUES, _DONE = "manifest.json", "logps.float32", "done.uint8"
_VALUE = np.dtype("<f4")


class ReferenceTable:
    """A table of per-token log-probs; `open` makes it when it is not there.

    Args:
        directory: of an existing table.
        rows: id and response lengths in tokens of every row, in the order of the table.
    """

    def __init__(self, directory: Path, rows: Sequence[tuple[str, Sequence[int]]]) -> None:
        self.directory = directory
        self._ids = [row_id for row_id, _ in rows]
        self._lengths = [tuple(lengths) for _, lengths in rows]
        self._row_of = {row_id: number for number, row_id in enumerate(self._ids)}
        self._starts = np.concatenate([[0], np.cumsum([sum(lengths) for lengths in self._lengths])]).astype(np.int64)
        self._values = (
            np.memmap(directory / _VALUES, dtype=_VALUE, mode="r") if self._starts[-1] else np.empty(0, _VALUE)
        )
        self._done = np.memmap(directory / _DONE, dtype=np.uint8, mode="r") if rows else np.empty(0, np.uint8)

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
        rows = [(row_id, [int(length) for length in lengths]) for row_id, lengths in rows]
        manifest = {"made_with": dict(made_with), "rows": [list(row) for row in rows]}
        if not directory.exists():
            _require_unique(row_id for row_id, _ in rows)
            _make(directory, manifest, tokens=sum(sum(lengths) for _, lengths in rows))
        _require_same(_read_manifest(directory), manifest, directory)
        return cls(directory, rows)

    def missing(self) -> list[int]:
        """Return the numbers of the rows that have no log-probs yet, in ascending order."""
        return np.flatnonzero(np.asarray(self._done) == 0).tolist()

    def write(self, ids: Sequence[str], token_logps: Tensor, response_lengths: Tensor) -> None:
        """Store the log-probs of a batch and mark its rows done.

        Args:
            ids: of the rows [B].
            token_logps: [B, K, R]; response k of row b fills its first `response_lengths[b, k]` cells.
            response_lengths: [B, K], 0 where there is no response.

        Raises:
            TrainingError: a log-prob is not finite.
            CheckpointError: the disk is full, or the lengths are not those of the table.
        """
        numbers = [
            self._number_of(row_id, lengths) for row_id, lengths in zip(ids, response_lengths.tolist(), strict=True)
        ]
        values = [
            torch.cat([row[k, :length] for k, length in enumerate(lengths)]).float().cpu().numpy()
            for row, lengths in zip(token_logps.detach(), response_lengths.tolist(), strict=True)
        ]
        for row_id, row in zip(ids, values, strict=True):
            if not np.isfinite(row).all():
                raise TrainingError(
                    f"the reference gives row {show(row_id)} a log-prob that is not finite; check its weights"
                )
        spans = [
            (int(self._starts[number]) * _VALUE.itemsize, row) for number, row in zip(numbers, values, strict=True)
        ]
        self._write_at(_VALUES, [(at, row.astype(_VALUE).tobytes()) for at, row in spans])
        self._write_at(_DONE, [(number, b"\x01") for number in numbers])

    def read(self, ids: Sequence[str], response_lengths: Tensor) -> Tensor:
        """Return the log-probs of a batch, fp32 [B, K, R] on the CPU; 0 behind the end of a response.

        Raises:
            CheckpointError: a row is not in the table, not done yet, or of other lengths.
        """
        cells = torch.zeros(*response_lengths.shape, int(response_lengths.max()))
        for b, (row_id, lengths) in enumerate(zip(ids, response_lengths.tolist(), strict=True)):
            number = self._number_of(row_id, lengths)
            if not self._done[number]:
                raise CheckpointError(
                    f"reference table {self.directory} has no log-probs of row {show(row_id)} yet; precompute it first"
                )
            row = torch.from_numpy(np.array(self._values[self._starts[number] : self._starts[number + 1]]))
            present = [k for k, length in enumerate(lengths) if length]
            for k, response in zip(present, row.split([lengths[k] for k in present]), strict=True):
                cells[b, k, : len(response)] = response
        return cells

    def _number_of(self, row_id: str, lengths: Sequence[int]) -> int:
        number = self._row_of.get(row_id)
        if number is None:
            raise CheckpointError(
                f"reference table {self.directory} has no row {show(row_id)}; it was made for other data"
            )
        present = tuple(length for length in lengths if length)
        if present != self._lengths[number]:
            raise CheckpointError(
                f"row {show(row_id)} has responses of {list(present)} tokens, reference table {self.directory} was "
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
                f"cannot write reference table {self.directory}: {error.strerror}; the rows done so far are kept, "
                "make room and start again"
            ) from error


def _require_unique(ids: Iterable[str]) -> None:
    seen: set[str] = set()
    for row_id in ids:
        if row_id in seen:
            raise DataError(
                f"two rows have the id {show(row_id)}; a reference table needs an id of its own for every row"
            )
        seen.add(row_id)


def _make(directory: Path, manifest: dict, tokens: int) -> None:
    """Make an empty table under another name and rename it, so that nobody meets half of one."""
    half_made = directory.with_name(f".{directory.name}.{os.getpid()}-{uuid.uuid4().hex}")
    try:
        half_made.mkdir(parents=True)
        for name, size in ((_VALUES, tokens * _VALUE.itemsize), (_DONE, len(manifest["rows"]))):
            with open(half_made / name, "wb") as file:
                file.truncate(size)
        (half_made / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        half_made.rename(directory)
    except OSError as error:
        shutil.rmtree(half_made, ignore_errors=True)
        if not (directory / _MANIFEST).is_file():  # another process was not faster, so this is a real error
            raise CheckpointError(f"cannot make reference table {directory}: {error.strerror}") from error


def _read_manifest(directory: Path) -> dict:
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        return {"made_with": dict(manifest["made_with"]), "rows": list(manifest["rows"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{directory} is no reference table ({_MANIFEST} is missing or unreadable); remove it to make one"
        ) from error


def _require_same(stored: dict, wanted: dict, directory: Path) -> None:
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
            f"reference table {directory} is stale: what changed is {', '.join(changed)}; remove the directory to make "
            "it anew, or go back to what it was made with"
        )
