"""Preferences on disk: JSONL for people, Parquet for volume. Both stream, both give back exactly what was written.

JSONL carries the bytes of a medium as a `data:` URI; Parquet as `{"bytes", "path"}` with the metadata by which the
`datasets` library decodes an image column. A file without a single medium has no column `images`, because TRL takes the
column for the sign of a vision data set; a file with one has it in every row, because TRL's collator reads every row's.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from mmalign.errors import DataError, RowError
from mmalign.formats.columns import from_columns, to_columns
from mmalign.formats.media import MediaRef
from mmalign.formats.media_columns import COLUMN_OF
from mmalign.formats.media_columns import COLUMNS as MEDIA_COLUMNS
from mmalign.formats.parquet import ParquetRows, read_rows
from mmalign.formats.preference import Preference

__all__ = [
    "from_columns",
    "parse_line",
    "read_jsonl",
    "read_parquet",
    "to_columns",
    "to_line",
    "write_jsonl",
    "write_parquet",
]

Columns = Callable[[Preference], dict[str, Any]]

_NO_IMAGES = ', "images": []}'
# The first bytes of a file, from an offset, and what they mean; the first that fits has the say.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG", "image/png"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (8, b"WEBP", "image/webp"),
    (8, b"AVI ", "video/x-msvideo"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/x-matroska"),  # WebM is a subset of it
)


def to_line(preference: Preference, *, images: bool = True, columns: Columns = to_columns) -> str:
    """Return `preference` as one line of JSON, without the line end.

    Args:
        images: whether a row without media says `"images": []`.
        columns: makes the row; a subset of our columns for files that others read.

    Raises:
        RowError: a number is not finite or a text is not valid Unicode; neither may get into a JSON file.
    """
    row = columns(preference)
    if not row["images"]:
        del row["images"]
    for column in MEDIA_COLUMNS:
        if column in row:
            row[column] = [_in_json(medium) for medium in row[column]]
    for response in row.get("responses", ()):
        if "media" in response:
            response["media"] = [_in_json(medium) for medium in response["media"]]
    line = json_line(row)
    return line if "images" in row or not images else line[:-1] + _NO_IMAGES


def json_line(row: dict[str, Any]) -> str:
    """Return a row as strict JSON in one line.

    Raises:
        RowError: a number is not finite or a text is not valid Unicode.
    """
    try:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except ValueError as error:
        raise RowError("row cannot be written as JSON", field=str(row.get("id", "")), hint=str(error)) from error
    return line


def parse_line(line: str | bytes) -> Preference:
    """Return the preference that one line of JSON holds.

    Raises:
        RowError: the line is not JSON, or not a row of ours.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowError("line is not JSON", value=str(error)) from error
    if not isinstance(row, dict):
        raise RowError("line is not a JSON object", value=row)
    return from_columns(row)


def write_jsonl(path: str | Path, preferences: Iterable[Preference], columns: Columns = to_columns) -> int:
    """Write one row a line and return how many. The file appears only when all rows are in it.

    Raises:
        DataError: the disk is full or the place cannot be written.
    """
    count, media_seen, silent_rows = 0, False, False
    with completed(Path(path)) as partial:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for preference in preferences:
                media_seen = media_seen or any(ref.kind == "image" for ref in preference.media)
                silent_rows = silent_rows or not media_seen
                file.write(to_line(preference, images=media_seen, columns=columns) + "\n")
                count += 1
        if media_seen and silent_rows:
            _say_no_images(partial)
    return count


def read_jsonl(path: str | Path) -> Iterator[Preference]:
    """Yield the rows of a file of `write_jsonl`, holding one at a time.

    Raises:
        DataError: a line is not a row of ours; the message names file and line.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield parse_line(line)
            except RowError as error:
                raise DataError(f"{path}, line {number}: {error}") from error


def write_parquet(
    path: str | Path, preferences: Iterable[Preference], rows_per_group: int = 256, columns: Columns = to_columns
) -> int:
    """Write row groups of at most `rows_per_group` rows and return the number of rows. Columns as in `to_columns`.

    Raises:
        DataError: the disk is full or the place cannot be written.
    """
    with completed(Path(path)) as partial, ParquetRows(partial, rows_per_group) as rows:
        for preference in preferences:
            rows.add(columns(preference))
        return rows.count


def read_parquet(path: str | Path) -> Iterator[Preference]:
    """Yield the rows of a file of `write_parquet`, holding a few at a time.

    Raises:
        DataError: the file is not Parquet, or a row is not one of ours.
    """
    for number, row in enumerate(read_rows(Path(path)), start=1):
        try:
            yield from_columns(row)
        except RowError as error:
            raise DataError(f"{path}, row {number}: {error}") from error


@contextlib.contextmanager
def completed(path: Path) -> Iterator[Path]:
    """Give a neighbour to write to and move it to `path` at the end; on any error nothing is left behind."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _say_no_images(path: Path) -> None:
    """Add `"images": []` to the rows that were written before the first medium was seen."""
    widened = path.with_name(path.name + ".widened")
    with path.open(encoding="utf-8") as source, widened.open("w", encoding="utf-8", newline="\n") as target:
        for line in source:
            said = "images" in json.loads(line)
            target.write(line if said else line.rstrip("\n")[:-1] + _NO_IMAGES + "\n")
    os.replace(widened, path)


def _in_json(medium: dict[str, Any]) -> Any:
    """Return a medium as JSON holds it: where it is, beside its kind and its facts where they stand with it.

    A list of frames is nowhere: its paths stand among its facts.
    """
    where, said = _path_or_data_uri(medium), {name: medium[name] for name in medium if name not in ("bytes", "path")}
    if "kind" not in medium:
        return where
    value = _json_of(medium)
    if value is not None:
        return said | {"json": value}
    return said if where is None else said | {"path": where}


def _json_of(medium: dict[str, Any]) -> Any:
    """Return the value whose JSON text a medium is, None where it is a file, or of a kind that others read as one."""
    if medium["bytes"] is None or medium["kind"] in COLUMN_OF:
        return None
    return MediaRef(kind=medium["kind"], content=medium["bytes"]).json()


def _path_or_data_uri(medium: dict[str, Any]) -> str | None:
    if medium["bytes"] is None:
        return medium["path"]
    return MediaRef(kind="image", content=medium["bytes"]).data_uri(mime_type(medium["bytes"]))


def mime_type(content: bytes) -> str:
    """Name the kind of medium by its first bytes, since some readers accept `data:image/...` only."""
    found = (name for start, signature, name in _SIGNATURES if content.startswith(signature, start))
    return next(found, "application/octet-stream")
