"""Links: from the margin of a pair, or from the score of one response, to a loss.

    Margin(link, shift)   link( s(better) - s(worse) - shift )      only the difference matters
    Sides(up, down)       up( s(better) ) + down( s(worse) )        each response is pushed for itself

Both know what the pair costs when its label is believed, and when it is doubted (`flipped`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Link = Callable[[Tensor], Tensor]


def logistic(margin: Tensor) -> Tensor:
    """Return -log sigmoid(m), the Bradley-Terry likelihood: log 2 at m = 0, about -m far below it."""
    return -F.logsigmoid(margin)


def hinge(margin: Tensor) -> Tensor:
    """Return max(0, 1 - m): no push once the margin is 1."""
    return F.relu(1 - margin)


def sigmoid_linear(margin: Tensor) -> Tensor:
    """Return sigmoid(-m): the probability of the wrong order, flat on both ends (KTO, APO)."""
    return torch.sigmoid(-margin)


def rank_hinge(margin: Tensor) -> Tensor:
    """Return max(0, -m): no push once the order is right (RRHF)."""
    return F.relu(-margin)


def square(at: float) -> Link:
    """Return the link (m - at)^2: a margin to hit, not to exceed."""
    return partial(_square, at=at)


def reverse_kl_to(error_rate: float) -> Link:
    """Return the link KL( (p, 1 - p) || (1 - e, e) ) with p = sigmoid(m): where logistic is mode covering, this seeks.

    Source: EXO, arXiv:2402.00856, eq. 16 for two responses.
    """
    return partial(_reverse_kl_to, error_rate=error_rate)


def log_ratio_modulated(temperature: float) -> Link:
    """Return the link (1 - g) logistic(m) + g exp(-m) with g = sigmoid(m / temperature).

    g exp(-m) is taken as one exponential: for m far below 0 its factors are 0 and infinite.

    Source: DiscoPOP, arXiv:2406.08414, eq. 5.
    """
    return partial(_log_ratio_modulated, temperature=temperature)


def scaled(link: Link, weight: float) -> Link:
    """Return the link weight * link(m)."""
    return link if weight == 1 else partial(_scaled, link=link, weight=weight)


def _scaled(margin: Tensor, link: Link, weight: float) -> Tensor:
    return weight * link(margin)


def _square(margin: Tensor, at: float) -> Tensor:
    return (margin - at) ** 2


def _reverse_kl_to(margin: Tensor, error_rate: float) -> Tensor:
    right = torch.sigmoid(margin) * (F.logsigmoid(margin) - math.log1p(-error_rate))
    return right + torch.sigmoid(-margin) * (F.logsigmoid(-margin) - math.log(error_rate))


def _log_ratio_modulated(margin: Tensor, temperature: float) -> Tensor:
    modulated = margin / temperature
    return torch.sigmoid(-modulated) * logistic(margin) + torch.exp(F.logsigmoid(modulated) - margin)


@dataclass(frozen=True)
class Margin:
    """link( s(better) - s(worse) - shift ); doubted: link of minus that.

    Args:
        link: of the margin.
        shift: gamma, by how much the better must lead.
    """

    link: Link
    shift: float = 0.0

    def __call__(self, better: Tensor, worse: Tensor) -> Tensor:
        """Return the loss of each pair if its label is right."""
        return self.link(better - worse - self.shift)

    def flipped(self, better: Tensor, worse: Tensor) -> Tensor:
        """Return the loss of each pair if its label is wrong."""
        return self.link(-(better - worse - self.shift))


@dataclass(frozen=True)
class Sides:
    """up( s(better) ) + down( s(worse) ); doubted: the roles exchanged."""

    up: Link
    down: Link

    def __call__(self, better: Tensor, worse: Tensor) -> Tensor:
        """Return the loss of each pair if its label is right."""
        return self.up(better) + self.down(worse)

    def flipped(self, better: Tensor, worse: Tensor) -> Tensor:
        """Return the loss of each pair if its label is wrong."""
        return self.up(worse) + self.down(better)


@dataclass(frozen=True)
class Both:
    """Sum of two comparisons."""

    first: Margin | Sides
    second: Margin | Sides

    def __call__(self, better: Tensor, worse: Tensor) -> Tensor:
        """Return the loss of each pair if its label is right."""
        return self.first(better, worse) + self.second(better, worse)

    def flipped(self, better: Tensor, worse: Tensor) -> Tensor:
        """Return the loss of each pair if its label is wrong."""
        return self.first.flipped(better, worse) + self.second.flipped(better, worse)


Comparison = Margin | Sides | Both


def _nothing(score: Tensor) -> Tensor:
    return torch.zeros_like(score)


def _minus(link: Link) -> Link:
    return partial(_of_minus, link=link)


def _of_minus(score: Tensor, link: Link) -> Tensor:
    return link(-score)


def _up_and_down(score: Tensor) -> Tensor:
    return logistic(score) + 0.5 * logistic(-score)


def _half_down(score: Tensor) -> Tensor:
    return 0.5 * logistic(-score)


LOGISTIC = Margin(logistic)
"""-log sigmoid(s(better) - s(worse)): DPO's."""

BINARY = Sides(logistic, _minus(logistic))
"""-log sigmoid(s(better)) - log sigmoid(-s(worse)): two answers to one question, is it good (BCO)."""

CONTRASTED = Sides(_up_and_down, _half_down)
"""-log sigmoid(s_w) - 1/2 log sigmoid(-s_w) - 1/2 log sigmoid(-s_l): s_w is kept from falling (NCA)."""

ANCHORED_UP = Sides(sigmoid_linear, _minus(sigmoid_linear))
"""sigmoid(-s(better)) + sigmoid(s(worse)): the better above the reference, the worse below (APO-zero, KTO)."""

ANCHORED_DOWN = Both(Sides(_minus(sigmoid_linear), _nothing), Margin(sigmoid_linear))
"""sigmoid(s(better)) + sigmoid(-(s(better) - s(worse))): both fall, the worse further (APO-down)."""


def squares_around(target: float) -> Sides:
    """Return (s(better) - target)^2 + (s(worse) + target)^2 (SPPO)."""
    return Sides(square(target), square(-target))
