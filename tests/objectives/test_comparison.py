"""Pairs as index tensors agree with pairs of records, for every short list, in one padded batch."""

import itertools

import pytest
import torch
from objectives.batches import facts_of

from mmalign.errors import ConfigError
from mmalign.objectives.comparison import pair_index
from mmalign.objectives.weights import compared_weight, shared_weight
from mmalign.pairs.ranking import PAIRINGS, rank_pairs

LISTS = [
    levels
    for size in range(1, 6)
    for levels in itertools.product(range(size), repeat=size)
    if levels[0] == 0 and all(b - a in (0, 1) for a, b in itertools.pairwise(levels))
]


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_index_tensors_hold_the_pairs_of_the_records(pairing):
    index = pair_index(facts_of(LISTS), pairing)
    found = [[] for _ in LISTS]
    for group, better, worse in zip(index.group, index.better, index.worse, strict=True):
        found[group].append((better.item(), worse.item()))
    assert [tuple(pairs) for pairs in found] == [rank_pairs(levels, pairing) for levels in LISTS]
    assert index.per_group.tolist() == [len(pairs) for pairs in found]


def test_pairs_of_a_group_share_its_weight_and_a_tied_group_has_none():
    facts = facts_of([(0, 1, 2), (0, 0), (0, 1)], weight=[6.0, 5.0, 1.0])
    index = pair_index(facts, "all")
    assert shared_weight(index, facts).tolist() == [2.0, 2.0, 2.0, 1.0]
    assert compared_weight(index, facts).tolist() == [6.0, 0.0, 1.0]


def test_sides_and_group_sums_by_hand():
    index = pair_index(facts_of([(0, 1, 2), (0, 1)]), "best_rest")
    sides = index.sides(torch.tensor([[5.0, 3.0, 1.0], [2.0, 9.0, 0.0]]))
    assert sides.tolist() == [[5.0, 3.0], [5.0, 1.0], [2.0, 9.0]]
    difference = sides[:, 0] - sides[:, 1]
    assert difference.tolist() == [2.0, 4.0, -7.0]
    assert index.group_sums(difference).tolist() == [6.0, -7.0]


def test_an_unknown_pairing_is_refused():
    with pytest.raises(ConfigError, match="pairs must be one of"):
        pair_index(facts_of([(0, 1)]), "worst")
