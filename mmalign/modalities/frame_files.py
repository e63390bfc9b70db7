"""Videos that are pictures: a folder of frames, or a list of frame files. One second stands for each frame."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import image
from mmalign.modalities.clips import Refused, too_slow
from mmalign.modalities.fetch import MediaLimits, is_local, local_folder, read_bytes
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.sampling import Timeline

_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif", ".jp2")
_MOST_ENTRIES = 100_000


def frame_refs(ref: MediaRef, limits: MediaLimits, *, field: str) -> list[MediaRef] | None:
    """Return the pictures of a video in order, None when the reference is to a file.

    Of a folder these are its files whose names end as pictures' do, in natural order: `f2.jpg` before `f10.jpg`.

    Raises:
        RowError: the folder leaves the data root, is missing, holds no picture, or too many files;
            a listed frame is no path.
    """
    if ref.frames is not None:
        return [_listed(name, field) for name in ref.frames]
    folder = local_folder(ref, limits, field=field)
    if folder is None:
        return None
    if ref.sha256 is not None:
        raise Refused("folder has no sha256", "a digest is of one file; leave sha256 out")
    return [MediaRef(kind="image", uri=os.path.join(folder, name)) for name in _pictures(folder, ref, field)]


def _listed(name: str, field: str) -> MediaRef:
    picture = MediaRef(kind="image", uri=name)
    if not is_local(picture):
        hint = "list files below data.root; pictures that come as data or from the network are no frames"
        raise RowError("video frame is not a path", field=field, value=name[:80], hint=hint)
    return picture


def _pictures(folder: str, ref: MediaRef, field: str) -> list[str]:
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_ENTRIES:
                    hint = f"at most {_MOST_ENTRIES:,} are looked at"
                    raise RowError("video folder holds too many files", field=field, value=ref.uri, hint=hint)
                if entry.name.lower().endswith(_ENDINGS) and not entry.name.startswith("."):
                    names.append(entry.name)
    except OSError as error:
        raise RowError("video cannot be read", field=field, value=ref.uri, hint=str(error)) from error
    if not names:
        hint = f"frames are files that end in {', '.join(_ENDINGS)}"
        raise RowError("video folder holds no pictures", field=field, value=ref.uri, hint=hint)
    return sorted(names, key=natural_order)


def natural_order(name: str) -> tuple:
    """Return a key by which numbers in names count as numbers; names that differ in zeros alone keep an order."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple(int(piece) if k % 2 else piece for k, piece in enumerate(pieces)), name


class FrameFiles:
    """A `FrameReader` of picture files.

    Args:
        refs: one a frame, in order.
        limits: of a picture; where it may come from.
        timeout_s: longest time from here until the last frame is read; it is looked at between frames.
        field: of the row, for errors.

    Raises:
        RowError: the first picture is missing, out of bounds, of no known format or broken.
    """

    def __init__(self, refs: Sequence[MediaRef], limits: ImageLimits, *, timeout_s: float, field: str) -> None:
        self._refs, self._limits, self._field = refs, limits, field
        self._timeout_s, self._deadline = timeout_s, time.monotonic() + timeout_s
        self.width, self.height = image.check(refs[0], limits, field=field)
        seconds = np.arange(len(refs), dtype=np.float64)
        self.timeline = Timeline(times_s=seconds, end_s=float(len(refs)), keyframes=tuple(range(len(refs))))

    def require(self, indices: Sequence[int]) -> None:
        """Look at the headers of these frames.

        Raises:
            RowError: one of them is missing or no picture.
            Refused: one of them has another size than the first, or they take too long.
        """
        for index in indices:
            self._require_time()
            self._require_same_size(index, image.check(self._refs[index], self._limits, field=self._field))

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield these frames as upright 8-bit RGB."""
        for index in indices:
            self._require_time()
            picture = image.load(self._refs[index], self._limits, field=self._field)
            self._require_same_size(index, picture.size)
            yield picture

    def digest(self, indices: Sequence[int]) -> str:
        """Return the hex sha256 of which frames of how many these are, and of the digests of their files.

        The same pictures among others are other moments.
        """
        whole = hashlib.sha256(json.dumps([len(self._refs), list(indices)]).encode("ascii"))
        for index in indices:
            self._require_time()
            content = read_bytes(self._refs[index], self._limits, field=self._field)
            whole.update(hashlib.sha256(content).digest())
        return whole.hexdigest()

    def _require_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise too_slow(self._timeout_s)

    def _require_same_size(self, index: int, size: tuple[int, int]) -> None:
        if size != (self.width, self.height):
            hint = f"frame {index} is {size[0]} x {size[1]}, the first {self.width} x {self.height}"
            raise Refused("has frames of several sizes", hint)
