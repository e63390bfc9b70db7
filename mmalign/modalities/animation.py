"""Animated pictures (GIF, WebP, PNG) as videos, through Pillow: it knows their transparency and their pauses."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from mmalign.modalities.clips import Refused, Want, require_size
from mmalign.modalities.pixels import to_rgb
from mmalign.modalities.sampling import Timeline

_FORMATS = ("GIF", "WEBP", "PNG")
_UNSAID_S = 0.1
"""How long a frame is shown that gives no time or none: what browsers do."""


def is_animation(source: str | bytes) -> bool:
    """True for files that begin as a GIF, WebP or PNG does."""
    if isinstance(source, bytes):
        head = source[:12]
    else:
        with open(source, "rb") as file:
            head = file.read(12)
    return head[:6] in (b"GIF87a", b"GIF89a") or head[:8] == b"\x89PNG\r\n\x1a\n" or head[8:12] == b"WEBP"


class Animation:
    """A `FrameReader` of an animated picture.

    Args:
        source: a path, or the bytes of the file.
        want: what is too large.

    Raises:
        Refused: it is damaged or too large.
    """

    def __init__(self, source: str | bytes, want: Want) -> None:
        self._picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS)
        self.width, self.height = self._picture.size
        require_size(self.width, self.height, want)
        # Programs that know no animated PNG show a picture of its own, which is none of the animation.
        self._first = int(getattr(self._picture, "default_image", False))
        count = getattr(self._picture, "n_frames", 1) - self._first
        lengths_s = [self._length_s(index) for index in range(count)]
        ends_s = np.cumsum(lengths_s)
        self.timeline = Timeline(times_s=ends_s - lengths_s, end_s=float(ends_s[-1]), keyframes=(0,))

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the frames with these numbers, ascending, transparency on white."""
        for index in indices:
            self._seek(index)
            yield to_rgb(self._picture)

    def _length_s(self, index: int) -> float:
        """Return how long a frame is shown; some formats know only after decoding it."""
        self._seek(index)
        self._picture.load()
        length_ms = self._picture.info.get("duration") or 0
        return length_ms / 1000 if length_ms > 0 else _UNSAID_S

    def _seek(self, index: int) -> None:
        try:
            self._picture.seek(self._first + index)
        except EOFError as error:
            raise Refused("is truncated or broken", f"frame {index} is not there") from error
