"""A beta that follows the margins of the step, and the pairs that it is read from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.objectives.pairwise import PairRule, Pairs, Survey, selected_weight
from mmalign.objectives.rules import score_gap
from mmalign.objectives.terms import Memory

_KEPT = 0.9
"""Share of the old mean margin in the new one after a step."""
_SMALLEST_FACTOR = 1e-2
_SMALLEST_DEVIATION = 1e-7


@dataclass(frozen=True)
class BatchBeta(PairRule):
    """The factor 1 + scaling (M - M_0) of beta, one for all pairs of a step; M is the mean margin of selected pairs.

    A share of the step's pairs is selected without replacement, with probabilities in proportion to
    exp( -(margin - M_0)^2 / (2 variance) ): pairs that stand out are mostly left out.

    Source: beta-DPO, arXiv:2407.08639; without memory, the released trainer of MM-RLHF.

    Args:
        scaling: how strongly beta follows.
        share: of the pairs that are selected.
        unit: margins are scores divided by this: 1 for margins of rewards, beta for those of log-ratios.
        remembers: M_0 is a running mean of the steps before; else the mean over this step.
        deviation: in place of the standard deviation of the step's margins.
    """

    scaling: float
    share: float
    unit: float
    remembers: bool
    deviation: float | None = None
    whole_step = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the factor [1]."""
        chosen, middle = self._chosen_margins(pairs)
        mean = chosen.mean() if len(chosen) else middle
        return (1 + self.scaling * (mean - middle)).clamp(min=_SMALLEST_FACTOR).to(pairs.scores)[None]

    def selected(self, pairs: Pairs) -> Tensor:
        """Return which of the step's pairs are selected, bool [N]: the largest of log weight + Gumbel noise."""
        survey = Survey.of(pairs.step.survey)
        margin, middle = self._margins(survey, pairs.step.memory)
        deviation = self.deviation or margin.std(correction=0) + _SMALLEST_DEVIATION
        noise = -torch.log(-torch.log((survey.seed + 0.5) / 2**53))
        ticket = noise - 0.5 * ((margin - middle) / deviation) ** 2
        # At least one, or a step of one pair would teach nothing; 0.29 * 100 is a hair below 29.
        number = max(1, math.floor(self.share * len(margin) + 1e-9))
        return ticket.argsort(descending=True).argsort() < number

    def _chosen_margins(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return the margins of the selected pairs, and M_0."""
        margin, middle = self._margins(Survey.of(pairs.step.survey), pairs.step.memory)
        return margin[self.selected(pairs)], middle

    def first_memory(self) -> Memory:
        """Return a mean margin of 0, that of a policy which is its own reference."""
        return {"mean_margin": torch.zeros((), dtype=torch.float64)} if self.remembers else {}

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Move the mean margin towards that of a step."""
        if not self.remembers or not len(survey.better):
            return memory
        margin, middle = self._margins(survey, memory)
        return {"mean_margin": (_KEPT * middle + (1 - _KEPT) * margin.mean()).cpu()}

    def _margins(self, survey: Survey, memory: Memory) -> tuple[Tensor, Tensor]:
        margin = (survey.better - survey.worse) / self.unit
        middle = memory["mean_margin"].to(margin) if self.remembers else margin.mean()
        return margin, middle


@dataclass(frozen=True)
class DataAndModelBeta(BatchBeta):
    """The factor sigmoid(d) / sigmoid(mean_gap) * mean over selected pairs of sigmoid(margin) / sigmoid(M_0).

    d is the score gap of the pair: easy data, and a policy that tells pairs apart already, make beta larger.

    Source: DAMA, arXiv:2502.01943, as in the authors' code.

    Args:
        mean_gap: of all rows.
    """

    mean_gap: float = 0.0
    needs_scores = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the factor [P]."""
        chosen, middle = self._chosen_margins(pairs)
        of_model = (chosen.sigmoid().mean() if len(chosen) else middle.sigmoid()) / middle.sigmoid()
        of_data = score_gap(pairs).sigmoid() / sigmoid(self.mean_gap)
        return (of_data * of_model).clamp(min=_SMALLEST_FACTOR).to(pairs.scores)


def sigmoid(value: float) -> float:
    """Return the logistic function of a number."""
    return 1 / (1 + math.exp(-value))


@dataclass(frozen=True)
class SelectedWeight(PairRule):
    """Weight of the pairs that `BatchBeta` selects, such that the step counts as before; 0 for the others."""

    by: BatchBeta
    whole_step = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return omega [P]."""
        return selected_weight(pairs, self.by.selected(pairs))
