"""Pairs of a ranked list, worked by hand on a > b = c > d."""

import pytest

from mmalign.errors import ConfigError
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.pairs.ranking import PAIRINGS, expand, rank_pairs

TIED_MIDDLE = (0, 1, 1, 2)


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("all", {(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)}),
        ("best_rest", {(0, 1), (0, 2), (0, 3)}),
        ("best_worst", {(0, 3)}),
        ("adjacent", {(0, 1), (0, 2), (1, 3), (2, 3)}),
        ("disjoint", {(0, 3)}),
        ("below_best", {(1, 3), (2, 3)}),
    ],
)
def test_pairs_of_a_list_with_a_tie_in_the_middle(pairing, expected):
    assert set(rank_pairs(TIED_MIDDLE, pairing)) == expected


def test_disjoint_uses_each_response_once_and_leaves_out_the_middle_of_an_odd_list():
    assert rank_pairs((0, 1, 2, 3, 4), "disjoint") == ((0, 4), (1, 3))


def test_a_tie_at_the_top_has_two_best():
    assert rank_pairs((0, 0, 1), "best_worst") == ((0, 2), (1, 2))


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_two_responses_give_one_pair_under_every_rule_but_below_best(pairing):
    assert rank_pairs((0, 1), pairing) == (() if pairing == "below_best" else ((0, 1),))


def test_below_best_leaves_out_the_first_response_alone():
    assert rank_pairs((0, 1, 2), "below_best") == ((1, 2),)
    assert rank_pairs((0, 0, 1, 1), "below_best") == ((1, 2), (1, 3))


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("levels", [(), (0,), (0, 0), (0, 0, 0)])
def test_nothing_to_compare_gives_no_pair(levels, pairing):
    assert rank_pairs(levels, pairing) == ()


def test_an_unknown_rule_names_the_nearest_one():
    with pytest.raises(ConfigError, match="pairs must be one of all, best_worst.*did you mean 'best_worst'"):
        rank_pairs((0, 1), "best-worst")


def _ranked(*scores, **facts):
    responses = tuple(Response.of(f"answer {k}", score=score) for k, score in enumerate(scores))
    return Preference(id="row", prompt=(Message.of("user", "why?"),), responses=responses, **facts)


def test_expanded_rows_share_the_weight_and_take_the_gap_of_scores_as_margin():
    rows = list(expand(_ranked(9.0, 5.0, 4.0, weight=3.0), "all"))
    assert [row.id for row in rows] == ["row#0>1", "row#0>2", "row#1>2"]
    assert [row.margin for row in rows] == [4.0, 5.0, 1.0]
    assert [row.weight for row in rows] == [1.0, 1.0, 1.0]
    assert [row.chosen.text for row in rows] == ["answer 0", "answer 0", "answer 1"]


def test_without_scores_only_best_against_worst_keeps_the_margin():
    rows = list(expand(_ranked(None, None, None, margin=2.0), "all"))
    assert [row.margin for row in rows] == [None, 2.0, None]


def test_a_row_of_two_is_yielded_as_it_stands_and_a_tied_one_not_at_all():
    pair = _ranked(None, None, margin=1.5, weight=2.0)
    assert list(expand(pair)) == [pair]
    assert list(expand(_ranked(None, None, ties=((0, 1),)))) == []
