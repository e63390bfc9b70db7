"""Which frames of a video are taken: a few named policies with exact definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A policy and its numbers.

    Args:
        policy: "fps", "uniform", "sharpness" or "keyframes".
        fps: frames per second that "fps" takes.
        frames: how many are taken; for "fps" the most.
    """

    policy: Literal["fps", "uniform", "sharpness", "keyframes"] = "fps"
    fps: float = 2.0
    frames: int = 32
