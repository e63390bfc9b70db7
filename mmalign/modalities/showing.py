"""Clips for people to look at, in a page without a server: a strip of frames, and a small animation."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmalign.modalities.pixels import bounded_size, resized

_MOST_IN_STRIP = 8
_GAP_PX = 2


def strip(frames: np.ndarray, max_pixels: int) -> str:
    """Return up to 8 frames, evenly spread, side by side, as a `data:` URI of a JPEG of at most `max_pixels`.

    Args:
        frames: uint8 [F, H, W, 3].
    """
    count = min(len(frames), _MOST_IN_STRIP)
    chosen = [frames[(2 * k + 1) * len(frames) // (2 * count)] for k in range(count)]
    width, height = bounded_size(frames.shape[2], frames.shape[1], max_pixels=max(1, max_pixels // count))
    width = max(1, width - _GAP_PX)
    whole = Image.new("RGB", (count * (width + _GAP_PX) - _GAP_PX, height), (255, 255, 255))
    for place, frame in enumerate(chosen):
        whole.paste(resized(Image.fromarray(frame), (width, height)), (place * (width + _GAP_PX), 0))
    return _uri(whole, "jpeg", quality=85)


def animation(frames: np.ndarray, lengths_ms: Sequence[int], max_bytes: int) -> str | None:
    """Return the frames as a `data:` URI of an animated WebP, None when it is too long even at low quality.

    Args:
        frames: uint8 [F, H, W, 3].
        lengths_ms: how long each is shown.
        max_bytes: longest URI that is returned.
    """
    first, *others = (Image.fromarray(frame) for frame in frames)
    for quality in (70, 45, 20):
        uri = _uri(
            first, "webp", save_all=True, append_images=others, duration=list(lengths_ms), loop=0, quality=quality
        )
        if len(uri) <= max_bytes:
            return uri
    return None


def _uri(picture: Image.Image, format: str, **how: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=format, **how)
    return f"data:image/{format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
