"""From a reader of frames to a clip: what is taken, how large it becomes, and the pixels of nothing else.

`shape_of` and `take` follow one plan, so what the first promises the second delivers. They run where the reader is: for
files in the decoder's process (`decoder_child.py`), for pictures in a folder in this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from mmalign.modalities.pixels import bounded_size, resized, sharpness
from mmalign.modalities.sampling import EQUAL_PARTS, Part, Sampling, Timeline, Window, part_of, windows

_MOST_THUMBNAIL_BYTES = 512 << 20


class Refused(Exception):  # noqa: N818 - it is an answer, turned into a RowError where row and field are known
    """A medium is refused.

    Args:
        rule: what follows "video " in the reason of the RowError; constant per rule.
        hint: what was found.
    """

    def __init__(self, rule: str, hint: str = "") -> None:
        super().__init__(rule, hint)
        self.rule, self.hint = rule, hint


def too_slow(timeout_s: float) -> Refused:
    """Return the refusal of what takes longer than it may."""
    return Refused("takes too long to decode", f"it took more than decode_timeout_s = {timeout_s:g}")


class FrameBounds(Protocol):
    """How large frames may be: a `Want`, or the limits that it was made of."""

    @property
    def min_pixels(self) -> int | None:
        """Fewest of a frame."""

    @property
    def max_pixels(self) -> int | None:
        """Most of a frame."""

    @property
    def max_total_pixels(self) -> int | None:
        """Most of all frames together."""


@dataclass(frozen=True, kw_only=True)
class Want:
    """What is asked of a file: which frames, how large, and what is too much.

    Half of `decode_memory_bytes` may be the frames that are taken; the rest is for decoding them.
    """

    sampling: Sampling
    span_s: tuple[float, float] | None
    frame_indices: tuple[int, ...] | None
    min_pixels: int | None
    max_pixels: int | None
    max_total_pixels: int | None
    max_decoded_pixels: int
    max_aspect_ratio: float
    max_frames: int
    decode_memory_bytes: int


class FrameReader(Protocol):
    """A source of frames: `width` and `height` upright, and when each is shown."""

    width: int
    height: int
    timeline: Timeline

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """Yield the frames with these numbers (ascending, each once) as upright 8-bit RGB, decoding lazily."""


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What `take` is going to return, known without decoding.

    Args:
        frames, width, height: of the decoded clip, upright and resized.
        source_fps: frames per second of the file (of a folder of frames: as if one second each).
        source_frames: number of frames of the whole file.
        duration_s: time that the frames stand for: the part that is meant, for sampling "uniform" and "fps"; otherwise,
            and for frames that a row lists, as many times their mean distance as there are frames.
        source_width, source_height: of the frames of the file, upright.
        timestamps_s: when each frame is shown, in seconds since the first frame of the file. Frames that are chosen by
            sharpness are known when they are decoded only; until then here stand the middles of what they are chosen
            from.
    """

    frames: int
    width: int
    height: int
    source_fps: float
    source_frames: int
    duration_s: float
    source_width: int
    source_height: int
    timestamps_s: tuple[float, ...]


class _Plan(NamedTuple):
    """What is going to be taken: its shape, and a window a frame unless frames are listed."""

    shape: ClipShape
    windows: list[Window]


class Taken(NamedTuple):
    """What a reader gave: shape and facts, numbers of the frames, their pixels uint8 [F, H, W, 3]."""

    shape: ClipShape
    indices: list[int]
    frames: np.ndarray


class Thumbnails(NamedTuple):
    """All frames of a file, small: uint8 [N, h, w, 3], and when each is shown."""

    frames: np.ndarray
    times_s: list[float]
    fps: float


def shape_of(reader: FrameReader, want: Want) -> ClipShape:
    """Return the shape of what `take` returns, without decoding more than the reader has."""
    return _plan(reader, want).shape


def take(reader: FrameReader, want: Want) -> Taken:
    """Return the frames of a clip; of what is decoded on the way, only the frames that are taken are kept, resized.

    Raises:
        Refused: the file is broken or too large.
    """
    shape, chosen = _plan(reader, want)
    frames = np.empty((shape.frames, shape.height, shape.width, 3), dtype=np.uint8)
    indices = _fill(frames, reader, chosen) if want.frame_indices is None else _fill_listed(frames, reader, want)
    times_s = tuple(float(reader.timeline.times_s[index]) for index in indices)
    return Taken(replace(shape, timestamps_s=times_s), indices, frames)


def thumbnails(reader: FrameReader, width: int, height: int) -> Thumbnails:
    """Return every frame of a file, squeezed to one small size.

    Raises:
        Refused: the file is broken, or they need more than half a GiB.
    """
    count = len(reader.timeline)
    if count * width * height * 3 > _MOST_THUMBNAIL_BYTES:
        raise Refused("has too many frames", f"{count:,} of {width} x {height} are more than half a GiB")
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    for index, picture in enumerate(reader.read(range(count))):
        frames[index] = np.asarray(resized(picture, (width, height)))
    return Thumbnails(frames, reader.timeline.times_s.tolist(), reader.timeline.fps)


def candidates(reader: FrameReader, want: Want) -> list[int]:
    """Return the numbers of all frames that `take` decodes, ascending, each once."""
    chosen = _plan(reader, want).windows
    if want.frame_indices is not None:
        return sorted(set(want.frame_indices))
    return [index for window in chosen for index in range(window.first, window.stop)]


