"""Scores: one number per response, from the log-probs of its tokens.

Symbols, with lp_t the log-prob of token t under the policy and lr_t under the reference:

    S = sum_t lp_t        A = S / number of tokens        O = log( p / (1 - p) ) with p = exp(A)
    R = S - S_ref         the log-ratio that DPO's implicit reward is made of, in nats
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps


def sequence_sum(logps: GroupLogps) -> Tensor:
    """Return S [B, K], the log-prob of each response."""
    return logps.sums()


def sequence_mean(logps: GroupLogps) -> Tensor:
    """Return A [B, K], the log-prob per token of each response."""
    return logps.means()


def log_odds(logps: GroupLogps) -> Tensor:
    """Return O [B, K], the log-odds of the geometric-mean token probability: A - log(1 - exp(A)).

    Finite also for a response the model is certain of (A = 0, infinite odds): there A is taken as minus one machine
    epsilon, and passes no gradient.

    Source: ORPO, arXiv:2403.07691, eq. 4 and 7, in logarithms.
    """
    mean = logps.means()
    mean = mean.clamp(max=-torch.finfo(mean.dtype).eps)
    return mean - log1mexp(mean)


def log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - exp(x)) for x < 0 without cancellation, with a finite gradient on both branches.

    Near zero 1 - exp(x) cancels, far below zero log(1 - tiny) does; the two forms are exchanged at -log 2.

    Source: Maechler 2012, "Accurately computing log(1 - exp(-|a|))".
    """
    near_zero = x > -math.log(2)
    near = torch.where(near_zero, x, x.new_tensor(-1.0))
    far = torch.where(near_zero, x.new_tensor(-1.0), x)
    return torch.where(near_zero, torch.log(-torch.expm1(near)), torch.log1p(-torch.exp(far)))


@dataclass(frozen=True, kw_only=True)
class Score:
    """s(y) = scale * ( of(policy) - of(reference) ), or scale * of(policy) without a reference.

    Args:
        of: `sequence_sum`, `sequence_mean` or `log_odds`.
        scale: what papers call beta.
        reference: whether the same quantity under the reference is subtracted.
    """

    of: Callable[[GroupLogps], Tensor]
    scale: float = 1.0
    reference: bool

    def __call__(self, policy: GroupLogps, reference: GroupLogps | None) -> Tensor:
        """Return [B, K]. The reference carries no gradient, whoever computed it."""
        value = self.of(policy)
        if self.reference:
            value = value - self.of(reference).detach()
        return self.scale * value
