"""Comparisons that read a whole step or remember the steps before: sorted batches, baselines, running shifts.

What "the batch" of a paper is, is here everything that one optimiser step sees, on all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, pair_index
from mmalign.objectives.pairwise import PairRule, Pairs, Pairwise, Survey
from mmalign.objectives.terms import Memory, StepFacts
from mmalign.objectives.weights import shared_weight


@dataclass(frozen=True, kw_only=True)
class SortedPairwise(Pairwise):
    """Distributions in place of pairs: the i-th smallest of one quantity against the i-th smallest of another.

    Paired: policy margins S(better) - S(worse) against the reference's, so that the policy's margins dominate as a
    distribution. Unpaired: R of better responses against R of worse ones. A micro-batch holds some of the step's pairs;
    each finds its opponent in the sorted survey, and the opponent passes no gradient here but in its own micro-batch.

    Args:
        paired: which of the two.
    """

    paired: bool
    whole_step = True

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the losses of the group's places in the sort, in equal shares of its weight."""
        mine = self._columns(policy, reference, facts)
        first, second = step.survey[:, 0].to(mine), step.survey[:, 1].to(mine)
        here = slice(step.start, step.start + len(mine))
        losses = self._losses(mine[:, 0], _opponents(first, second, here))
        if not self.paired:
            # Every meeting shows twice, once from each side; the half has its value, twice the half its gradient.
            met = 0.5 * (losses + self._losses(_opponents(second, first, here), mine[:, 1]))
            losses = 2 * met - met.detach()
        index = pair_index(facts, self.pairs)
        return index.group_sums(shared_weight(index, facts) * losses)

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [n, 2]: the two quantities that are sorted, one row a pair."""
        return self._columns(policy, reference, facts).detach().double()

    def _columns(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        index = pair_index(facts, self.pairs)
        policy, reference = self._sides(policy, index, facts), self._sides(reference, index, facts)
        if not self.paired:
            return self.score(policy, reference)
        ours, theirs = (self.score.scale * self.score.of(logps) for logps in (policy, reference))
        return torch.stack([ours[:, 0] - ours[:, 1], (theirs[:, 0] - theirs[:, 1]).detach()], 1)

    def _losses(self, better: Tensor, worse: Tensor) -> Tensor:
        right, wrong = self.comparison(better, worse), self.comparison.flipped(better, worse)
        return self.target * right + (1 - self.target) * wrong


def _opponents(mine: Tensor, theirs: Tensor, here: slice) -> Tensor:
    """Return, for the entries `here` of `mine`, the entries of the same rank in `theirs`."""
    return theirs.sort().values[mine.argsort(stable=True).argsort()[here]]


class MeanOfOtherSide(PairRule):
    """Shift of KTO on pairs: each side is measured from the mean log-ratio of the other over the step, at least 0.

    Source: KTO, arXiv:2402.01306, as its authors first released it for pairs.
    """

    whole_step = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [2]: what better and worse scores are measured from."""
        survey = Survey.of(pairs.step.survey)
        total = survey.weight.sum().clamp(min=torch.finfo(survey.weight.dtype).tiny)
        means = [(survey.weight * side).sum() / total for side in (survey.worse, survey.better)]
        return torch.stack(means).clamp(min=0).to(pairs.scores)


class RunningMean(PairRule):
    """Shift of BCO: the mean of all rewards seen in the steps before, better and worse alike; 0 in the first.

    Source: BCO, arXiv:2404.04656.
    """

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [], the mean."""
        memory = pairs.step.memory
        return (memory["reward_total"] / memory["reward_count"].clamp(min=1)).to(pairs.scores)

    def first_memory(self) -> Memory:
        """Return a total and a count of nothing."""
        return {name: torch.zeros((), dtype=torch.float64) for name in ("reward_total", "reward_count")}

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Add the rewards of a step."""
        total = (survey.better + survey.worse).sum()
        return {
            "reward_total": memory["reward_total"] + total.cpu(),
            "reward_count": memory["reward_count"] + 2 * len(survey.better),
        }
