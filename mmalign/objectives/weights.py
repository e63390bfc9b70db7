"""Weights omega of pairs, and of answers that are imitated."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmalign.objectives.comparison import GroupFacts, PairIndex


def shared_weight(pairs: PairIndex, facts: GroupFacts) -> Tensor:
    """Return omega [P]: the weight of a group in equal shares, so that a list of five counts no more than a pair."""
    return (facts.weight / pairs.per_group.clamp(min=1))[pairs.group]


def compared_weight(pairs: PairIndex, facts: GroupFacts) -> Tensor:
    """Return [B]: the weight of each group that has a pair at all, 0 for one that has none."""
    return facts.weight * (pairs.per_group > 0)


def imitated(levels: Sequence[int]) -> set[int]:
    """Return the position of the best response of a row; none where an only response was judged bad (level 1)."""
    return {0} if levels[0] == 0 else set()


def imitated_weight(facts: GroupFacts) -> Tensor:
    """Return [B]: the weight of each group whose first response is `imitated`, 0 for the others."""
    return facts.weight * (facts.levels[:, 0] == 0)
