"""Weights, factors and targets that are found for every pair, without gradient unless a line says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign.objectives.pairwise import PairRule, Pairs


@dataclass(frozen=True)
class OnPolicyWeight(PairRule):
    """omega = W(better) W(worse) with W = exp( mean over tokens of [ lp_t - log sum_v p_t(v)^2 ] ).

    A response that the policy itself would give counts fully, an improbable one less. The second term is the log-prob
    that the policy's own draw has on average, so that a sharp and a flat distribution are measured alike.

    Source: WPO, arXiv:2406.11827, eq. 2 with sampled alignment.

    Args:
        at_most: the product is cut here, as in the authors' code; inf leaves it, as TRL does.
    """

    at_most: float
    needs_purity = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return omega [P]."""
        logps, lengths = pairs.policy, pairs.policy.lengths().clamp(min=1)
        aligned = (logps.token_logps - logps.log_purity).detach().masked_fill(~logps.mask, 0.0)
        return torch.exp((aligned.sum(-1) / lengths).sum(-1)).clamp(max=self.at_most)


def score_gap(pairs: Pairs) -> Tensor:
    """Return [P], by how much the better response scores higher; the row's margin where the two have no scores."""
    sides = pairs.index.sides(pairs.facts.scores)
    gap = sides[:, 0] - sides[:, 1]
    return torch.where(gap.isnan(), pairs.facts.margin[pairs.index.group], gap).to(pairs.scores)


@dataclass(frozen=True)
class SaturatingFactor(PairRule):
    """beta grows with the score gap d, up to 1 + reach times: 1 + reach (1 - exp(-rate d)), d at least 0.

    Source: MM-RLHF, arXiv:2502.10391, dynamic reward scaling.
    """

    reach: float
    rate: float
    needs_scores = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the factor [P]."""
        return 1 - self.reach * torch.expm1(-self.rate * score_gap(pairs).clamp(min=0))


@dataclass(frozen=True)
class GapFactor(PairRule):
    """beta grows in proportion: factor (1 + |d|), d the score gap.

    Source: DA-DPO, arXiv:2601.00623, as in the authors' code.
    """

    factor: float
    needs_scores = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the factor [P]."""
        return self.factor * (1 + score_gap(pairs).abs())


@dataclass(frozen=True)
class FactorOfBest(PairRule):
    """A steeper comparison where the better response is of the best level (TRPA).

    Args:
        factor: of beta there; 1 elsewhere.
    """

    factor: float

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return the factor [P]."""
        levels = pairs.index.sides(pairs.facts.levels)[:, 0]
        return torch.where(levels == 0, self.factor, 1.0).to(pairs.scores)


@dataclass(frozen=True)
class QualityAndPerformance(PairRule):
    """omega = sigmoid(quality_rate d) * (1 - sigmoid(beta (A_w - A_l) - settled_at))^focus, d the score gap.

    Pairs of clear quality count more, pairs that the policy has settled count less. The second factor passes gradient,
    as in the authors' code.

    Source: Uni-DPO (Omni-DPO), arXiv:2506.10054.
    """

    beta: float
    quality_rate: float
    settled_at: float
    focus: float
    needs_scores = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return omega [P]."""
        means = pairs.policy.means()
        # A power of the logarithm: far beyond settled_at the sigmoid is 0, and a root of 0 has no gradient.
        unsettled = logsigmoid(self.settled_at - self.beta * (means[:, 0] - means[:, 1]))
        return torch.sigmoid(self.quality_rate * score_gap(pairs)) * torch.exp(self.focus * unsettled)
