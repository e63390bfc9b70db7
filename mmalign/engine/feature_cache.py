"""Features of frozen vision towers on disk, so that a second epoch runs no tower.

One safetensors file holds what the tower said about the media of one row:

    <directory>/<version>/<first two digits>/<media key>.safetensors

`version` stands for the tower (weights, settings, dtype), the media key for the media and how the processor saw them.
Files appear by renaming, so readers and writers of several processes never meet half of one. When the directory grows
over its cap, the files unused for longest go first, whatever their version. A cache must not stop a run: a file
that cannot be read is removed and counted as a miss, a full disk switches writing off with one warning.
"""

from __future__ import annotations

import logging
import os
import uuid
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

_ROOM_AFTER_EVICTION = 0.9
"""Share of the cap that eviction leaves filled, so that it does not run again at the next file."""

_SHARE_BETWEEN_LOOKS = 0.05
"""After writing this share of the cap, look again at what the other processes wrote."""


class FeatureCache:
    """A size-capped, least-recently-used store of tensors on disk, safe with several processes.

    Args:
        directory: made if missing; may be shared by runs and processes.
        version: fingerprint of the tower; entries of other versions are never returned.
        max_bytes: cap on the size of all files under `directory`.
    """

    def __init__(self, directory: str | Path, *, version: str, max_bytes: int) -> None:
        self.directory = Path(directory)
        self.version = version
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._writes = True
        self._known_bytes: int | None = None
        self._written_since_look = 0

    def get(self, media_key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored for `media_key` on the CPU, or None when there are none or they are unreadable."""
        path = self._path(media_key)
        try:
            tensors = load_file(path)
            os.utime(path)
        except FileNotFoundError:
            tensors = None
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("feature cache: %s is unreadable (%s) and is made again", path, error)
            path.unlink(missing_ok=True)
            tensors = None
        self.hits += tensors is not None
        self.misses += tensors is None
        return tensors

    def put(self, media_key: str, tensors: dict[str, Tensor]) -> None:
        """Store `tensors` under `media_key`; does nothing when they alone exceed the cap or writing is off."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        if not self._writes or size > self.max_bytes:
            return
        path = self._path(media_key)
        half_written = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, half_written)
            stored_bytes = half_written.stat().st_size
            os.replace(half_written, path)
        except (OSError, SafetensorError) as error:
            half_written.unlink(missing_ok=True)
            self._writes = False
            logger.warning("feature cache: cannot write to %s (%s); going on without storing more", path.parent, error)
            return
        self._count(stored_bytes)

    def _path(self, media_key: str) -> Path:
        return self.directory / self.version / media_key[:2] / f"{media_key}.safetensors"

    def _count(self, size: int) -> None:
        """Keep track of the size of the directory and evict when it is over the cap."""
        self._written_since_look += size
        if self._known_bytes is None or self._written_since_look > _SHARE_BETWEEN_LOOKS * self.max_bytes:
            self._known_bytes = sum(size for _, size, _ in self._files())
            self._written_since_look = 0
        else:
            self._known_bytes += size
        if self._known_bytes > self.max_bytes:
            self._evict()

    def _evict(self) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - int(_ROOM_AFTER_EVICTION * self.max_bytes)
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
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
