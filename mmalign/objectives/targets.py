"""Label targets q: how far a label "better" is believed. The loss of a pair is q link(m) + (1 - q) link(-m)."""

from __future__ import annotations

from torch import Tensor

from mmalign.objectives.links import Link

CERTAIN = 1.0
"""q = 1: the label is right."""


def smoothed(error_rate: float) -> float:
    """Return q = 1 - e, the probability that the label is right (cDPO)."""
    return 1 - error_rate


def unbiased(error_rate: float) -> float:
    """Return q = (1 - e) / (1 - 2 e), larger than 1: with labels flipped at rate e the expected loss is the clean one.

    Check: (1 - e) [q l(m) + (1 - q) l(-m)] + e [q l(-m) + (1 - q) l(m)] = l(m).

    Source: robust DPO, arXiv:2403.00409.
    """
    return (1 - error_rate) / (1 - 2 * error_rate)


def towards(target: float, link: Link, margin: Tensor) -> Tensor:
    """Return q link(m) + (1 - q) link(-m), of the shape of `margin`."""
    if target == CERTAIN:
        return link(margin)
    return target * link(margin) + (1 - target) * link(-margin)
