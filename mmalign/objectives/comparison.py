"""What is known of the responses of a batch, and the pairs that are compared, as index tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.pairs.ranking import require_pairing


@dataclass(frozen=True)
class GroupFacts:
    """What is known of B groups of up to K responses before any model has seen them.

    Args:
        levels: int [B, K], 0 for the best level of a group, equal integers for ties; unread where nothing is.
        weight: float [B], weight of each group in the loss.
        margin: float [B], how much better the best is than the worst; nan where nobody said.
        response_mask: bool [B, K], which responses exist; the first always does, and existing ones come first.
    """

    levels: Tensor
    weight: Tensor
    margin: Tensor
    response_mask: Tensor

    def to(self, device: torch.device | str) -> GroupFacts:
        """Return the same facts on `device`."""
        return GroupFacts(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass(frozen=True)
class PairIndex:
    """P pairs of a batch.

    Args:
        group: int64 [P], the group of each pair.
        better: int64 [P], position of the better response in its group.
        worse: int64 [P].
        per_group: int64 [B], number of pairs of each group.
    """

    group: Tensor
    better: Tensor
    worse: Tensor
    per_group: Tensor

    def difference(self, score: Tensor) -> Tensor:
        """Return score(better) - score(worse) [P] of a score [B, K]."""
        return score[self.group, self.better] - score[self.group, self.worse]

    def group_sums(self, values: Tensor) -> Tensor:
        """Return the sum over the pairs of each group [B] of `values` [P]."""
        return values.new_zeros(len(self.per_group)).index_add(0, self.group, values)


def pair_index(facts: GroupFacts, pairing: str) -> PairIndex:
    """Return the pairs that `pairing` compares, as `mmalign.pairs.ranking.rank_pairs` has them, for a whole batch.

    Raises:
        ConfigError: `pairing` is unknown.
    """
    require_pairing(pairing)
    levels, exists = facts.levels, facts.response_mask
    last = exists.sum(1) - 1
    worst = levels.gather(1, last.clamp(min=0)[:, None])[:, :, None]
    best = levels[:, :1, None]
    high, low = levels[:, :, None], levels[:, None, :]
    position = torch.arange(levels.shape[1], device=levels.device)
    both_exist = exists[:, :, None] & exists[:, None, :]
    wanted = {
        "all": torch.ones_like(both_exist),
        "best_rest": (high == best).expand_as(both_exist),
        "best_worst": (high == best) & (low == worst),
        "adjacent": low - high == 1,
        "disjoint": (position[:, None] + position[None, :])[None] == last[:, None, None],
    }[pairing]
    compared = both_exist & (high < low) & wanted
    group, better, worse = compared.nonzero(as_tuple=True)
    return PairIndex(group, better, worse, compared.sum((1, 2)))
