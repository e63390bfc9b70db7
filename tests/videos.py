"""Videos that tests of several rooms write for themselves, whose every frame says which one it is."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

STEP = 8
"""Frame k is grey of level 16 + 8 k on its left half; its right half is red above and blue below."""


def numbered(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Return frames, uint8 [H, W, 3], that can be told apart and have a top and a left side; up to 28 of them."""
    frames = []
    for k in range(count):
        frame = np.empty((height, width, 3), dtype=np.uint8)
        frame[:, : width // 2] = 16 + STEP * k
        frame[: height // 2, width // 2 :] = (200, 30, 30)
        frame[height // 2 :, width // 2 :] = (30, 30, 200)
        frames.append(frame)
    return frames


def number_of(frame: np.ndarray) -> int:
    """Return which of `numbered` a decoded frame is."""
    height, width = frame.shape[:2]
    grey = frame[height // 4 : 3 * height // 4, width // 8 : 3 * width // 8].mean()
    return round((float(grey) - 16) / STEP)


def write(
    target: Path | io.BytesIO,
    frames: Iterable[np.ndarray],
    *,
    fps: int = 10,
    codec: str = "mpeg4",
    format: str | None = None,
    times_s: Sequence[float] | None = None,
    rotation: float | None = None,
    gop: int = 12,
    options: dict[str, str] | None = None,
) -> Path | io.BytesIO:
    """Write frames as a video file of little loss.

    Args:
        times_s: when each frame is shown; frame k at k / fps without them.
        rotation: degrees by which players turn the picture, against the clock.
        gop: frames from one that stands alone to the next.
    """
    with av.open(str(target) if isinstance(target, Path) else target, "w", format=format) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        ticks = Fraction(1, 1000) if times_s is not None else Fraction(1, fps)
        for k, frame in enumerate(frames):
            if k == 0:
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = {"gif": "rgb8", "libvpx-vp9": "yuv444p", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
                stream.bit_rate, stream.gop_size = 4_000_000, gop
                stream.codec_context.time_base = ticks
                if rotation is not None:
                    stream.set_display_rotation(rotation)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.time_base, picture.pts = ticks, k if times_s is None else round(1000 * times_s[k])
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    """Write a file that holds sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, int(16_000 * seconds)), dtype=np.float32), "fltp", "mono")
        frame.rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
