"""Videos: the five verbs check, load, messages, render, perturb.

A video is a file, its bytes, a folder of pictures, or a list of them. `check` reads its headers and packets, `load`
decodes the frames that are taken, in a process of their own (`decoder.py`). Both follow one plan (`clips.py`), so the
shape that the first promises is the shape of what the second returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mmalign.errors import ConfigError
from mmalign.formats.media import MediaRef
from mmalign.modalities import motion, showing, video_source
from mmalign.modalities.clips import ClipShape, Thumbnails
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.sampling import Sampling, spread_over

_MOST_PLAYED = 24
_LONGEST_PLAY_S = 6.0


@dataclass(frozen=True, kw_only=True)
class VideoLimits(MediaLimits):
    """Where videos may come from, which frames are taken, and how large they may be.

    Args:
        sampling: which frames of a clip are taken.
        min_pixels, max_pixels: of one frame after resizing; None leaves it.
        max_total_pixels: of all frames together; frames get smaller, never fewer. None leaves them.
        max_decoded_pixels: clips whose frames are larger than this are refused before they are decoded.
        max_aspect_ratio: longer side of a frame over its shorter side.
        max_frames: longest list of frame indices a row may carry.
        decode_timeout_s: longest time one file may take to decode.
        decode_memory_bytes: what the process that decodes may allocate; half of it may be the frames that are taken.
        cache_dir, cache_max_bytes: decoded frames are kept there; None keeps none.
    """

    max_file_bytes: int = 4 << 30
    sampling: Sampling = Sampling()
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_total_pixels: int | None = None
    max_decoded_pixels: int = 89_478_485
    max_aspect_ratio: float = 200.0
    max_frames: int = 4096
    decode_timeout_s: float = 60.0
    decode_memory_bytes: int = 4 * 10**9
    cache_dir: str | None = None
    cache_max_bytes: int = 20 * 10**9

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = ("min_pixels", "max_pixels", "max_total_pixels")
        for name in (*bounds, "decode_timeout_s", "decode_memory_bytes", "cache_max_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"data.video.{name} must be positive, got {value}")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ConfigError(f"data.video.min_pixels {self.min_pixels} exceeds max_pixels {self.max_pixels}")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Decoded frames and when they were shown.

    Args:
        frames: uint8 [F, H, W, 3], upright, resized.
        indices: F source frame numbers, counted from 0 over the whole file.
        timestamps_s: F seconds since the first frame of the file.
        source_fps, source_frames, duration_s: as in `ClipShape`.
        sha256: hex digest of what was decoded, for cache keys: of the encoded file, or of the frame files together.
    """

    frames: np.ndarray
    indices: tuple[int, ...]
    timestamps_s: tuple[float, ...]
    source_fps: float
    source_frames: int
    duration_s: float
    sha256: str


def check(ref: MediaRef, limits: VideoLimits, *, field: str = "video") -> ClipShape:
    """Return the shape of what `load` returns, from headers and packets; one frame is decoded to see that it can be.

    Raises:
        RowError: the video is missing, out of bounds, of no known format, without pictures, or broken.
    """
    return video_source.shape(ref, limits, video_source.want_of(ref, limits), field)


def load(ref: MediaRef, limits: VideoLimits, max_pixels: int | None = None, *, field: str = "video") -> Clip:
    """Return the frames that `limits.sampling` takes.

    Args:
        max_pixels: overrides `limits.max_pixels`.

    Raises:
        RowError: as `check`, and when frames cannot be decoded, take too long, or end the decoder.
    """
    taken, sha256 = video_source.take(ref, limits, video_source.want_of(ref, limits, max_pixels), field)
    return Clip(
        frames=taken.frames,
        indices=tuple(taken.indices),
        timestamps_s=taken.shape.timestamps_s,
        source_fps=taken.shape.source_fps,
        source_frames=taken.shape.source_frames,
        duration_s=taken.shape.duration_s,
        sha256=sha256,
    )


def messages(ref: MediaRef) -> dict[str, Any]:
    """Return the content part by which chat templates know a video."""
    return {"type": "video"}


def render(ref: MediaRef, limits: VideoLimits, max_pixels: int = 65_536, *, field: str = "video") -> str:
    """Return a strip of up to 8 of the frames a model sees as a `data:` URI of a JPEG, for people to look at."""
    return showing.strip(load(ref, limits, max_pixels, field=field).frames, max_pixels)


def playable(
    ref: MediaRef, limits: VideoLimits, *, max_bytes: int = 400_000, max_pixels: int = 40_000, field: str = "video"
) -> str | None:
    """Return the video as a small animated WebP that every browser plays without a server, whatever its codec.

    Up to 24 frames, evenly spread over what is meant or over the frames that the row lists, played at the speed of the
    video or in 6 seconds if it is longer.

    Args:
        max_bytes: longest `data:` URI that is returned.
        max_pixels: of one frame.

    Returns:
        A `data:` URI, None when the video does not fit into `max_bytes`.

    Raises:
        RowError: as `load`.
    """
    spread = replace(limits, sampling=Sampling(policy="uniform", frames=_MOST_PLAYED), max_total_pixels=None)
    clip = load(ref, spread, max_pixels, field=field)
    frames = clip.frames[spread_over(range(len(clip.indices)), _MOST_PLAYED)]
    length_ms = round(1000 * min(clip.duration_s, _LONGEST_PLAY_S) / len(frames))
    return showing.animation(frames, [max(20, length_ms)] * len(frames), max_bytes)


def perturb(clip: Clip, how: str, *, seed: int, strength: float = 0.5) -> Clip:
    """Return the clip with some of what it shows in time or space hidden: the contrast side of preference objectives.

    Args:
        clip: F frames.
        how: in time "reverse" or "shuffle" (blocks of frames change places), "drop" (frames are left out), "freeze"
            (one frame is held); in space "crop", "blur", "noise", "blank", "black", "static" as for pictures, one
            window for all frames.
        seed: the same seed gives the same clip.
        strength: 0 < strength <= 1 (< 1 for "crop"); in time the number of blocks, of dropped or of held frames is
            round(strength * F), at least 2 blocks, 1 dropped and 2 held frames, so that no clip stays as it was.

    Returns:
        What is seen changes place, the moments stay: `indices` follow the frames, `timestamps_s` ascend as before.

    Raises:
        ConfigError: unknown `how` or strength out of range.
        RowError: a clip of one frame is to be changed in time.
    """
    motion.require_known(how, strength)
    if how not in motion.ORDERS:
        return replace(clip, frames=motion.changed(clip.frames, how, seed, strength))
    order = motion.order_of(len(clip.indices), how, seed, strength)
    times_s = clip.timestamps_s if len(order) == len(clip.indices) else [clip.timestamps_s[place] for place in order]
    indices = tuple(clip.indices[place] for place in order)
    return replace(clip, frames=clip.frames[order], indices=indices, timestamps_s=tuple(times_s))


def thumbnails(
    ref: MediaRef, limits: VideoLimits, *, width: int = 48, height: int = 27, field: str = "video"
) -> Thumbnails:
    """Return every frame of a video, squeezed to one small size: what shot detection looks at.

    Raises:
        RowError: as `load`, and when there are more frames than fit into half a GiB.
    """
    return video_source.thumbnails(ref, limits, width, height, field)
