"""Files, folders and hub ids -> raw rows, one at a time, each with the place where it stands.

A row that cannot be read (a broken line) is handed to `on_broken` and reading goes on. A file that cannot be read any
further (a broken array, a damaged table, the wrong encoding) ends with `DataError`.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mmalign.errors import DataError, RowError
from mmalign.sources import tables
from mmalign.sources.json_values import ROW_LISTS, JsonValues

LARGEST_LINE_BYTES = 256 * 1024**2
_LONGEST_FIRST_LINE_BYTES = 32 * 1024**2
ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet")
_TABLES = (".csv", ".tsv")

OnBroken = Callable[[str, int, RowError], None]


@dataclass(frozen=True)
class RawRow:
    """One row as published: `row` counts from 1 and is the line number in JSONL."""

    file: str
    row: int
    values: dict[str, Any]


def _raise(file: str, row: int, error: RowError) -> None:
    raise DataError(f"{file}, row {row}: {error}") from error


def read_raw(
    path: str | os.PathLike[str], *, on_broken: OnBroken = _raise, allow_network: bool = False
) -> Iterator[RawRow]:
    """Yield the rows of a file, a folder of files, a `datasets` folder, or (with `allow_network`) a hub id.

    Args:
        path: .json, .jsonl, .ndjson (each also .gz), .parquet, a folder, or "owner/name[:split]" on the hub.
        on_broken: called with file, row and reason for a row that cannot be read.
        allow_network: whether a hub id may be fetched.

    Raises:
        DataError: there is nothing to read, or it cannot be read any further.
    """
    found = False

    def broken(name: str, row: int, error: RowError) -> None:
        nonlocal found
        found = True
        on_broken(name, row, error)

    for name, row, values in _places(path, broken, allow_network):
        found = True
        if isinstance(values, dict):
            yield RawRow(name, row, values)
        else:
            broken(name, row, RowError("row is not an object", value=values, hint="a row is {column: value}"))
    if not found:
        raise DataError(f"{path} holds no rows")


def _places(path: str | os.PathLike[str], on_broken: OnBroken, allow_network: bool) -> Iterator[tuple[str, int, Any]]:
    """Yield file name, row number and value of everything that stands where a row should."""
    if not Path(path).exists():
        name = _hub_id(str(path), allow_network)
        yield from ((name, row, values) for row, values in enumerate(tables.hub_rows(name), start=1))
        return
    for file, name in _files(Path(path)):
        yield from ((name, row, values) for row, values in _rows(file, name, on_broken))


def _hub_id(name: str, allow_network: bool) -> str:
    looks_like_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith(ENDINGS)
    if not looks_like_id:
        raise DataError(f"{name} does not exist")
    if not allow_network:
        raise DataError(f"{name} does not exist here; if it is a data set on the hub, allow the network to fetch it")
    return name


def _files(place: Path) -> list[tuple[Path, str]]:
    """Return the files to read and the names that messages and ids give them."""
    if place.is_file() or tables.is_datasets_folder(place):
        return [(place, place.name)]
    shards = sorted(
        file for file in place.rglob("*") if file.name.removesuffix(".gz").endswith(ENDINGS) and is_seen(file, place)
    )
    if not shards:
        raise DataError(f"{place} holds no data file; known endings are {', '.join(ENDINGS)}")
    kinds = sorted({Path(file.name.removesuffix(".gz")).suffix for file in shards})
    if len(kinds) > 1:
        raise DataError(f"{place} holds files of several kinds ({', '.join(kinds)}); name the file or folder you mean")
    return [(file, file.relative_to(place).as_posix()) for file in shards]


def is_seen(file: Path, folder: Path) -> bool:
    """Tell whether a file below a folder is meant to be seen: caches, and what is hidden at any depth, are not."""
    return not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _rows(file: Path, name: str, on_broken: OnBroken) -> Iterator[tuple[int, Any]]:
    if file.is_dir():
        yield from enumerate(tables.datasets_folder_rows(file), start=1)
        return
    ending = Path(file.name.removesuffix(".gz")).suffix
    if ending not in ENDINGS:
        raise DataError(f"{file} has no known ending; rows are in {', '.join(ENDINGS)} and folders{_way_out(ending)}")
    try:
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty")
        if ending == ".parquet":
            yield from enumerate(tables.parquet_rows(file), start=1)
            return
        with _open_text(file) as stream:
            if ending == ".json" and not _is_one_row_a_line(stream):
                yield from enumerate(JsonValues(stream, str(file)).rows(), start=1)
            else:
                yield from _lines(stream, name, on_broken)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from error


def _way_out(ending: str) -> str:
    if ending not in _TABLES:
        return ""
    return f"; a table ({ending}) becomes rows with datasets.load_dataset('csv', data_files=...)['train'].to_json(...)"


def _open_text(file: Path) -> BinaryIO:
    """Open a text file as bytes just after its byte-order mark.

    Raises:
        DataError: it is UTF-16 or UTF-32.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    stream = opened(file, "rb")  # the caller closes it
    head = stream.read(4)
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 0 in head
    if wide:
        stream.close()
        raise DataError(
            f"{file} is not UTF-8 but looks like UTF-16 or binary; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
        )
    stream.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
    return stream


def _is_one_row_a_line(stream: BinaryIO) -> bool:
    """Tell whether a .json file is JSONL in fact, as many published ones are; the stream is left where it was."""
    start = stream.tell()
    is_object = stream.read(1024).lstrip().startswith(b"{")
    stream.seek(start)
    line = stream.readline(_LONGEST_FIRST_LINE_BYTES) if is_object else b""
    while line and not line.strip():
        line = stream.readline(_LONGEST_FIRST_LINE_BYTES)
    more = bool(stream.read(1))
    stream.seek(start)
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return more and line.rstrip().endswith(b"}")
    return more or not any(isinstance(values.get(name), list) for name in ROW_LISTS)


def _lines(stream: BinaryIO, name: str, on_broken: OnBroken) -> Iterator[tuple[int, Any]]:
    number = 0
    while line := stream.readline(LARGEST_LINE_BYTES):
        number += 1
        if len(line) == LARGEST_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(LARGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            on_broken(name, number, RowError("line is too long", value=f"more than {LARGEST_LINE_BYTES} bytes"))
        elif line := line.strip():
            try:
                yield number, json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                on_broken(name, number, _broken_line(line, error))


def _broken_line(line: bytes, error: Exception) -> RowError:
    if isinstance(error, UnicodeDecodeError):
        return RowError("line is not UTF-8", value=line[:60], hint="save the file as UTF-8 (iconv -f LATIN1 -t UTF-8)")
    if isinstance(error, json.JSONDecodeError):
        shown = line[max(0, error.pos - 20) : error.pos + 20].decode("utf-8", "replace")
        return RowError("line is not JSON", value=shown, hint=f"{error.msg} at column {error.colno}")
    return RowError("line is not JSON", value=line[:60].decode("utf-8", "replace"), hint=str(error))
