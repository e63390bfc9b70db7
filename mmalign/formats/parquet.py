"""Rows of `to_columns` in Parquet, a row group at a time.

Columns that no row uses are not written. Which those are is not known at the first row group, so a column that first
speaks later widens the file: what stands on disk is copied, row group by row group, with nulls in the new column.
Maps with free keys (tags, provenance, scores) are stored as JSON text, since a Parquet struct has one set of keys.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmalign.errors import DataError
from mmalign.formats.media_columns import COLUMNS as MEDIA_COLUMNS

_LARGEST_GROUP_BYTES = 128 * 1024**2
_ROWS_READ_AT_ONCE = 32

_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(_PART))]))
_MEDIUM = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_OF_SOME_KIND = [("kind", pa.string()), *_MEDIUM]
_FACTS = [
    ("frames", pa.list_(pa.string())),
    ("sha256", pa.string()),
    ("span_s", pa.list_(pa.float64())),
    ("frame_indices", pa.list_(pa.int64())),
]
_SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("weight", pa.float64())])
_RESPONSE = pa.struct(
    [
        ("messages", _MESSAGES),
        ("score", pa.float64()),
        ("scores", pa.string()),
        ("critique", pa.string()),
        ("spans", pa.list_(_SPAN)),
        ("media", pa.list_(pa.struct([*_OF_SOME_KIND, *_FACTS]))),
        ("model", pa.string()),
        ("annotator", pa.string()),
    ]
)
COLUMN_TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    "prompt": _MESSAGES,
    "images": pa.list_(_MEDIUM),
    "videos": pa.list_(_MEDIUM),
    "media": pa.list_(pa.struct(_OF_SOME_KIND)),
    "chosen": _MESSAGES,
    "rejected": _MESSAGES,
    "completion": _MESSAGES,
    "label": pa.bool_(),
    "margin": pa.float64(),
    "weight": pa.float64(),
    "difficulty": pa.float64(),
    "ties": pa.list_(pa.list_(pa.int64())),
    "tags": pa.string(),
    "provenance": pa.string(),
    "responses": pa.list_(_RESPONSE),
    "media_facts": pa.list_(pa.struct(_FACTS)),
    "media_order": pa.list_(pa.int64()),
}

# Videos load as what they are, bytes and path: decoding them wants a library that few have, and fails on a frame list.
_FEATURES: dict[str, Any] = {"images": [{"_type": "Image"}], "videos": [{"_type": "Video", "decode": False}]}


class ParquetRows:
    """A Parquet file being written: `add` rows, leave the `with` block to finish it."""

    def __init__(self, path: Path, rows_per_group: int) -> None:
        self.count = 0
        self._path, self._rows_per_group = path, rows_per_group
        self._columns: list[str] = []
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and (self._waiting or self._writer is None):
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Take one row of `to_columns`."""
        self._waiting.append(_with_json_maps(row))
        self._waiting_bytes += _media_bytes(row)
        self.count += 1
        if len(self._waiting) >= self._rows_per_group or self._waiting_bytes >= _LARGEST_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        said = {name for row in self._waiting for name, value in row.items() if value not in (None, [])}
        columns = [name for name in COLUMN_TYPES if name in said or name in self._columns]
        if not columns:
            columns = ["id", "prompt", "chosen"]
        if self._writer is not None and columns != self._columns:
            self._widen(columns)
        self._columns = columns
        if self._writer is None:
            self._writer = _writer(self._path, columns)
        self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=_schema(columns)))
        self._waiting, self._waiting_bytes = [], 0

    def _widen(self, columns: list[str]) -> None:
        """Copy what is on disk into a file that has `columns` as well."""
        self._writer.close()
        written = self._path.with_name(self._path.name + ".narrow")
        os.replace(self._path, written)
        self._writer = _writer(self._path, columns)
        with pq.ParquetFile(written) as narrow:
            for group in range(narrow.num_row_groups):
                table = narrow.read_row_group(group)
                for name in columns:
                    if name not in table.column_names:
                        empty = [[] if name == "images" else None] * table.num_rows
                        table = table.append_column(name, pa.array(empty, COLUMN_TYPES[name]))
                self._writer.write_table(table.select(columns).cast(_schema(columns)))
        written.unlink()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of any Parquet file as dictionaries, a few in memory at a time; our JSON maps become dictionaries.

    Raises:
        DataError: the file is not Parquet, or is cut short.
    """
    try:
        with pq.ParquetFile(path, memory_map=True, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=_ROWS_READ_AT_ONCE):
                yield from map(_without_json_maps, batch.to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error


def _media_bytes(row: dict[str, Any]) -> int:
    """Return how many bytes of encoded media a row holds: the part of it that can be large."""
    own = (medium for response in row.get("responses") or () for medium in response.get("media") or ())
    listed = (medium for column in MEDIA_COLUMNS for medium in row.get(column, ()))
    return sum(len(medium["bytes"] or b"") for medium in (*listed, *own))


def _writer(path: Path, columns: list[str]) -> pq.ParquetWriter:
    """Open a writer whose pages carry checksums, so that a damaged file is an error and not a wrong picture."""
    return pq.ParquetWriter(path, _schema(columns), write_page_checksum=True)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _with_json_maps(row: dict[str, Any]) -> dict[str, Any]:
    row = dict(row)
    for name in ("tags", "provenance"):
        if name in row:
            row[name] = json.dumps(row[name], ensure_ascii=False, allow_nan=False)
    if "responses" in row:
        row["responses"] = [
            response | {"scores": json.dumps(response["scores"], allow_nan=False)} if "scores" in response else response
            for response in row["responses"]
        ]
    return row


def _without_json_maps(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("tags", "provenance"):
        if isinstance(row.get(name), str):
            row[name] = _map_from(row[name])
    for response in row.get("responses") or ():
        if isinstance(response, dict) and isinstance(response.get("scores"), str):
            response["scores"] = _map_from(response["scores"])
    return row


def _map_from(text: str) -> Any:
    """Read a JSON map; a foreign column of the same name that is no JSON stays the text it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _schema(columns: list[str]) -> pa.Schema:
    """Return the Arrow schema of `columns` with the metadata by which `datasets` knows images and videos as such."""
    features = {name: _FEATURES.get(name) or _feature(COLUMN_TYPES[name]) for name in columns}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, COLUMN_TYPES[name]) for name in columns], metadata=metadata)


def _feature(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": "float64" if pa.types.is_float64(kind) else str(kind), "_type": "Value"}
