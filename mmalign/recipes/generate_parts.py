"""What `mmalign generate` has done so far, on disk: one line for each prompt, one file for each process.

    <run>/parts/rank-<k>.jsonl   {"number", "id", "row" or null, "samples", "refused"}

A line stands there whole or not at all, so that a run that is killed at any moment goes on with the first prompt that
has none. Answers do not depend on the process that draws them, so a run may go on with another number of processes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.prompt import Prompt
from mmalign.formats.store import to_line
from mmalign.generate.answers import Generated
from mmalign.generate.endpoint import NO_ANSWER
from mmalign.recipes.stage_records import LineWriter
from mmalign.sources.quarantine import Refusal


@dataclass(frozen=True)
class Part:
    """What became of one prompt.

    Args:
        number: of the prompt in its file, from 0, refused rows not counted.
        row: the row with its answers, ready for JSON; None when there is no useful one.
        samples: every answer with its tokens and their log-probs.
        refused: why answers, or the prompt, are of no use.
    """

    number: int
    id: str
    row: dict[str, Any] | None
    samples: list[dict[str, Any]]
    refused: list[dict[str, Any]]

    @property
    def is_settled(self) -> bool:
        """False for a prompt that a server left without an answer, which is asked again."""
        return all(refusal["reason"] != NO_ANSWER for refusal in self.refused)


def part_of(number: int, generated: Generated) -> Part:
    """Return what became of a prompt that was answered."""
    row = generated.row()
    return Part(
        number=number,
        id=generated.prompt.id,
        row=None if row is None else json.loads(to_line(row)),
        samples=[asdict(sample) for sample in generated.samples],
        refused=[_refusal(generated.prompt, problem) for problem in generated.problems()],
    )


def refused_part(number: int, prompt: Prompt, error: RowError) -> Part:
    """Return what became of a prompt that was not answered."""
    return Part(number=number, id=prompt.id, row=None, samples=[], refused=[_refusal(prompt, error)])


def _refusal(prompt: Prompt, error: RowError) -> dict[str, Any]:
    place = prompt.provenance
    return asdict(Refusal.of(place.get("file", ""), int(place.get("row", 0)), error))


class Parts:
    """The files of a run.

    Args:
        directory: `parts/` of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def settled(self) -> set[int]:
        """Return the numbers of prompts that are done; call it before anybody writes."""
        return {part.number for file in self._files() for part in _read(file) if part.is_settled}

    def each(self) -> Iterator[Part]:
        """Yield the newest part of every prompt, in the order of the prompts, holding one at a time."""
        places: dict[int, tuple[Path, int]] = {}
        for file in self._files():
            with file.open("rb") as lines:
                offset = 0
                for line in lines:
                    number, (known, _) = _number(line), places.get(_number(line), (None, 0))
                    if known is None or _part(line).is_settled or not _at(*places[number]).is_settled:
                        places[number] = (file, offset)
                    offset += len(line)
        for number in sorted(places):
            yield _at(*places[number])

    def writer(self, rank: int) -> LineWriter:
        """Return what appends parts, as dicts, to the file of one process."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return LineWriter(self.directory / f"rank-{rank}.jsonl")

    def _files(self) -> list[Path]:
        return sorted(self.directory.glob("rank-*.jsonl"))


def _read(file: Path) -> Iterator[Part]:
    """Yield the parts of a file; a last line that a killed run cut short is left out."""
    with file.open("rb") as lines:
        yield from (_part(line) for line in lines if line.endswith(b"\n"))


def _part(line: bytes) -> Part:
    return Part(**json.loads(line))


def _number(line: bytes) -> int:
    return json.loads(line)["number"]


def _at(file: Path, offset: int) -> Part:
    with file.open("rb") as lines:
        lines.seek(offset)
        return _part(lines.readline())
