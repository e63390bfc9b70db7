"""Scores: one number per response, from the log-probs of its tokens.

Symbols, with lp_t the log-prob of token t under the policy and lr_t under the reference:

    S = sum_t lp_t        A = S / number of tokens        O = log( p / (1 - p) ) with p = exp(A)
    R = S - S_ref         the log-ratio that DPO's implicit reward is made of, in nats
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.divergences import LARGEST_EXPONENT, Shape, reverse_kl


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


def inverse_power(alpha: float) -> Callable[[GroupLogps], Tensor]:
    """Return the score (1 - p^-alpha) / alpha of p = exp(A); A itself where alpha is 0.

    The exponent is cut at 80, above which the power does not fit fp32.

    Source: AlphaPO, arXiv:2501.03884.
    """
    return sequence_mean if alpha == 0 else partial(_inverse_power, alpha=alpha)


def _inverse_power(logps: GroupLogps, alpha: float) -> Tensor:
    return -torch.expm1((-alpha * logps.means()).clamp(max=LARGEST_EXPONENT)) / alpha


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
    """s(y) = scale * shape( of(policy) - of(reference) ), or scale * of(policy) without a reference.

    Args:
        of: `sequence_sum`, `sequence_mean`, `log_odds` or `inverse_power(...)`.
        scale: what papers call beta.
        reference: whether the same quantity under the reference is subtracted.
        shape: of the log-ratio, from `divergences.py`; the log-ratio itself for DPO.
        per_token: whether the shaped value is divided by the number of tokens.
    """

    of: Callable[[GroupLogps], Tensor]
    scale: float = 1.0
    reference: bool
    shape: Shape = reverse_kl
    per_token: bool = False

    def __call__(self, policy: GroupLogps, reference: GroupLogps | None) -> Tensor:
        """Return [B, K]. The reference carries no gradient, whoever computed it."""
        value = self.of(policy)
        if self.reference:
            value = self.shape(value - self.of(reference).detach())
        if self.per_token:
            value = value / policy.lengths().clamp(min=1)
        return self.scale * value
