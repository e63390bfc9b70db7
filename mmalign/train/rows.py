"""Prepared rows on disk, opened by number, with the media bytes that stood inside them.

    <directory>/rows.jsonl     kept rows in our own format
    <directory>/offsets.npy    where each row begins and the last one ends, in bytes; int64 [rows + 1]
    <directory>/lengths.npy    int32 [rows, 1 + views, 5], columns as in `COLUMNS`; of the row as it is and in each view
    <directory>/responses.npy  tokens of every response that the objective reads, row by row, view by view, int32
    <directory>/lenders.npy    int32 [rows, 2], where the objective reads beside each row's responses one answer to
                               another prompt: the row it is borrowed from, and its place among the responses read
                               there; it counts as a response in the two files above
    <directory>/prepared.json  fingerprint and counts; written last

Nothing is held in memory but the page cache, and loader processes share it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.engine.views import id_in_view
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.formats.store import parse_line
from mmalign.modalities.fetch import MediaLimits, read_bytes

COLUMNS = ("prompt_tokens", "media_tokens", "video_tokens", "response_tokens", "responses")
"""Columns of `lengths.npy`: tokens of the prompt, those of them that media fill, those of these that videos fill,
tokens of all responses that the objective reads, and the number of these responses."""

_STORED = "stored:"
_NOT_FILES = ("data:", "http://", "https://")


class PreparedRows(Sequence[Preference]):
    """The rows of one prepared directory; pickles and forks.

    Args:
        directory: as `prepare` left it.
        media: where bytes that stood inside rows were put.
    """

    def __init__(self, directory: Path, media: MediaStore) -> None:
        self.directory, self.media = directory, media
        self.facts: Mapping[str, Any] = json.loads((directory / "prepared.json").read_text(encoding="utf-8"))
        self.offsets = np.load(directory / "offsets.npy", mmap_mode="r")
        self.lengths = np.load(directory / "lengths.npy", mmap_mode="r")
        borrowed = directory / "lenders.npy"
        self.lenders = np.load(borrowed, mmap_mode="r") if borrowed.exists() else None
        self._file: int | None = None

    @property
    def fingerprint(self) -> str:
        """A short text that stands for the content of the rows."""
        return self.facts["content"]

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views in which rows are read beside their own."""
        return tuple(self.facts["views"])

    def tokens(self, engine: str) -> np.ndarray:
        """Return how many tokens a forward computes for every row, in all its views, int64 [rows].

        Args:
            engine: "tree" computes the prompt once, "flat" once for every response.
        """
        return self._tokens_of_views(engine).sum(1)

    def padded_tokens(self, engine: str) -> np.ndarray:
        """Return `tokens` with every view of a row filled up to the longest of them, int64 [rows]."""
        tokens = self._tokens_of_views(engine)
        return tokens.max(1) * tokens.shape[1]

    def _tokens_of_views(self, engine: str) -> np.ndarray:
        prompt, _, _, responses, count = np.moveaxis(self.lengths.astype(np.int64), 2, 0)
        return prompt * (count if engine == "flat" else 1) + responses

    @property
    def responses_per_row(self) -> tuple[int, int]:
        """Fewest and most responses of a row that the objective reads."""
        counts = self.lengths[:, 0, COLUMNS.index("responses")] - (self.lenders is not None)
        return int(counts.min()), int(counts.max())

    def table_rows(self) -> Iterator[tuple[str, list[int]]]:
        """Yield id and response lengths of every row and then of its views, as a reference table is made of them."""
        stops = np.cumsum(self.lengths[:, :, COLUMNS.index("responses")])
        tokens = np.load(self.directory / "responses.npy")
        names = ("", *self.views)
        for place, lengths in enumerate(np.split(tokens, stops[:-1])):
            row, view = divmod(place, len(names))
            row_id = self.stored(row).id
            yield id_in_view(row_id, names[view]) if view else row_id, lengths.tolist()

    def lender(self, row: int) -> tuple[int, int]:
        """Return the row whose answer stands beside the responses of `row`, and its place among those read there."""
        lender, place = self.lenders[row]
        return int(lender), int(place)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Preference:
        """Return a row with its media bytes.

        Raises:
            RowError: the bytes cannot be read.
        """
        return self.with_bytes(self.stored(row))

    def stored(self, row: int) -> Preference:
        """Return a row as it stands in the file, with references into the store."""
        start, end = int(self.offsets[row]), int(self.offsets[row + 1])
        if self._file is None:
            self._file = os.open(self.directory / "rows.jsonl", os.O_RDONLY)
        # pread moves no file position, so processes that share the file after a fork do not disturb each other.
        return parse_line(os.pread(self._file, end - start, start))

    def with_bytes(self, preference: Preference) -> Preference:
        """Put the bytes back that `MediaStore.put` took out."""
        return with_media(preference, self.media.fetch)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_file": None}


@dataclass(frozen=True)
class MediaStore:
    """A directory with one file per content, named by its hash.

    A reference into it has the uri `stored:<sha256>`, so that a run directory can be moved.
    """

    directory: Path

    def put(self, ref: MediaRef, limits: MediaLimits) -> MediaRef:
        """Move into the store what is not a file below the data root: bytes, a data URI, what an address serves.

        Raises:
            RowError: the bytes cannot or may not be read.
        """
        if ref.uri is not None and ref.uri.startswith(_STORED):
            hint = "it would name a file of the run, or lead out of data.root; write ./stored:..."
            raise RowError(f"{ref.kind} path looks like a name of the store", field=ref.kind, value=ref.uri, hint=hint)
        if ref.frames is not None or (ref.content is None and not ref.uri.startswith(_NOT_FILES)):
            return ref
        content = read_bytes(ref, limits, field=ref.kind)
        name = hashlib.sha256(content).hexdigest()
        path = self._path(name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(content)
            os.replace(unfinished, path)
        return replace(ref, uri=_STORED + name, content=None)

    def fetch(self, ref: MediaRef) -> MediaRef:
        """Put the bytes back into a reference made by `put`; leave others alone.

        Raises:
            RowError: the file is gone.
        """
        if ref.uri is None or not ref.uri.startswith(_STORED):
            return ref
        try:
            content = self._path(ref.uri.removeprefix(_STORED)).read_bytes()
        except OSError as error:
            raise RowError("stored medium cannot be read", field=ref.kind, value=ref.uri, hint=str(error)) from error
        return replace(ref, uri=None, content=content)

    def _path(self, name: str) -> Path:
        return self.directory / name[:2] / name


def with_media(preference: Preference, change: Callable[[MediaRef], MediaRef]) -> Preference:
    """Return the row with `change` applied to every medium, those of single responses included."""
    responses = tuple(
        response if response.media is None else replace(response, media=tuple(map(change, response.media)))
        for response in preference.responses
    )
    return replace(preference, media=tuple(map(change, preference.media)), responses=responses)
