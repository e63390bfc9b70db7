"""Weights omega of pairs."""

from __future__ import annotations

from torch import Tensor

from mmalign.objectives.comparison import GroupFacts, PairIndex


def shared_weight(pairs: PairIndex, facts: GroupFacts) -> Tensor:
    """Return omega [P]: the weight of a group in equal shares, so that a list of five counts no more than a pair."""
    return (facts.weight / pairs.per_group.clamp(min=1))[pairs.group]


def compared_weight(pairs: PairIndex, facts: GroupFacts) -> Tensor:
    """Return [B]: the weight of each group that has a pair at all, 0 for one that has none."""
    return facts.weight * (pairs.per_group > 0)
