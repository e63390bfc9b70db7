"""Weights, factors and targets that are found for every pair, without gradient unless a line says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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
