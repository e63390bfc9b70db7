from __future__ import annotations

import numpy as np
import pytest

from mmalign.errors import DataError
from mmalign.evaluate import order

RAIN, WIND, SUN = "rain", "wind", "sun"
TRUTH = [RAIN, WIND, SUN]


def scored(told, well_formed=True):
    values = order.score([told], [TRUTH], well_formed=[well_formed])
    return {name: float(array[0]) for name, array in values.items()}


def test_the_truth_scores_as_the_truth():
    assert scored([RAIN, WIND, SUN]) == {"exact": 1, "events": 1, "ordered": 1, "pairs": 1}


def test_a_swap_of_neighbours_keeps_the_events_and_spoils_one_pair_of_three():
    assert scored([WIND, RAIN, SUN]) == {"exact": 0, "events": 1, "ordered": 0, "pairs": pytest.approx(2 / 3)}


def test_backwards_has_no_pair_right():
    assert scored([SUN, WIND, RAIN]) == {"exact": 0, "events": 1, "ordered": 0, "pairs": 0}


def test_what_is_left_out_takes_its_pairs_with_it():
    assert scored([RAIN, SUN]) == {"exact": 0, "events": 0, "ordered": 0, "pairs": pytest.approx(1 / 3)}
    assert scored([]) == {"exact": 0, "events": 0, "ordered": 0, "pairs": 0}


def test_a_repetition_or_an_invention_spoils_the_events_and_the_first_telling_counts():
    assert scored([RAIN, WIND, SUN, RAIN]) == {"exact": 0, "events": 0, "ordered": 0, "pairs": 1}
    assert scored([RAIN, "snow", WIND, SUN])["events"] == 0


def test_a_caption_that_cannot_be_read_to_its_end_is_not_exact():
    assert scored([RAIN, WIND, SUN], well_formed=False) == {"exact": 0, "events": 1, "ordered": 1, "pairs": 1}


@pytest.mark.parametrize(
    ("permutation", "wrong"), [([0, 1, 2, 3], 0), ([1, 0, 2, 3], 1), ([3, 2, 1, 0], 6), ([1, 2, 3, 0], 3)]
)
def test_inversions_count_pairs_that_stand_the_wrong_way_round(permutation, wrong):
    assert order.inversions(permutation) == wrong


def test_order_is_judged_among_captions_with_the_right_events():
    told = [[RAIN, WIND, SUN], [WIND, RAIN, SUN], [RAIN, WIND, SUN], [RAIN]]
    levels = order.levels(order.score(told, [TRUTH] * 4, well_formed=[True] * 4))
    assert list(levels) == ["exact", "order", "events", "pairs"] == list(order.METRICS)
    assert levels["order"].mean == pytest.approx(2 / 3)
    assert levels["events"].mean == 0.75 and levels["exact"].mean == 0.5


def test_without_right_events_there_is_no_order_to_judge():
    none = order.score([[RAIN]] * 3, [TRUTH] * 3, well_formed=[True] * 3)
    some = order.score([TRUTH] * 3, [TRUTH] * 3, well_formed=[True] * 3)
    assert "order" not in order.levels(none)
    assert "order" not in order.compare(none, some)
    assert order.compare(none, some)["exact"].mean == 1


def test_comparison_is_paired():
    worse = order.score([[WIND, RAIN, SUN], TRUTH] * 20, [TRUTH] * 40, well_formed=[True] * 40)
    better = order.score([TRUTH] * 40, [TRUTH] * 40, well_formed=[True] * 40)
    change = order.compare(worse, better)
    assert change["order"].mean == change["exact"].mean == 0.5
    assert change["order"].low > 0.3 and change["events"].low == change["events"].high == 0
    assert np.isfinite([change["pairs"].low, change["pairs"].high]).all()


def test_truths_without_an_order_and_unequal_lengths_are_refused():
    with pytest.raises(DataError, match=r"equally many, got \[1, 2\]"):
        order.score([TRUTH], [TRUTH, TRUTH], well_formed=[True])
    for truth in ([RAIN], [RAIN, WIND, RAIN]):
        with pytest.raises(DataError, match="truth 1 has no order to judge: .* each of them once"):
            order.score([TRUTH, TRUTH], [TRUTH, truth], well_formed=[True, True])
