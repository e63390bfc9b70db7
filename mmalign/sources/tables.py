"""Tables -> rows: Parquet files, folders written by `datasets`' save_to_disk, and data sets on the hub.

A table has every column in every row; a column that is null in a row is left out of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmalign.errors import DataError
from mmalign.formats.parquet import read_rows

_STATE, _SPLITS = "state.json", "dataset_dict.json"
_ROWS_READ_AT_ONCE = 32


def is_datasets_folder(folder: Path) -> bool:
    """Tell whether `save_to_disk` wrote this folder."""
    return (folder / _STATE).is_file() or (folder / _SPLITS).is_file()


def parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file.

    Raises:
        DataError: it is not Parquet, or is cut short.
    """
    return map(_filled, read_rows(file))


def datasets_folder_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a folder written by `save_to_disk`, from the memory-mapped Arrow files; media stay encoded.

    Raises:
        DataError: the folder holds several splits, or one of its files is damaged.
    """
    try:
        if not (folder / _STATE).is_file():
            splits = json.loads((folder / _SPLITS).read_text(encoding="utf-8"))["splits"]
            raise DataError(f"{folder} holds the splits {', '.join(splits)}; name one, as in {folder / splits[0]}")
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        for part in state["_data_files"]:
            with pa.memory_map(str(folder / part["filename"])) as source, pa.ipc.open_stream(source) as stream:
                for batch in stream:
                    for start in range(0, batch.num_rows, _ROWS_READ_AT_ONCE):
                        yield from map(_filled, batch.slice(start, _ROWS_READ_AT_ONCE).to_pylist())
    except DataError:
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{folder} cannot be read as a datasets folder: {error}") from error


def hub_rows(name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of "owner/name[:split]" from the hub as a stream; the split is train by default.

    Raises:
        DataError: the data set, or the split, cannot be fetched.
    """
    import datasets

    repository, _, split = name.partition(":")
    try:
        stream = datasets.load_dataset(repository, split=split or "train", streaming=True)
        for column, feature in (stream.features or {}).items():
            encoded = _without_decoding(feature)
            if encoded is not None:
                stream = stream.cast_column(column, encoded)
        yield from map(_filled, stream)
    except Exception as error:  # the library raises whatever the network and the repository's files bring up
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"{name} does not exist here and cannot be read from the hub: {why}") from error


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _without_decoding(feature: Any) -> Any:
    """Return the feature that leaves images and videos (or a list of them) encoded, None for every other feature."""
    import datasets

    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)
    for kind in (datasets.Image, datasets.Video):
        if isinstance(feature, kind):
            return kind(decode=False)
        if isinstance(inner, kind):
            return datasets.Sequence(kind(decode=False))
    return None
