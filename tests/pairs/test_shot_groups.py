"""Groups of shots that look alike, and the clips that they make: by hand, with TEMPLE's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mmalign.pairs.shot_groups import Fused, fused, grouped, why_unsuitable

TEMPLE = {"fewest": 4, "most_share": 1 / 3, "most": 3}


def similar(count: int, **pairs: float) -> np.ndarray:
    """`similar(3, s01=0.9)` is the identity but for shots 0 and 1."""
    made = np.eye(count)
    for name, value in pairs.items():
        first, second = int(name[1]), int(name[2])
        made[first, second] = made[second, first] = value
    return made


def test_shots_are_merged_while_they_are_similar_enough():
    assert grouped(similar(4, s02=0.9, s13=0.81), 0.8) == [[0, 2], [1, 3]]
    assert grouped(similar(4, s02=0.9, s13=0.8), 0.8) == [[0, 2], [1], [3]], "the bound itself is not enough"
    assert grouped(similar(2), 0.8) == [[0], [1]] and grouped(similar(1), 0.8) == [[0]]


def test_a_merged_group_is_as_similar_as_its_two_parts_on_average():
    # (0.95 + 0.7) / 2 = 0.825 joins shot 2; then 3 stands at ((0 + 0) / 2 + 1.0 * 0.99) / 2 < 0.8.
    assert grouped(similar(4, s01=0.96, s02=0.95, s12=0.7, s23=0.79), 0.8) == [[0, 1, 2], [3]]
    assert grouped(similar(3, s01=0.96, s02=0.9, s12=0.6), 0.8) == [[0, 1], [2]]


def test_the_average_counts_groups_not_shots():
    # {0, 1} and 2 merge at 0.9; to 3 they are (0.89 + 0.5) / 2 = 0.695. Counted by shots they would be 0.76.
    found = grouped(similar(4, s01=0.95, s02=0.9, s12=0.9, s03=0.89, s13=0.89, s23=0.5), 0.7)
    assert found == [[0, 1, 2], [3]]


def test_neighbours_of_one_group_are_one_clip():
    assert fused([[0, 1, 4], [2], [3]]) == [Fused(0, (0, 1)), Fused(1, (2,)), Fused(2, (3,)), Fused(0, (4,))]


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        ([[0], [1], [2], [3]], None),
        ([[0, 1, 2], [3], [4]], "fewer than 4 clips that look different"),
        ([[0, 2], [1], [3], [4], [5]], None),  # twice of six is a third
        ([[0, 2], [1], [3], [4]], "clips of one group come back more than 3 times or 0.333 of all"),  # twice of five
        ([[0, 2, 4, 6], [1], [3], [5], *([k] for k in range(7, 14))], "clips of one group come back more than 3 times"),
    ],
)
def test_videos_whose_order_would_not_be_seen_are_left_out(groups, why):
    found = why_unsuitable(fused(groups), **TEMPLE)
    assert found is None if why is None else found.startswith(why)
