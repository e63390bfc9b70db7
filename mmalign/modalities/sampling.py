"""Which frames of a video are taken: a few named policies with exact definitions, as pure functions of a timeline.

A timeline says when each frame is shown. A clip [start, end) of it is the whole video or the span that a reference
gives. With d = end - start in seconds and A frames shown within the clip:

    uniform     the clip is cut into n equal parts; of each the frame is taken that is shown at its middle
    fps         uniform with n = round(d * fps), at least 1 and at most `frames`
    keyframes   the frames that are coded on their own; of K > n of them those at places floor((k + 1/2) K / n); when
                there is none, the first frame
    sharpness   n centres at first + i * A / (n + 1), i = 1..n; of the frames within half an interval of each the one
                with the largest sharpness * cos(pi * distance / interval), sharpness being the mean absolute Laplacian.
                n = 2 is what TEMPLE takes of a shot (arXiv 2503.16929 and its released code)

No frame is taken twice, so clips with fewer than n frames give fewer; so may clips whose frames differ in length.
Frames that a reference lists (`frame_indices`) win over any policy and are taken as listed. Except by sharpness,
nothing is decoded to choose; how many frames come is known without decoding for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from mmalign.errors import ConfigError

Policy = Literal["fps", "uniform", "sharpness", "keyframes"]

EQUAL_PARTS: tuple[Policy, ...] = ("fps", "uniform")
"""Policies whose frames stand for equal parts of the clip."""

_ROUNDING_S = 1e-6
"""Moments this close to the time of a frame are that time: float arithmetic, not a frame earlier."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A policy and its numbers.

    Args:
        policy: "fps", "uniform", "sharpness" or "keyframes".
        fps: frames per second that "fps" takes.
        frames: how many are taken; for "fps" and "keyframes" the most.

    Raises:
        ConfigError: the policy is unknown or a number is not positive.
    """

    policy: Policy = "fps"
    fps: float = 2.0
    frames: int = 32

    def __post_init__(self) -> None:
        if self.policy not in get_args(Policy):
            raise ConfigError(f"sampling {self.policy!r} is unknown; use one of {', '.join(get_args(Policy))}")
        if not self.fps > 0 or self.frames < 1:
            raise ConfigError(f"sampling needs fps > 0 and frames >= 1, got fps={self.fps}, frames={self.frames}")

    @classmethod
    def of(cls, policy: Policy, *, frames: int, fps: float | None = None) -> Sampling:
        """Return a policy as a person names it; without a rate `fps` takes its default.

        Raises:
            ConfigError: as above, or a rate is given to a policy that knows none.
        """
        if fps is None:
            return cls(policy=policy, frames=frames)
        made = cls(policy=policy, frames=frames, fps=fps)
        if policy != "fps":
            raise ConfigError(f"fps {fps:g} is not read by sampling {policy!r}; leave it out, or use sampling fps")
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """When the frames of a file are shown.

    Args:
        times_s: float64 [N], ascending, seconds since the first frame.
        end_s: when the last frame ends.
        keyframes: numbers of the frames that are coded on their own, ascending.
    """

    times_s: np.ndarray
    end_s: float
    keyframes: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def fps(self) -> float:
        """Frames per second on average."""
        return len(self) / self.end_s if self.end_s > 0 else 1.0

    def length_s(self, index: int) -> float:
        """Return how long a frame is shown."""
        following = self.times_s[index + 1] if index + 1 < len(self) else self.end_s
        return float(following - self.times_s[index])

    def shown_at(self, moment_s: float) -> int:
        """Return the number of the frame that is seen at a moment."""
        return max(0, int(np.searchsorted(self.times_s, moment_s + _ROUNDING_S, side="right")) - 1)


class Part(NamedTuple):
    """Frames first..stop-1, shown from start_s to end_s: the clip that is meant."""

    first: int
    stop: int
    start_s: float
    end_s: float


class Window(NamedTuple):
    """One frame out of first..stop-1 is taken; `centre` and `interval` in frames say which are preferred."""

    first: int
    stop: int
    centre: float
    interval: float

    def nearness(self, index: int) -> float:
        """Return cos(pi * distance / interval): 1 in the centre, 0 at half an interval from it."""
        return max(0.0, math.cos(math.pi * abs(index - self.centre) / self.interval))


def part_of(timeline: Timeline, span_s: tuple[float, float] | None) -> Part | None:
    """Return the frames seen during a span, the whole timeline without one, None when the span lies behind the end.

    A span that ends behind the end is cut there.
    """
    if span_s is None:
        return Part(0, len(timeline), 0.0, timeline.end_s)
    start_s, end_s = span_s[0], min(span_s[1], timeline.end_s)
    if start_s >= end_s:
        return None
    first = timeline.shown_at(start_s)
    stop = int(np.searchsorted(timeline.times_s, end_s - _ROUNDING_S, side="left"))
    return Part(first, max(stop, first + 1), start_s, end_s)


def windows(timeline: Timeline, part: Part, sampling: Sampling) -> list[Window]:
    """Return one window a taken frame, ascending and disjoint; each of one frame, except for sampling by sharpness."""
    count = part.stop - part.first
    if sampling.policy == "sharpness" and count > sampling.frames:
        return sharpness_windows(part.first, part.stop, sampling.frames)
    if sampling.policy == "sharpness":
        return [_only(index) for index in range(part.first, part.stop)]
    if sampling.policy == "keyframes":
        inside = [index for index in timeline.keyframes if part.first <= index < part.stop]
        return [_only(index) for index in spread_over(inside or [part.first], sampling.frames)]
    n = sampling.frames
    if sampling.policy == "fps":
        n = max(1, min(n, math.floor((part.end_s - part.start_s) * sampling.fps + 0.5)))
    return [_only(index) for index in _uniform(timeline, part, n)]


def sharpness_windows(first: int, stop: int, frames: int) -> list[Window]:
    """Return the windows of frames first..stop-1 out of which the sharpest are taken; needs stop - first > frames.

    Each is as wide as the interval, half open, so that no frame is in two; with more frames than windows none is empty.
    """
    interval = (stop - first) / (frames + 1)
    found = []
    for i in range(1, frames + 1):
        left, right = first + (i - 0.5) * interval, first + (i + 0.5) * interval
        found.append(Window(math.ceil(left), math.ceil(right), first + i * interval, interval))
    return found


def _only(index: int) -> Window:
    return Window(index, index + 1, float(index), 1.0)


def _uniform(timeline: Timeline, part: Part, n: int) -> list[int]:
    """Return the frames shown in the middle of n equal parts of a clip, each once."""
    step_s = (part.end_s - part.start_s) / n
    shown = {timeline.shown_at(part.start_s + (k + 0.5) * step_s) for k in range(n)}
    return sorted(min(max(index, part.first), part.stop - 1) for index in shown)


def spread_over(items: Sequence[int], n: int) -> list[int]:
    """Return n of the items, evenly spread, or all when there are no more."""
    if len(items) <= n:
        return list(items)
    return [items[(2 * k + 1) * len(items) // (2 * n)] for k in range(n)]
