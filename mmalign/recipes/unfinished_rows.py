"""Rows that are made one after the other over hours, in a file that a killed program can go on with.

    <out>.unfinished         the rows made so far, a line each
    <out>.unfinished.json    what they are made with, how many rows were read, and how long the file then was

A batch counts once its state is written; what a killed program left behind that is cut off. At the end the rows are
written anew to `out`, whole or not at all, and both files go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmalign.errors import DataError
from mmalign.formats.preference import Preference
from mmalign.formats.store import read_jsonl, to_line, write_jsonl


class UnfinishedRows:
    """The rows made so far; begins anew or goes on with what is there.

    Args:
        out: file that the rows are for, with the ending .jsonl.
        made_with: everything that decides what the rows become; rows made with something else are not gone on with.

    Raises:
        DataError: rows made with something else lie there, or they cannot be read or written.
    """

    def __init__(self, out: Path, made_with: Mapping[str, Any]) -> None:
        self.out, self.made_with = out, dict(made_with)
        self.path = out.with_name(out.name + ".unfinished")
        self._state_path = out.with_name(out.name + ".unfinished.json")
        state = self._read_state()
        self.rows_read: int = state["rows_read"]
        """Rows of the source that are dealt with, refused ones included."""
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.truncate(state["bytes"])
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error.strerror or error}") from error

    def add(self, rows: Iterable[Preference], rows_read: int) -> None:
        """Append rows, and count `rows_read` more rows of the source as dealt with.

        Raises:
            DataError: the disk is full or the place cannot be written; what was added before is kept.
        """
        self.rows_read += rows_read
        try:
            with self.path.open("ab") as file:
                file.write(b"".join(to_line(row).encode("utf-8") + b"\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            self._write_state(size)
        except OSError as error:
            hint = "the rows made so far are kept; make room and start again"
            raise DataError(f"cannot write {self.path}: {error.strerror or error}; {hint}") from error

    def finish(self) -> int:
        """Write all rows to `out`, remove what is no longer needed, and return the number of rows."""
        count = write_jsonl(self.out, read_jsonl(self.path))
        self.remove(self.out)
        return count

    @staticmethod
    def remove(out: Path) -> None:
        """Throw away what was made for `out` so far."""
        for ending in (".unfinished", ".unfinished.json"):
            out.with_name(out.name + ending).unlink(missing_ok=True)

    def _read_state(self) -> dict[str, Any]:
        if not self._state_path.exists():
            return {"rows_read": 0, "bytes": 0}
        try:
            state = json.loads(self._state_path.read_text(encoding="utf-8"))
            made_with, numbers = state["made_with"], {name: int(state[name]) for name in ("rows_read", "bytes")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._state_path} is damaged; --overwrite begins anew") from error
        changed = [name for name in self.made_with if made_with.get(name) != self.made_with[name]]
        if changed:
            raise DataError(
                f"{self.path} holds rows of an earlier start that had another {', '.join(changed)}; start as then to "
                "go on, or --overwrite to begin anew"
            )
        return numbers

    def _write_state(self, size: int) -> None:
        state = {"made_with": self.made_with, "rows_read": self.rows_read, "bytes": size}
        written = self._state_path.with_name(self._state_path.name + ".new")
        written.write_text(json.dumps(state), encoding="utf-8")
        os.replace(written, self._state_path)
