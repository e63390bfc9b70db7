"""Decoded frames on disk, so that a second epoch decodes nothing: one safetensors file a clip."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mmalign.modalities.clips import ClipShape, Taken, Want
from mmalign.modalities.disk_cache import DiskCache

_VERSION = "frames-2"
"""Changes when the same wish gives other pixels."""

_NUMBERS = tuple(field.name for field in dataclasses.fields(ClipShape) if field.name != "timestamps_s")
_REALS = ("source_fps", "duration_s")


@functools.lru_cache(maxsize=16)
def opened(directory: str, max_bytes: int) -> DiskCache:
    """Return this process's view of a directory; one per directory, so that it keeps count of what it wrote."""
    return DiskCache(directory, version=_VERSION, max_bytes=max_bytes, name="frame cache")


def key_of(sha256: str, want: Want) -> str:
    """Return the key of what a wish makes of a file with this digest, in however much memory."""
    wish = dataclasses.asdict(want)
    del wish["decode_memory_bytes"]
    asked = json.dumps([sha256, wish], sort_keys=True)
    return hashlib.sha256(asked.encode("ascii")).hexdigest()


def get(cache: DiskCache, key: str) -> Taken | None:
    """Return what was kept, None when there is nothing or it is unreadable."""
    return cache.get(key, _read)


def put(cache: DiskCache, key: str, taken: Taken) -> None:
    """Keep what a reader gave."""
    arrays = {
        "frames": taken.frames,
        "shape": np.array([getattr(taken.shape, name) for name in _NUMBERS], dtype=np.float64),
        "indices": np.array(taken.indices, dtype=np.int64),
        "times_s": np.array(taken.shape.timestamps_s, dtype=np.float64),
    }
    cache.put(key, taken.frames.nbytes, lambda path: save_file(arrays, path))


def _read(path: Path) -> Taken:
    arrays = load_file(path)
    if arrays.keys() != {"frames", "shape", "indices", "times_s"} or arrays["frames"].dtype != np.uint8:
        raise ValueError("it holds something else than a clip")
    values = dict(zip(_NUMBERS, arrays["shape"].tolist(), strict=True))
    whole = {name: value if name in _REALS else int(value) for name, value in values.items()}
    shape = ClipShape(**whole, timestamps_s=tuple(arrays["times_s"].tolist()))
    return Taken(shape, arrays["indices"].tolist(), arrays["frames"])
