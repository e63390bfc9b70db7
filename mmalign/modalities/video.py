"""Videos: which frames of a clip a model sees, decoded within bounds of frames, pixels, bytes and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmalign.formats.media import MediaRef
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class VideoLimits(MediaLimits):
    """Where videos may come from, which frames are taken, and how large they may be.

    Args:
        sampling: which frames of a clip are taken.
        min_pixels, max_pixels: of one frame after resizing; None leaves it.
        max_total_pixels: of all frames together; frames get smaller, never fewer. None leaves them.
        max_decoded_pixels: clips whose frames are larger than this are refused before they are decoded.
        decode_timeout_s: longest time one file may take to decode.
        cache_dir, cache_max_bytes: decoded frames are kept there; None keeps none.
    """

    max_file_bytes: int = 4 << 30
    sampling: Sampling = Sampling()
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_total_pixels: int | None = None
    max_decoded_pixels: int = 89_478_485
    decode_timeout_s: float = 60.0
    cache_dir: str | None = None
    cache_max_bytes: int = 20 * 10**9


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What `load` is going to return, known without decoding.

    Args:
        frames, width, height: of the decoded clip, upright and resized.
        source_fps: frames per second of the file (of a folder of frames: as if one second each).
        source_frames: number of frames of the whole file.
        duration_s: of the part that is meant.
    """

    frames: int
    width: int
    height: int
    source_fps: float
    source_frames: int
    duration_s: float


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Decoded frames and when they were shown.

    Args:
        frames: uint8 [F, H, W, 3], upright, resized.
        indices: F source frame numbers, counted from 0 over the whole file.
        timestamps_s: F seconds since the start of the file.
        source_fps, source_frames, duration_s: as in `ClipShape`.
        sha256: hex digest of what was decoded, for cache keys.
    """

    frames: np.ndarray
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    source_fps: float
    source_frames: int
    duration_s: float
    sha256: str


def check(ref: MediaRef, limits: VideoLimits, *, field: str = "video") -> ClipShape:
    """Return the shape of what `load` returns, from headers. Raises RowError."""


def load(ref: MediaRef, limits: VideoLimits, max_pixels: int | None = None, *, field: str = "video") -> Clip:
    """Return the frames that `limits.sampling` takes. Raises RowError."""


def messages(ref: MediaRef) -> dict[str, Any]:
    """Return the content part by which chat templates know a video."""
    return {"type": "video"}


def render(ref: MediaRef, limits: VideoLimits, max_pixels: int = 65_536, *, field: str = "video") -> str:
    """Return a strip of frames as a `data:` URI of a JPEG, for people to look at."""


def perturb(clip: Clip, how: str, *, seed: int, strength: float = 0.5) -> Clip:
    """Return the clip with some of what it shows in time or space hidden."""
