"""Shapes of the log-ratio: which f-divergence holds the policy to its reference.

DPO's reward is beta f'(u) with u = exp(R) and f the divergence; reverse KL gives R itself. A term that depends on the
prompt alone is left over, which cancels only in differences between two responses: shapes go with margins, not with
objectives that push each response for itself.

Source: Wang et al. 2024 (f-DPO), arXiv:2309.16240.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = Callable[[Tensor], Tensor]

DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")

LARGEST_EXPONENT = 80.0
"""exp of more does not fit fp32; TRL cuts here for the alpha divergence alone."""


def reverse_kl(ratio: Tensor) -> Tensor:
    """Return R: f(u) = u log u."""
    return ratio


def forward_kl(ratio: Tensor) -> Tensor:
    """Return 1 - exp(-R): f(u) = -log u, up to a linear term."""
    return -torch.expm1((-ratio).clamp(max=LARGEST_EXPONENT))


def js_divergence(ratio: Tensor) -> Tensor:
    """Return log 2 + log sigmoid(R): the Jensen-Shannon divergence."""
    return math.log(2) + F.logsigmoid(ratio)


def alpha_divergence(alpha: float) -> Shape:
    """Return the shape (exp((alpha - 1) R) - 1) / (alpha - 1); R itself where alpha is 1."""
    return reverse_kl if abs(alpha - 1) < 1e-6 else partial(_alpha_divergence, alpha=alpha)


def _alpha_divergence(ratio: Tensor, alpha: float) -> Tensor:
    return torch.expm1(((alpha - 1) * ratio).clamp(max=LARGEST_EXPONENT)) / (alpha - 1)


def shape_of(name: str, alpha: float) -> Shape:
    """Return the shape of one of `DIVERGENCES`; `alpha` is read by alpha_divergence alone."""
    shapes = {"reverse_kl": reverse_kl, "forward_kl": forward_kl, "js_divergence": js_divergence}
    return shapes[name] if name in shapes else alpha_divergence(alpha)
