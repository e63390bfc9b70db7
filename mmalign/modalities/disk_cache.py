"""Tensors that can be made again, as safetensors files in a directory with a cap on its size.

    <directory>/<version>/<first two digits of the key>/<key>.safetensors

Files appear by renaming, so readers and writers of several processes never meet half of one. When the directory grows
over its cap, the files unused for longest go first, whatever their version. A cache must not stop a run: a file
that cannot be read is removed and counted as a miss, a full disk switches writing off with one warning.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")

_ROOM_AFTER_EVICTION = 0.9
"""Share of the cap that eviction leaves filled, so that it does not run again at the next file."""

_SHARE_BETWEEN_LOOKS = 0.05
"""After writing this share of the cap, look again at what the other processes wrote."""


class DiskCache:
    """A size-capped, least-recently-used store of files, safe with several processes.

    Args:
        directory: made if missing; may be shared by runs and processes.
        version: stands for how contents are made; entries of other versions are never returned.
        max_bytes: cap on the size of all files under `directory`.
        name: what warnings call it ("feature cache").
    """

    def __init__(self, directory: str | Path, *, version: str, max_bytes: int, name: str) -> None:
        self.directory = Path(directory)
        self.version = version
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._name = name
        self._writes = True
        self._known_bytes: int | None = None
        self._written_since_look = 0

    def get(self, key: str, read: Callable[[Path], Content]) -> Content | None:
        """Return what `read` makes of the file of `key`, None when there is none or it is unreadable."""
        path = self._path(key)
        try:
            content = read(path)
            with contextlib.suppress(OSError):  # a directory that others fill may be readable alone
                os.utime(path)
        except (FileNotFoundError, NotADirectoryError):
            content = None
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s: %s is unreadable (%s) and is made again", self._name, path, error)
            _remove(path)
            content = None
        self.hits += content is not None
        self.misses += content is None
        return content

    def put(self, key: str, size_bytes: int, write: Callable[[Path], None]) -> None:
        """Store what `write` writes; does nothing when `size_bytes` exceeds the cap or writing is off."""
        if not self._writes or size_bytes > self.max_bytes:
            return
        path = self._path(key)
        half_written = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(half_written)
            stored_bytes = half_written.stat().st_size
            os.replace(half_written, path)
        except (SafetensorError, OSError) as error:
            _remove(half_written)
            self._writes = False
            logger.warning("%s: cannot write to %s (%s); going on without storing more", self._name, path.parent, error)
            return
        self._count(stored_bytes)

    def _path(self, key: str) -> Path:
        return self.directory / self.version / key[:2] / f"{key}.safetensors"

    def _count(self, size_bytes: int) -> None:
        """Keep track of the size of the directory and evict when it is over the cap."""
        self._written_since_look += size_bytes
        if self._known_bytes is None or self._written_since_look > _SHARE_BETWEEN_LOOKS * self.max_bytes:
            self._known_bytes = sum(size for _, size, _ in self._files())
            self._written_since_look = 0
        else:
            self._known_bytes += size_bytes
        if self._known_bytes > self.max_bytes:
            self._evict()

    def _evict(self) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - int(_ROOM_AFTER_EVICTION * self.max_bytes)
        for _, size, path in files:
            if excess <= 0:
                break
            _remove(path)
            excess -= size
        self._known_bytes = sum(size for _, size, _ in self._files())
        self._written_since_look = 0

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return (last use, bytes, path) of every entry; files that other processes remove meanwhile are left out."""
        found = []
        for path in self.directory.glob("*/*/*.safetensors"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime, status.st_size, path))
        return found


def _remove(path: Path) -> None:
    """Remove a file if it is there and may be removed; a cache has no errors of its own."""
    with contextlib.suppress(OSError):
        path.unlink()
