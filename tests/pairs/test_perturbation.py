"""Wrong orders of a list: block tables of TEMPLE's code, what each keeps, and how difficulty is measured."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.errors import ConfigError
from mmalign.pairs.perturbation import (
    LOSES_ITEMS,
    PERTURBATIONS,
    block_size,
    blocks,
    different,
    kendall,
    perturbed,
)

# N from, to -> smallest and largest g at r = 16, 8, 4, 2: the table of TEMPLE's released code.
TABLE = [
    (4, 7, [(1, 1), (1, 1), (1, 1), (2, 3)]),
    (8, 15, [(1, 1), (1, 1), (2, 3), (4, 7)]),
    (16, 31, [(1, 1), (2, 3), (4, 7), (8, 15)]),
    (32, 32, [(2, 2), (4, 4), (8, 8), (16, 16)]),
]
counts, factors = st.integers(2, 40), st.sampled_from([2, 3, 4, 8, 16])
hows, seeds = st.sampled_from(sorted(PERTURBATIONS)), st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("first", "last", "bounds"), TABLE)
def test_blocks_have_the_sizes_of_the_table(first, last, bounds):
    for factor, (least, most) in zip((16, 8, 4, 2), bounds, strict=True):
        sizes = [block_size(count, factor) for count in range(first, last + 1)]
        assert (min(sizes), max(sizes)) == (least, most)


@given(counts, factors)
def test_blocks_are_the_list_cut_into_ceil_n_over_g(count, factor):
    size, cut = max(1, count // factor), blocks(count, factor)
    assert list(itertools.chain(*cut)) == list(range(count))
    assert len(cut) == -(-count // size) and all(len(block) == size for block in cut[:-1])


@settings(max_examples=300)
@given(counts, hows, factors, seeds)
def test_no_order_is_the_right_one_and_each_comes_again(count, how, factor, seed):
    made = perturbed(count, how, factor, seed=seed, name="a")
    assert made.order != tuple(range(count)) and set(made.order) <= set(range(count))
    assert made == perturbed(count, how, factor, seed=seed, name="a")
    assert 0 <= made.difficulty < 1
    if how in ("reverse", "shuffle"):
        assert sorted(made.order) == list(range(count)) and made.kept_share == 1
    elif how == "drop_groups":
        assert made.block <= len(made.order) < count and list(made.order) == sorted(set(made.order))
    else:
        assert len(set(made.order)) == made.block and made.kept_share == made.block / count
        assert list(made.order) == sorted(made.order) and made.kendall == 0
    assert len(made.order) == (made.block if how in LOSES_ITEMS else count)


@given(counts, factors, seeds)
def test_order_inside_a_block_is_kept(count, factor, seed):
    for how in ("reverse", "shuffle"):
        order = perturbed(count, how, factor, seed=seed, name="a").order
        for block in blocks(count, factor):
            start = order.index(block[0])
            assert order[start : start + len(block)] == tuple(block)


def test_orders_of_six_by_hand():
    assert perturbed(6, "reverse", 2, seed=0, name="a").order == (3, 4, 5, 0, 1, 2)
    assert perturbed(7, "reverse", 2, seed=0, name="a").order == (6, 3, 4, 5, 0, 1, 2)
    assert perturbed(6, "speed", 3, seed=0, name="a").order == (1, 4)
    assert perturbed(6, "shuffle", 2, seed=0, name="a").order == (3, 4, 5, 0, 1, 2), "two blocks have no other order"


def test_difficulty_by_hand():
    # 3 4 5 0 1 2: 9 of 15 pairs stand the wrong way round.
    assert perturbed(6, "reverse", 2, seed=0, name="a").difficulty == pytest.approx(1 - 9 / 15)
    assert perturbed(6, "reverse", 16, seed=0, name="a").difficulty == 0
    assert perturbed(6, "drop", 2, seed=0, name="a").difficulty == 0.5
    assert kendall([1, 0, 2]) == pytest.approx(1 / 3) and kendall([4]) == 0


@given(st.integers(4, 32))
def test_smaller_factors_are_harder(count):
    for how in ("reverse", "drop", "drop_groups", "repeat", "freeze", "speed"):
        values = [perturbed(count, how, factor, seed=0, name="a").difficulty for factor in (16, 8, 4, 2)]
        assert values == sorted(values)


def test_whole_groups_are_dropped_while_enough_is_left():
    groups = [0, 1, 0, 2, 3, 2]
    told = {perturbed(6, "drop_groups", 3, seed=seed, name="a", groups=groups).order for seed in range(200)}
    # 0 and 2 look alike, and so do 3 and 5. Groups go as long as two items are left of six, in the next of three.
    assert told == {(0, 2), (3, 5), (1, 4)}
    every = {perturbed(6, "drop_groups", 2, seed=seed, name="a", groups=groups).order for seed in range(200)}
    assert every == {(1, 3, 5), (3, 4, 5), (0, 1, 2), (0, 2, 4), (0, 2, 3, 5)}


def test_where_all_look_alike_items_are_dropped_one_by_one():
    assert len(perturbed(6, "drop_groups", 2, seed=0, name="a", groups=[0] * 6).order) == 3


def test_a_shuffle_draws_evenly_from_all_orders_but_the_right_one():
    drawn = [perturbed(3, "shuffle", 16, seed=seed, name="a").order for seed in range(1000)]
    counted = {order: drawn.count(order) for order in itertools.permutations(range(3))}
    assert counted.pop((0, 1, 2)) == 0
    assert all(150 < number < 250 for number in counted.values())


@given(st.integers(4, 32), seeds)
def test_no_request_and_no_order_stands_twice(count, seed):
    made = different(count, sorted(PERTURBATIONS), (2, 4, 8, 16), seed=seed, name="a")
    assert len({one.order for one in made}) == len(made)
    assert len({(one.how, one.block) for one in made}) == len(made)
    assert {one.block for one in made} == {max(1, count // factor) for factor in (2, 4, 8, 16)}


def test_equal_requests_stand_at_the_largest_factor():
    made = different(6, ("drop", "reverse", "shuffle"), (2, 4, 8, 16), seed=0, name="a")
    assert [(one.factor, one.how) for one in made] == [
        (16, "drop"),
        (16, "reverse"),
        (16, "shuffle"),
        (2, "drop"),
        (2, "reverse"),
    ]


@pytest.mark.parametrize(
    ("count", "how", "factor", "message"),
    [
        (6, "melt", 2, "perturbation 'melt' is unknown; use one of reverse, shuffle, drop"),
        (1, "drop", 2, "a factor and a number of items of 2 or more, got 2 and 1"),
        (6, "drop", 1, "a factor and a number of items of 2 or more, got 1 and 6"),
    ],
)
def test_what_cannot_be_perturbed_is_refused(count, how, factor, message):
    with pytest.raises(ConfigError, match=message):
        perturbed(count, how, factor, seed=0, name="a")
