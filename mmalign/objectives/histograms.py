"""How weights, targets and factors of beta are spread over pairs, as shares in fixed bins.

Quantiles of a step cannot be made from those of its micro-batches; counts in bins that are the same everywhere can be
added up over micro-batches and ranks, and averaged over a run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.objectives.comparison import PairIndex
from mmalign.objectives.metrics import Ratio, group_mean


@dataclass(frozen=True)
class Histogram:
    """Bins of a number that is found for every pair.

    Args:
        name: first half of its metrics.
        title: what it shows.
        edges: upper end of each bin, which belongs to it; a last bin holds what is above them all.
    """

    name: str
    title: str
    edges: tuple[float, ...]

    @property
    def mean(self) -> str:
        """Metric: the mean."""
        return f"{self.name}/mean"

    @property
    def bins(self) -> tuple[str, ...]:
        """Metrics: the share of the pairs in each bin, lowest first."""
        ends = (f"{self.name}/up_to_{edge:g}" for edge in self.edges)
        return (*ends, f"{self.name}/above_{self.edges[-1]:g}")

    @property
    def labels(self) -> tuple[str, ...]:
        """What each bin holds."""
        first, *others = self.edges
        between = (f"{low:g}\N{EN DASH}{high:g}" for low, high in zip(self.edges, others, strict=False))
        return (f"\N{LESS-THAN OR EQUAL TO} {first:g}" if first else "0", *between, f"> {self.edges[-1]:g}")

    def of(self, values: Tensor, pairs: PairIndex) -> dict[str, Ratio]:
        """Return the mean and the share of pairs in every bin; every group counts once, as the mean over its pairs.

        Args:
            values: [P], or [1] where all pairs share one; without gradient.
        """
        values = values.expand(len(pairs)).contiguous()
        place = torch.bucketize(values, values.new_tensor(self.edges))
        shares = (group_mean((place == number).to(values.dtype), pairs) for number in range(len(self.bins)))
        return {self.mean: group_mean(values, pairs), **dict(zip(self.bins, shares, strict=True))}


WEIGHTS = Histogram("weights", "Weights of pairs", (0.0, 0.25, 0.5, 0.75, 1.25, 2.0, 4.0))
"""omega, 1 for a pair that counts as it would without; the first bin holds those that do not count at all."""

TARGETS = Histogram("targets", "How far labels are believed", (0.05, 0.25, 0.45, 0.55, 0.75, 0.95))
"""q; at one half, in the middle bin, a label says nothing."""

BETA_FACTORS = Histogram("beta_factors", "Factors of beta", (0.0, 0.25, 0.5, 0.75, 1.25, 2.0, 4.0))
"""By what the scores of a pair are multiplied; 1 leaves them."""

HISTOGRAMS = (WEIGHTS, TARGETS, BETA_FACTORS)
HALF = TARGETS.bins[TARGETS.edges.index(0.55)]
"""Metric: share of the targets between 0.45 and 0.55."""
