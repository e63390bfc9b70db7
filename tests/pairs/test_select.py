"""Which rows are read, and the pairs of a list from easiest to hardest."""

import pytest
from pairs.rows import ranked, texts

from mmalign.errors import RowError
from mmalign.pairs.gaps import easiest_first, score_gap
from mmalign.pairs.select import Bounds, Selection


def test_the_easiest_pair_has_the_largest_gap_of_scores():
    assert [texts(pair) for pair in easiest_first(ranked(4.0, 3.0, 2.0, 1.0))] == ["ad", "ac", "ab"]


def test_without_all_scores_ranks_are_the_gaps_and_ties_go_by_place():
    assert [texts(pair) for pair in easiest_first(ranked(None, None, None, ties=((1, 2),)))] == ["ac", "ab"]
    assert [texts(pair) for pair in easiest_first(ranked(9.0, None, 1.0))] == ["ac", "ab"]


def test_what_is_tied_with_the_best_is_no_pair():
    assert [texts(pair) for pair in easiest_first(ranked(2.0, 2.0, 1.0, ties=((0, 1),)))] == ["ac"]


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (Bounds(above=2.0), [2.5], [2.0, 1.0]),
        (Bounds(at_least=2.0), [2.0, 3.0], [1.9]),
        (Bounds(below=2.0), [1.9], [2.0]),
        (Bounds(at_most=2.0), [2.0], [2.1]),
        (Bounds(above=1.0, at_most=2.0), [1.5, 2.0], [1.0, 2.5]),
    ],
)
def test_bounds_say_whether_they_hold_the_number_itself(bounds, inside, outside):
    assert [value for value in inside + outside if value in bounds] == inside
    assert not bounds.is_empty()


@pytest.mark.parametrize(
    "bounds", [Bounds(above=2.0, below=1.0), Bounds(above=2.0, at_most=2.0), Bounds(at_least=2.0, below=2.0)]
)
def test_bounds_that_hold_nothing_are_known(bounds):
    assert bounds.is_empty()
    assert not Bounds(at_least=2.0, at_most=2.0).is_empty()


def test_an_easy_and_a_hard_half_share_all_rows():
    """MPO: easy has a gap above the threshold, hard has one of at most that."""
    rows = [ranked(gap, 0.0, id=str(gap)) for gap in (0.5, 2.0, 2.5, 7.0)]
    easy, hard = Selection(score_gap=Bounds(above=2.0)), Selection(score_gap=Bounds(at_most=2.0))
    assert [row.id for row in rows if easy.apply(row)[0]] == ["2.5", "7.0"]
    assert [row.id for row in rows if hard.apply(row)[0]] == ["0.5", "2.0"]
    assert hard.apply(rows[3]) == (None, "score_gap at most 2")


def test_the_gap_is_best_against_worst_or_the_margin():
    assert score_gap(ranked(5.0, 4.0, 1.0)) == 4.0
    assert score_gap(ranked(None, None, margin=3.0)) == 3.0
    with pytest.raises(RowError, match="row has no score gap to select by; give its responses scores, or the row a"):
        score_gap(ranked(None, None))


def test_a_difficulty_is_read_or_missed():
    selection = Selection(difficulty=Bounds(at_most=1.0))
    assert selection.apply(ranked(2.0, 1.0, difficulty=1.0))[1] == ""
    assert selection.apply(ranked(2.0, 1.0, difficulty=1.5)) == (None, "difficulty at most 1")
    with pytest.raises(RowError, match="row has no difficulty to select by"):
        selection.apply(ranked(2.0, 1.0))


def test_tags_name_the_values_that_are_read():
    selection = Selection(tags={"task": ("vqa", "ocr")})
    assert selection.apply(ranked(1.0, 0.0, tags={"task": "ocr"}))[1] == ""
    assert selection.apply(ranked(1.0, 0.0, tags={"task": "chat"})) == (None, "tag task: vqa, ocr")
    assert selection.apply(ranked(1.0, 0.0)) == (None, "tag task: vqa, ocr")


def test_a_pair_of_a_list_is_what_the_other_rules_see():
    row = ranked(9.0, 8.0, 4.0)
    assert [texts(Selection(pair=place).apply(row)[0]) for place in (1, 2)] == ["ac", "ab"]
    assert Selection(pair=3).apply(row) == (None, "pair 3")
    assert Selection(pair=2, score_gap=Bounds(above=2.0)).apply(row) == (None, "score_gap above 2")
