"""Comparisons that read a whole step or remember the steps before: sorted batches, baselines, running shifts.

What "the batch" of a paper is, is here everything that one optimiser step sees, on all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, pair_index
from mmalign.objectives.pairwise import PairRule, Pairs, Pairwise, Survey
from mmalign.objectives.seen import mean_seen, nothing_seen, with_rewards
from mmalign.objectives.terms import Memory, StepFacts
from mmalign.objectives.weights import shared_weight


@dataclass(frozen=True, kw_only=True)
class SortedPairwise(Pairwise):
    """Distributions in place of pairs: one sorted quantity against another, quantile by quantile.

    Paired: policy margins S(better) - S(worse) against the reference's, so that the policy's margins dominate as a
    distribution. Unpaired: R of better responses against R of worse ones. Pairs that count alike meet one opponent
    each, that of their own rank; where weights differ, a pair meets all whose share of the distribution overlaps its
    own. A micro-batch holds some of the step's pairs; each finds its opponents in the survey, and they pass no gradient
    here but in their own micro-batch.

    Args:
        paired: which of the two.
    """

    paired: bool
    whole_step = True

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the losses of the meetings of the group's pairs, each with the weight that meets in it."""
        mine = self._columns(policy, reference, facts)
        meeting = meetings(*step.survey.unbind(1))
        first, second, _ = step.survey.to(mine).unbind(1)
        here = slice(step.start, step.start + len(mine))
        losses = self._met(mine[:, 0], second, meeting, here)
        if not self.paired:
            # Every meeting shows twice, once from each side; the half has its value, twice the half its gradient.
            other = self._met(mine[:, 1], first, meeting.turned(), here, turned=True)
            met = 0.5 * (losses + other)
            losses = 2 * met - met.detach()
        return pair_index(facts, self.pairs).group_sums(losses)

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [n, 3]: the two quantities that are sorted, one row a pair, and its weight."""
        with torch.no_grad():
            weight = shared_weight(pair_index(facts, self.pairs), facts)
            columns = self._columns(policy, reference, facts)
            return torch.cat([columns, weight[:, None].to(columns)], 1).double()

    def _columns(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        index = pair_index(facts, self.pairs)
        policy, reference = self._sides(policy, index, facts), self._sides(reference, index, facts)
        if not self.paired:
            return self.score(policy, reference)
        ours, theirs = (self.score.scale * self.score.of(logps) for logps in (policy, reference))
        return torch.stack([ours[:, 0] - ours[:, 1], (theirs[:, 0] - theirs[:, 1]).detach()], 1)

    def _met(self, mine: Tensor, theirs: Tensor, meeting: Meetings, here: slice, *, turned: bool = False) -> Tensor:
        """Return [n], what the pairs of this micro-batch lose in their meetings, weights included."""
        ours = (meeting.first >= here.start) & (meeting.first < here.stop)
        place = meeting.first[ours] - here.start
        sides = mine[place], theirs[meeting.second[ours]]
        better, worse = sides[::-1] if turned else sides
        return mine.new_zeros(len(mine)).index_add(
            0, place, meeting.weight[ours].to(mine) * self._losses(better, worse)
        )

    def _losses(self, better: Tensor, worse: Tensor) -> Tensor:
        right, wrong = self.comparison(better, worse), self.comparison.flipped(better, worse)
        return self.target * right + (1 - self.target) * wrong


class Meetings(NamedTuple):
    """Which entries of two distributions stand at the same quantiles, [M] each.

    Args:
        first, second: places in the two.
        weight: share of both that meets.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    def turned(self) -> Meetings:
        """Return the same meetings seen from the other side."""
        return Meetings(self.second, self.first, self.weight)


def meetings(first: Tensor, second: Tensor, weight: Tensor) -> Meetings:
    """Return how two distributions [N] over the same weights [N] meet when both are sorted.

    Equal weights: N meetings of equal ranks, and further ones of weight 0.
    """
    order, other = first.argsort(stable=True), second.argsort(stable=True)
    ends, other_ends = weight[order].cumsum(0), weight[other].cumsum(0)
    cuts = torch.cat([ends, other_ends]).sort().values
    shared = cuts.diff(prepend=cuts.new_zeros(1))
    middle, last = cuts - shared / 2, max(0, len(weight) - 1)
    return Meetings(
        order[torch.searchsorted(ends, middle).clamp(max=last)],
        other[torch.searchsorted(other_ends, middle).clamp(max=last)],
        shared,
    )


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
        return mean_seen(pairs.step.memory).to(pairs.scores)

    def first_memory(self) -> Memory:
        """Return a total and a count of nothing."""
        return nothing_seen()

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Add the rewards of a step."""
        return with_rewards(memory, torch.stack([survey.better, survey.worse]))
