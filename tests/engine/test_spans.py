"""Span weights on tokens whose offsets are written down by hand."""

import pytest

from mmalign.engine.spans import token_weights
from mmalign.errors import RowError
from mmalign.formats.message import Message
from mmalign.formats.preference import Response, Span


def weights(text: str, rendered: str, offsets, *spans: tuple[int, int, float], messages=None) -> list[float]:
    made = tuple(Span(start=start, end=end, weight=weight) for start, end, weight in spans)
    response = Response(messages=messages or (Message.of("assistant", text),), spans=made)
    return token_weights(response, rendered, offsets).tolist()


def test_tokens_that_touch_a_span_take_its_weight():
    # "A red cat" + end of turn
    offsets = [(0, 1), (1, 5), (5, 9), (9, 12)]
    assert weights("A red cat", "A red cat<E>", offsets, (2, 5, 3.0)) == [1, 3, 1, 1]
    assert weights("A red cat", "A red cat<E>", offsets, (3, 7, 0.0)) == [1, 0, 0, 1]
    assert weights("A red cat", "A red cat<E>", offsets) == [1, 1, 1, 1]


def test_a_token_between_two_spans_takes_the_mean_of_its_marked_characters():
    assert weights("abcd", "abcd", [(0, 4)], (0, 1, 2.0), (1, 4, 4.0)) == [(2 + 3 * 4) / 4]
    assert weights("abcd", "abcd", [(0, 4)], (0, 1, 2.0)) == [2]


def test_the_later_of_overlapping_spans_counts():
    assert weights("abcd", "abcd", [(0, 2), (2, 4)], (0, 4, 2.0), (2, 4, 5.0)) == [2, 5]


def test_pieces_of_one_character_share_its_weight():
    assert weights("a猫b", "a猫b", [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], (1, 2, 7.0)) == [1, 7, 7, 7, 1]


def test_empty_tokens_weigh_one():
    assert weights("ab", "ab", [(0, 0), (0, 2)], (0, 2, 7.0)) == [1, 7]


def test_what_the_template_puts_around_the_answer_shifts_the_spans():
    assert weights("ab", " ab ", [(0, 1), (1, 2), (2, 3), (3, 4)], (1, 2, 7.0)) == [1, 1, 7, 1]


def test_blanks_that_the_template_strips_shift_the_spans_too():
    assert weights("  ab ", "ab<E>", [(0, 1), (1, 2), (2, 5)], (0, 3, 7.0)) == [7, 1, 1]


def test_spans_count_over_all_turns_of_the_assistant():
    turns = (Message.of("assistant", "ab"), Message.of("tool", "ab"), Message.of("assistant", "ba"))
    rendered = "ab<T>AB</T>ba"
    offsets = [(0, 2), (2, 5), (5, 7), (7, 11), (11, 12), (12, 13)]
    assert weights("", rendered, offsets, (3, 4, 7.0), messages=turns) == [1, 1, 1, 1, 1, 7]


def test_spans_without_a_place_are_refused():
    with pytest.raises(RowError, match=r"response.spans: span ends behind the response \(got 5\); it has 4"):
        weights("abcd", "abcd", [(0, 4)], (0, 5, 2.0))
    with pytest.raises(RowError, match="chat template changes the response, spans lose their place"):
        weights("abcd", "ABCD", [(0, 4)], (0, 1, 2.0))
