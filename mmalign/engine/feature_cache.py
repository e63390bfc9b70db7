"""Features of frozen vision towers on disk, so that a second epoch runs no tower.

One safetensors file holds what the tower said about the media of one row. Its version stands for the tower (weights,
settings, dtype), its key for the media and how the processor saw them. What a cache does when disks fill up and files
break is told in `modalities/disk_cache.py`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from mmalign.modalities.disk_cache import DiskCache


class FeatureCache:
    """A size-capped, least-recently-used store of tensors on disk, safe with several processes.

    Args:
        directory: made if missing; may be shared by runs and processes.
        version: fingerprint of the tower; entries of other versions are never returned.
        max_bytes: cap on the size of all files under `directory`.
    """

    def __init__(self, directory: str | Path, *, version: str, max_bytes: int) -> None:
        self._files = DiskCache(directory, version=version, max_bytes=max_bytes, name="feature cache")

    @property
    def hits(self) -> int:
        """How many tensors were found."""
        return self._files.hits

    @property
    def misses(self) -> int:
        """How many were not."""
        return self._files.misses

    def get(self, media_key: str) -> dict[str, Tensor] | None:
        """Return the tensors stored for `media_key` on the CPU, or None when there are none or they are unreadable."""
        return self._files.get(media_key, load_file)

    def put(self, media_key: str, tensors: dict[str, Tensor]) -> None:
        """Store `tensors` under `media_key`; does nothing when they alone exceed the cap or writing is off."""
        size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

        def write(path: Path) -> None:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)

        self._files.put(media_key, size_bytes, write)
