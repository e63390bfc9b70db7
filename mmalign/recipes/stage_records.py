"""What each stage of a resumable pipeline has made, on disk: one line an item, one file for each process.

    <run>/<stage>/rank-<k>.jsonl     {"id", and what the stage found out} or {"id", "left_out"} or {"id", "refused"}

A line stands there whole or not at all, so that a run that is killed at any moment goes on with the first item that has
none. An item that a rule leaves out, or that is refused, goes no further.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmalign.errors import DataError, RowError
from mmalign.formats.store import json_line
from mmalign.generate.endpoint import NO_ANSWER
from mmalign.generate.paid_answers import whole_lines
from mmalign.sources.quarantine import Refusal

Record = dict[str, Any]


def left_out(rule: str) -> Record:
    """Return what is written of an item that a rule leaves out: nothing is wrong with it."""
    return {"left_out": rule}


def refused(item: str, *errors: RowError) -> Record:
    """Return what is written of an item that cannot be used, and why."""
    return {"refused": [asdict(Refusal.of(item, 0, error)) for error in errors]}


class Records:
    """What a stage has made of its items. Only their places are held in memory.

    Args:
        directory: of the stage.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._places: dict[str, tuple[Path, int]] = {}
        self._unsettled: set[str] = set()
        self._good: set[str] = set()
        self.counts: Counter[str] = Counter()

    def read(self) -> Records:
        """Find what is there, whoever wrote it; a last line that a killed run cut short is left out."""
        for held in (self._places, self._unsettled, self._good, self.counts):
            held.clear()
        for file in sorted(self.directory.glob("rank-*.jsonl")):
            offset = 0
            with file.open("rb") as lines:
                for line in lines:
                    if line.endswith(b"\n"):
                        self._note(json.loads(line), (file, offset))
                    offset += len(line)
        for item in self._places.keys() - self._good:
            record = self[item]
            self.counts[record.get("left_out") or record["refused"][0]["reason"]] += 1
        return self

    def _note(self, record: Record, place: tuple[Path, int]) -> None:
        item = record["id"]
        unsettled = any(refusal["reason"] == NO_ANSWER for refusal in record.get("refused", ()))
        if item in self._places and (unsettled or item not in self._unsettled):
            return
        self._places[item] = place
        (self._unsettled.add if unsettled else self._unsettled.discard)(item)
        if "left_out" not in record and "refused" not in record:
            self._good.add(item)

    def __getitem__(self, item: str) -> Record:
        """Return the record of an item."""
        file, offset = self._places[item]
        with file.open("rb") as lines:
            lines.seek(offset)
            return json.loads(lines.readline())

    def __contains__(self, item: str) -> bool:
        """Say whether an item is good and goes on to the next stage."""
        return item in self._good

    def __iter__(self) -> Iterator[str]:
        """Yield the items that go on, in the order of their names."""
        return iter(sorted(self._good))

    def __len__(self) -> int:
        """Return how many items go on."""
        return len(self._good)

    def is_settled(self, item: str) -> bool:
        """Say whether nothing is left to do; False for what a server left without an answer, which is asked again."""
        return item in self._places and item not in self._unsettled

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Yield items that a rule left out, and the rule, in the order of their names."""
        for item in sorted(self._places.keys() - self._good):
            if rule := self[item].get("left_out"):
                yield item, rule

    def refusals(self) -> Iterator[Refusal]:
        """Yield why items were refused, in the order of their names."""
        for item in sorted(self._places.keys() - self._good):
            for refusal in self[item].get("refused", ()):
                yield Refusal(**refusal)

    def writer(self, rank: int) -> LineWriter:
        """Return what appends to the file of one process."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return LineWriter(self.directory / f"rank-{rank}.jsonl")


class LineWriter:
    """Appends JSON lines to a file, each visible as soon as it is written."""

    def __init__(self, path: Path) -> None:
        whole_lines(path)  # takes off what a killed run left unfinished
        self._path, self._file = path, path.open("ab")

    def write(self, record: Record) -> None:
        """Append a line.

        Raises:
            DataError: the disk is full.
            RowError: the record has no form in JSON.
        """
        line = json_line(record).encode("utf-8") + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise DataError(f"cannot write {self._path}: {error.strerror or error}; free some space") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()
