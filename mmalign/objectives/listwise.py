"""Comparisons of a whole ranked list: K responses of one prompt, best first, in one value.

A rule reads scores [B, K] and tells for every response which others are worse: `worse[b, i, j]`. Ties stand on neither
side of each other. All sums run over responses that exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, pair_index
from mmalign.objectives.score import Score
from mmalign.objectives.terms import Comparing, Likelihood, StepFacts
from mmalign.objectives.weights import compared_weight
from mmalign.pairs.ranking import rank_pairs

ListRule = Callable[[Tensor, Tensor, GroupFacts], Tensor]
"""scores [B, K] with gradient, worse bool [B, K, K], facts -> losses [B]."""


@dataclass(frozen=True, kw_only=True)
class Listwise(Comparing):
    """Mean over groups of a rule of their whole list; groups whose responses are all tied are left out.

    Args:
        score: of each response, its scale included.
        rule: from the scores of a list to its loss.
        needs_scores: whether the rule reads `GroupFacts.scores`.
    """

    score: Score
    rule: ListRule
    needs_scores: bool = False
    pairs: str = "all"

    @property
    def needs_reference(self) -> bool:
        """Whether the score is taken against a reference."""
        return self.score.reference

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return all positions, or none of a list that is one tie."""
        return set(range(len(levels))) if rank_pairs(levels, "all") else set()

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group with responses of different level."""
        return compared_weight(pair_index(facts, "all"), facts)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted loss of each list."""
        exists = facts.response_mask
        scores = self.score(policy, reference).masked_fill(~exists, 0.0)
        worse = (facts.levels[:, :, None] < facts.levels[:, None, :]) & exists[:, :, None] & exists[:, None, :]
        return self.counts(facts, policy.lengths()) * self.rule(scores, worse, facts)

    def rewards(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [P, 2]: scores of all pairs of the lists, detached."""
        return pair_index(facts, "all").sides(self.score(policy, reference).detach())


def plackett_luce(scores: Tensor, worse: Tensor, facts: GroupFacts) -> Tensor:
    """Return minus the log-probability of the order: sum_i of -s_i + log( e^{s_i} + sum_{j worse} e^{s_j} ).

    Source: DPO, arXiv:2305.18290, appendix A.3; Plackett 1975.
    """
    itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    left = scores[:, None, :].masked_fill(~(worse | itself), -math.inf)
    return _over_leaders(left.logsumexp(-1) - scores, worse)


def graded_contrast(scores: Tensor, worse: Tensor, facts: GroupFacts) -> Tensor:
    """Return sum_i of -T_i s_i + log( e^{T_i s_i} + sum_{j worse} e^{T_ij s_j} ), T_ij = r_i - r_j, T_i = max_j T_ij.

    r are the scores of the rows: a response that is far worse is pushed harder.

    Source: PRO, arXiv:2306.17492, with temperatures as in the authors' code.
    """
    gap = (facts.scores[:, :, None] - facts.scores[:, None, :]).to(scores).masked_fill(~worse, 0.0)
    own = gap.amax(-1) * scores
    others = (gap * scores[:, None, :]).masked_fill(~worse, -math.inf)
    return _over_leaders(torch.logaddexp(own, _finite_logsumexp(others)) - own, worse)


def likelihood_contrast(scores: Tensor, worse: Tensor, facts: GroupFacts) -> Tensor:
    """Return mean_i of mu_i [ softplus(-s_i) + mean_{j worse} softplus(s_j) ], mu_i = (s_i - min) / (max - min) fixed.

    The mean is over the responses that have a worse one.

    Source: KnowPAT, arXiv:2311.06503, as in the authors' code.
    """
    exists = facts.response_mask
    with torch.no_grad():
        low = scores.masked_fill(~exists, math.inf).amin(-1, keepdim=True)
        high = scores.masked_fill(~exists, -math.inf).amax(-1, keepdim=True)
        mu = (scores - low) / (high - low).clamp(min=torch.finfo(scores.dtype).tiny)
    pushed_down = (F.softplus(scores)[:, None, :] * worse).sum(-1) / worse.sum(-1).clamp(min=1)
    leaders = worse.any(-1).sum(-1).clamp(min=1)
    return _over_leaders(mu * (F.softplus(-scores) + pushed_down), worse) / leaders


def wrong_orders(scores: Tensor, worse: Tensor, facts: GroupFacts) -> Tensor:
    """Return sum over all pairs of max(0, s_j - s_i), j the worse.

    Source: RRHF, arXiv:2304.05302, eq. 3.
    """
    return (F.relu(scores[:, None, :] - scores[:, :, None]) * worse).sum((-1, -2))


def _over_leaders(values: Tensor, worse: Tensor) -> Tensor:
    """Return the sum [B] of `values` [B, K] over the responses that have a worse one."""
    return values.masked_fill(~worse.any(-1), 0.0).sum(-1)


def _finite_logsumexp(values: Tensor) -> Tensor:
    """Return log sum exp over the last dimension; where nothing is summed, 0 with gradient 0 instead of minus infinity.

    The gradient of a log-sum-exp of nothing is not a number, also where the result is not used.
    """
    nothing = values.isneginf().all(-1, keepdim=True)
    return values.masked_fill(nothing, 0.0).logsumexp(-1).masked_fill(nothing.squeeze(-1), 0.0)


@dataclass(frozen=True, kw_only=True)
class LikelihoodOfList(Likelihood):
    """(n - 1)^2 times the summed negative log-likelihood of the best of n responses, averaged over lists (PRO)."""

    per: str = "sequence"
    where: str = "all"

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]."""
        others = facts.response_mask.sum(-1) - 1
        return -self._weight(facts) * others**2 * policy.sums()[:, 0]
