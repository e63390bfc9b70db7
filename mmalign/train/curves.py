"""The metrics of a run as curves over its steps, and whether one of them moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

FEWEST_STEPS = 8
"""Shorter runs have no quarters worth comparing; only what is wrong at any length is said of them."""

CLEAR = 3.0
"""Standard errors by which the ends of a curve must differ to count as moved."""


@dataclass(frozen=True)
class Curve:
    """One metric over the steps that have it."""

    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def quarter(self) -> int:
        """Number of values in the first and in the last quarter."""
        return max(1, len(self.values) // 4)

    @property
    def start(self) -> float:
        """Mean of the first quarter."""
        return fmean(self.values[: self.quarter])

    @property
    def end(self) -> float:
        """Mean of the last quarter."""
        return fmean(self.values[-self.quarter :])

    @property
    def change(self) -> float:
        """From the first quarter to the last."""
        return self.end - self.start

    @property
    def moved(self) -> bool:
        """Whether the change stands clear of the noise inside the two quarters."""
        if self.quarter < 2:
            return False
        noise = (variance(self.values[: self.quarter]) + variance(self.values[-self.quarter :])) / self.quarter
        return abs(self.change) > CLEAR * math.sqrt(noise) and self.change != 0


class Curves:
    """All metrics of a run; a metric that no step has, or that a rule finds too short, is None."""

    def __init__(self, lines: Sequence[Mapping[str, Any]]) -> None:
        self.lines = lines

    def get(self, name: str, fewest: int = FEWEST_STEPS) -> Curve | None:
        """Return the finite values of one metric, or None when there are fewer than `fewest`."""
        points = [(line["step"], line[name]) for line in self.lines if is_finite(line.get(name))]
        return Curve(*map(tuple, zip(*points, strict=True))) if len(points) >= max(1, fewest) else None

    def has(self, name: str) -> bool:
        """Say whether any step has the metric."""
        return any(name in line for line in self.lines)


def is_finite(value: Any) -> bool:
    """Say whether `value` is a number that can be drawn and averaged."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