def pixels_per_frame(frames: int, bounds: FrameBounds) -> int | None:
    """Return the most pixels that each of `frames` frames may have, None without a bound; the tighter bound holds."""
    if bounds.max_total_pixels is None:
        return bounds.max_pixels
    share = max(1, bounds.max_total_pixels // frames)
    return share if bounds.max_pixels is None else min(bounds.max_pixels, share)


def frame_size(width: int, height: int, frames: int, bounds: FrameBounds) -> tuple[int, int]:
    """Return (width, height) of each of `frames` frames: same aspect, within both bounds; the total wins over min."""
    most = pixels_per_frame(frames, bounds)
    least = bounds.min_pixels if most is None or bounds.min_pixels is None else min(bounds.min_pixels, most)
    size = bounded_size(width, height, min_pixels=least, max_pixels=most)
    return bounded_size(*size, max_pixels=most)  # enlarging rounds up, which may have led over the upper bound


def _plan(reader: FrameReader, want: Want) -> _Plan:
    timeline = reader.timeline
    require_size(reader.width, reader.height, want)
    part = part_of(timeline, want.span_s)
    if part is None:
        raise Refused("clip starts behind the end", f"the file ends at {timeline.end_s:.3f} s")
    chosen = [] if want.frame_indices is not None else windows(timeline, part, want.sampling)
    count = len(chosen) or _listed(timeline, want)
    width, height = frame_size(reader.width, reader.height, count, want)
    if 3 * count * width * height > want.decode_memory_bytes // 2:
        bound = f"half of decode_memory_gb = {want.decode_memory_bytes / 1e9:g}"
        hint = f"{count:,} frames of {width} x {height} are more than {bound}; take fewer, or lower max_pixels"
        raise Refused("needs too much memory", hint)
    times_s = _planned_times(timeline, want, chosen)
    shape = ClipShape(
        frames=count,
        width=width,
        height=height,
        source_fps=timeline.fps,
        source_frames=len(timeline),
        duration_s=_stands_for_s(timeline, part, want, times_s),
        source_width=reader.width,
        source_height=reader.height,
        timestamps_s=times_s,
    )
    return _Plan(shape, chosen)


def _planned_times(timeline: Timeline, want: Want, chosen: list[Window]) -> tuple[float, ...]:
    if want.frame_indices is not None:
        return tuple(float(timeline.times_s[index]) for index in want.frame_indices)
    return tuple(float(timeline.times_s[min(round(window.centre), window.stop - 1)]) for window in chosen)


def _stands_for_s(timeline: Timeline, part: Part, want: Want, times_s: tuple[float, ...]) -> float:
    """Return the time that frames stand for, so that their number over it is their rate.

    Frames out of equal parts stand for the whole. Others are told by where they lie: n frames of which the first and
    the last are t apart stand for t * n / (n - 1), and a single frame that a row lists for as long as it is shown.
    """
    apart_s, count = max(times_s) - min(times_s), len(times_s)
    listed = want.frame_indices
    if apart_s > 0 and (listed is not None or want.sampling.policy not in EQUAL_PARTS):
        return apart_s * count / (count - 1)
    return part.end_s - part.start_s if listed is None else timeline.length_s(listed[0])


def _listed(timeline: Timeline, want: Want) -> int:
    asked = want.frame_indices or ()
    if len(asked) > want.max_frames:
        raise Refused("lists too many frames", f"{len(asked):,} are listed, at most {want.max_frames:,} are read")
    if not asked:
        raise Refused("lists no frames", "leave frame_indices out, or list at least one")
    if max(asked) >= len(timeline):
        raise Refused("has no such frame", f"frame {max(asked)} is listed; it has {len(timeline)}, counted from 0")
    return len(asked)


def require_size(width: int, height: int, want: Want) -> None:
    """Refuse frames that are too large to decode or too narrow to see.

    Raises:
        Refused: naming the size.
    """
    if width < 1 or height < 1:
        raise Refused("has no picture stream", "the size of its frames is unknown")
    if width * height > want.max_decoded_pixels:
        raise Refused("has too many pixels", f"{width} x {height} exceeds {want.max_decoded_pixels:,}; make it smaller")
    if max(width, height) > want.max_aspect_ratio * min(width, height):
        raise Refused("is too narrow", f"{width} x {height} is beyond {want.max_aspect_ratio:g} to 1")


def _fill(frames: np.ndarray, reader: FrameReader, chosen: list[Window]) -> list[int]:
    """Decode the candidates of all windows in one pass; of each window only the best frame so far is kept, resized."""
    size = (frames.shape[2], frames.shape[1])
    candidates = [index for window in chosen for index in range(window.first, window.stop)]
    pictures = zip(candidates, reader.read(candidates), strict=True)
    taken = []
    for place, window in enumerate(chosen):
        alone = window.stop - window.first == 1
        best_index, best = window.first, (-1.0, -1.0)
        for _ in range(window.first, window.stop):
            index, picture = next(pictures)
            near = window.nearness(index)
            score = (0.0 if alone else sharpness(picture) * near, near)  # among flat frames the nearest
            if score > best:
                best_index, best = index, score
                frames[place] = np.asarray(resized(picture, size))
        taken.append(best_index)
    return taken


def _fill_listed(frames: np.ndarray, reader: FrameReader, want: Want) -> list[int]:
    """Decode the frames that a row lists, each once, and put them in the order of the list."""
    size, ascending = (frames.shape[2], frames.shape[1]), sorted(set(want.frame_indices))
    for index, picture in zip(ascending, reader.read(ascending), strict=True):
        places = [place for place, asked in enumerate(want.frame_indices) if asked == index]
        frames[places] = np.asarray(resized(picture, size))
    return list(want.frame_indices)
