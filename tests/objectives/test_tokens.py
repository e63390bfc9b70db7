"""Which tokens of a pair count."""

import torch

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.tokens import edited, equal_numbers, scramble, tail


def pairs_of(mask, tokens=None):
    return GroupLogps(torch.zeros(mask.shape), mask, tokens=tokens)


def mask_of(*lengths):
    longest = max(max(pair) for pair in lengths)
    return torch.arange(longest) < torch.tensor(lengths)[..., None]


def test_the_tail_begins_where_the_shorter_response_ends():
    weights = tail(0.25)(pairs_of(mask_of((3, 5), (4, 2))), torch.tensor([1, 2]))
    assert weights[0, 1].tolist() == [1, 1, 1, 0.25, 0.25]
    assert weights[1, 0].tolist() == [1, 1, 0.25, 0.25, 0.25]
    assert weights[0, 0, :3].tolist() == [1, 1, 1]
    assert tail(1.0) is None


def test_as_many_tokens_are_drawn_as_the_shorter_response_has():
    mask = mask_of((3, 11), (7, 7), (13, 1))
    drawn = equal_numbers(pairs_of(mask), torch.tensor([5, 6, 7])) * mask
    assert drawn.sum(-1).tolist() == [[3, 3], [7, 7], [1, 1]]
    assert (drawn[0, 0, :3] == 1).all()


def test_draws_differ_between_rows_and_are_the_same_for_the_same_row():
    mask = mask_of((5, 29)).expand(50, 2, 29)
    seeds = torch.arange(50)
    drawn = equal_numbers(pairs_of(mask), seeds)[:, 1]
    assert torch.equal(drawn, equal_numbers(pairs_of(mask), seeds)[:, 1])
    assert torch.equal(drawn[:7], equal_numbers(pairs_of(mask[:7]), seeds[:7])[:, 1])
    assert len({tuple(row.tolist()) for row in drawn}) == 50


def test_every_place_is_drawn_about_equally_often():
    """5 of 20 tokens in 4000 rows: each place 1000 times, with a standard deviation of 27."""
    mask = mask_of((5, 20)).expand(4000, 2, 20)
    counts = equal_numbers(pairs_of(mask), torch.arange(4000))[:, 1].sum(0)
    assert (counts - 1000).abs().max() < 4 * 27


def test_scramble_is_splitmix64():
    """The first outputs of the published generator from state 0."""
    increments = torch.tensor([0, -7046029254386353131])  # 0 and 0x9E3779B97F4A7C15 as a signed integer
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    assert [number % 2**64 for number in scramble(increments).tolist()] == expected


def test_what_one_response_has_and_the_other_has_not_weighs_more():
    """1 2 3 [9] 4 5 6 7 against 1 2 3 [8 8] 4 5 6 7 [1 2]: the last two stand in both, but not in a run of three."""
    tokens = torch.tensor([[[1, 2, 3, 9, 4, 5, 6, 7, 0, 0, 0], [1, 2, 3, 8, 8, 4, 5, 6, 7, 1, 2]]])
    mask = mask_of((8, 11))
    weights = edited(5.0)(pairs_of(mask, tokens), torch.tensor([0]))
    assert weights[0, 0, :8].tolist() == [1, 1, 1, 5, 1, 1, 1, 1]
    assert weights[0, 1].tolist() == [1, 1, 1, 5, 5, 1, 1, 1, 1, 5, 5]
