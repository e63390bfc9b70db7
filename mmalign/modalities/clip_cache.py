"""Decoded frames on disk, so that a second epoch decodes nothing: one safetensors file a clip."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from mmalign.modalities.clips import Shape, Taken, Want
from mmalign.modalities.disk_cache import DiskCache

_VERSION = "frames-2"
"""Changes when the same wish gives other pixels."""


@functools.lru_cache(maxsize=16)
def opened(directory: str, max_bytes: int) -> DiskCache:
    """Return this process's view of a directory; one per directory, so that it keeps count of what it wrote."""
    return DiskCache(directory, version=_VERSION, max_bytes=max_bytes, name="frame cache")


def key_of(sha256: str, want: Want) -> str:
    """Return the key of what a wish makes of a file with this digest."""
    asked = json.dumps([sha256, dataclasses.asdict(want)], sort_keys=True)
    return hashlib.sha256(asked.encode("ascii")).hexdigest()


def get(cache: DiskCache, key: str) -> Taken | None:
    """Return what was kept, None when there is nothing or it is unreadable."""
    return cache.get(key, _read)


def put(cache: DiskCache, key: str, taken: Taken) -> None:
    """Keep what a reader gave."""
    arrays = {
        "frames": taken.frames,
        "shape": np.array(taken.shape, dtype=np.float64),
        "indices": np.array(taken.indices, dtype=np.int64),
        "times_s": np.array(taken.times_s, dtype=np.float64),
    }
    cache.put(key, taken.frames.nbytes, lambda path: save_file(arrays, path))


def _read(path: Path) -> Taken:
    arrays = load_file(path)
    if arrays.keys() != {"frames", "shape", "indices", "times_s"} or arrays["frames"].dtype != np.uint8:
        raise ValueError("it holds something else than a clip")
    values = dict(zip(Shape._fields, arrays["shape"].tolist(), strict=True))
    reals = {"source_fps", "duration_s"}
    shape = Shape(**{name: value if name in reals else int(value) for name, value in values.items()})
    return Taken(shape, arrays["indices"].tolist(), arrays["times_s"].tolist(), arrays["frames"])
