"""A target that doubts the pairs with the smallest margins, measured against the margins of the steps before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.objectives.pairwise import PairRule, Pairs, Survey
from mmalign.objectives.terms import Memory


@dataclass(frozen=True, kw_only=True)
class LowMargin(PairRule):
    """q = 1 - doubt where the margin is at most a quantile of the margins seen last, else 1; 1 while warming up.

    Margins of whole steps are kept, the newest that together have `window` pairs, so that the order of pairs inside a
    step does not matter.

    Source: SPA (Selfee), arXiv:2406.04412, as in the authors' code.

    Args:
        doubt: 1 - q of a pair that is likely mislabelled.
        quantile: share of the kept margins at which a margin is small.
        window: pairs whose margins are kept.
        warmup_steps: steps in which every label is believed.
    """

    doubt: float
    quantile: float
    window: int
    warmup_steps: int

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return q [P], without gradient."""
        margin = (pairs.better - pairs.worse).detach()
        memory = pairs.step.memory
        if int(memory["steps"]) < self.warmup_steps or not len(memory["margins"]):
            return torch.ones_like(margin)
        threshold = torch.quantile(memory["margins"], self.quantile).to(margin)
        return 1 - self.doubt * (margin <= threshold).to(margin)

    def first_memory(self) -> Memory:
        """Return no steps and no margins."""
        return {
            "steps": torch.zeros((), dtype=torch.int64),
            "margins": torch.zeros(0, dtype=torch.float64),
            "sizes": torch.zeros(0, dtype=torch.int64),
        }

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Add the margins of a step, and forget steps that are no longer needed."""
        margins = torch.cat([memory["margins"], (survey.better - survey.worse).cpu().sort().values])
        sizes = torch.cat([memory["sizes"], torch.tensor([len(survey.better)])])
        # Newest first: a step is kept as long as the steps after it have too few pairs.
        later = sizes.flip(0).cumsum(0).flip(0) - sizes
        kept = later < self.window
        forgotten = int(sizes[~kept].sum())
        return {"steps": memory["steps"] + 1, "margins": margins[forgotten:], "sizes": sizes[kept]}
