"""Targets that are learnt: which labels are wrong, found while training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.objectives.pairwise import PairRule, Pairs, Survey
from mmalign.objectives.terms import Memory

_SURE = 1e-3
"""A reliability of 0 or 1 could never be revised."""


@dataclass(frozen=True)
class Posterior(PairRule):
    """q = p eta / ( p eta + (1 - p)(1 - eta) ): the probability that a label is right, given policy and annotator.

    p = sigmoid( loss if wrong - loss if right ) is the policy's own probability of the order, for a logistic link that
    of Bradley and Terry; eta is the reliability of who judged. After every step each annotator's eta moves towards the
    mean q of its pairs in that step, weighted as they are in the loss (the E and M steps of an EM algorithm, one after
    the other).

    Source: LCPO, arXiv:2509.24159, eq. 4 to 7 and algorithm 1.

    Args:
        start: reliability of an annotator who has not been seen.
        rate: share of the new mean in the reliability after a step.
    """

    start: float
    rate: float

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return q [P], without gradient."""
        better, worse = pairs.scores.detach().unbind(1)
        gain = pairs.comparison.flipped(better, worse) - pairs.comparison(better, worse)
        annotator = pairs.facts.annotator[pairs.index.group]
        return self.posterior(gain, self.reliability(pairs.step.memory, annotator).to(gain))

    def posterior(self, gain: Tensor, reliability: Tensor) -> Tensor:
        """Return q of a gain: sigmoid(gain + log-odds of the reliability), the same number."""
        return torch.sigmoid(gain + torch.logit(reliability))

    def reliability(self, memory: Memory, annotator: Tensor) -> Tensor:
        """Return eta of the annotator of each pair."""
        known = annotator[:, None] == memory["annotators"].to(annotator.device)
        found = (known * memory["reliabilities"].to(annotator.device)).sum(1)
        return torch.where(known.any(1), found, self.start)

    def first_memory(self) -> Memory:
        """Return a table of nobody."""
        return {
            "annotators": torch.zeros(0, dtype=torch.int64),
            "reliabilities": torch.zeros(0, dtype=torch.float64),
        }

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Return the table with the annotators of a step revised, and added where they are new."""
        annotator = survey.annotator.long()
        q = self.posterior(survey.gain, self.reliability(memory, annotator).to(survey.gain))
        seen = annotator[survey.weight > 0].unique()
        judged = (annotator == seen[:, None]) * survey.weight
        mean = (judged * q).sum(1) / judged.sum(1)
        revised = (1 - self.rate) * self.reliability(memory, seen) + self.rate * mean
        others = ~torch.isin(memory["annotators"], seen.cpu())
        revised = revised.clamp(_SURE, 1 - _SURE).double().cpu()
        annotators = torch.cat([memory["annotators"][others], seen.cpu()])
        order = annotators.argsort()
        reliabilities = torch.cat([memory["reliabilities"][others], revised])
        return {"annotators": annotators[order], "reliabilities": reliabilities[order]}
