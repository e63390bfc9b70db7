"""What is known of the responses of a batch, and the pairs that are compared, as index tensors.

A pair is a group of two: `PairIndex.of` cuts P of them out of B groups of K, and everything pairwise reads [P, 2, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.pairs.ranking import require_pairing


@dataclass(frozen=True)
class GroupFacts:
    """What is known of B groups of up to K responses before any model has seen them.

    Args:
        levels: int [B, K], 0 for the best level of a group, equal integers for ties; unread where nothing is. An only
            response that was judged bad has level 1.
        weight: float [B], weight of each group in the loss.
        margin: float [B], how much better the best is than the worst; nan where nobody said.
        response_mask: bool [B, K], which responses exist; the first always does, and existing ones come first. An
            answer to another prompt may stand behind them and does not count (`mismatched`).
        scores: float [B, K], overall score of each response, larger is better; nan where nobody gave one.
        seed: int64 [B], made from the id of the row; what is drawn for a row is drawn from it.
        annotator: int64 [B], made from who judged the row; one number for all rows where nobody is named.
        numbers: named scores of the responses, float [B, K] each; nan where a response has none. See `numbers.py`.
    """

    levels: Tensor
    weight: Tensor
    margin: Tensor
    response_mask: Tensor
    scores: Tensor
    seed: Tensor
    annotator: Tensor
    numbers: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> GroupFacts:
        """Return the same facts on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def select(self, groups: Tensor | slice | list[int]) -> GroupFacts:
        """Return the facts of some groups, in the order in which they are named."""
        return self._each(lambda tensor: tensor[groups])

    def number(self, name: str) -> Tensor:
        """Return a named score of every response, [B, K]; nan where nobody gave one."""
        return self.numbers.get(name, torch.full_like(self.scores, torch.nan))

    def _each(self, change: Callable[[Tensor], Tensor]) -> GroupFacts:
        numbers = {name: change(tensor) for name, tensor in self.numbers.items()}
        plain = {name: change(value) for name, value in vars(self).items() if name != "numbers"}
        return GroupFacts(**plain, numbers=numbers)


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

    def __len__(self) -> int:
        return len(self.group)

    def sides(self, value: Tensor) -> Tensor:
        """Return [P, 2, ...], better and worse, of a value [B, K, ...]."""
        return value[self.group[:, None], torch.stack([self.better, self.worse], 1)]

    def of(self, logps: GroupLogps) -> GroupLogps:
        """Return the log-probs of the pairs as P groups of two responses."""
        return logps.mapped(self.sides)

    def group_sums(self, values: Tensor) -> Tensor:
        """Return the sum over the pairs of each group [B] of `values` [P]."""
        return values.new_zeros(len(self.per_group)).index_add(0, self.group, values)


def mismatched(logps: GroupLogps, facts: GroupFacts) -> Tensor:
    """Return bool [B, K], which places hold an answer to another prompt: log-probs of no response of the row."""
    return logps.mask.any(-1) & ~facts.response_mask


def judged(facts: GroupFacts) -> tuple[Tensor, Tensor]:
    """Return bool [B, K] twice, which responses are good and which are bad.

    An only response is what it was judged to be. Of several, those of the best level are good and those of the worst
    are bad; between them, and where all are tied, nothing is said.
    """
    exists = facts.response_mask
    last = exists.sum(1, keepdim=True) - 1
    worst = facts.levels.gather(1, last.clamp(min=0))
    good = exists & (facts.levels == 0) & ((last == 0) | (worst > 0))
    return good, exists & (facts.levels == worst) & (worst > 0)


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
    second = levels[:, min(1, levels.shape[1] - 1)][:, None, None]
    wanted = {
        "all": torch.ones_like(both_exist),
        "best_rest": (high == best).expand_as(both_exist),
        "best_worst": (high == best) & (low == worst),
        "adjacent": low - high == 1,
        "below_best": (position[:, None] > 0) & (high == second) & (low == worst),
        "disjoint": (position[:, None] + position[None, :])[None] == last[:, None, None],
    }[pairing]
    compared = both_exist & (high < low) & wanted
    group, better, worse = compared.nonzero(as_tuple=True)
    return PairIndex(group, better, worse, compared.sum((1, 2)))
