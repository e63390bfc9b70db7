"""What a step knows of itself: surveys of micro-batches put together in order, and handed to each with its place."""

from types import SimpleNamespace

import torch

from mmalign.train.survey import collect, told

ALONE = SimpleNamespace(num_processes=1)


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 1)


class TwoRanks:
    """The second of two ranks; the first has the rows 7, 8 and 9."""

    num_processes, process_index = 2, 1

    def gather(self, value):
        theirs = torch.tensor([3]) if value.dtype == torch.int64 else table(7, 8, 9)
        return torch.cat([theirs, value])


def test_micro_batches_follow_one_another_and_know_where_they_begin():
    together, starts = collect(ALONE, [{"aot": table(1, 2)}, {"aot": table()}, {"aot": table(3)}])
    assert together["aot"].tolist() == [[1], [2], [3]]
    assert starts == [{"aot": 0}, {"aot": 2}, {"aot": 2}]


def test_ranks_follow_one_another_without_what_filled_them_up():
    together, starts = collect(TwoRanks(), [{"aot": table(1)}, {"aot": table(2)}])
    assert together["aot"].tolist() == [[7], [8], [9], [1], [2]]
    assert starts == [{"aot": 3}, {"aot": 4}]


def test_a_rank_without_rows_still_sees_those_of_the_others():
    together, starts = collect(TwoRanks(), [{"aot": table()}])
    assert together["aot"].tolist() == [[7], [8], [9]]
    assert starts == [{"aot": 3}]


def test_parts_are_told_what_concerns_them():
    facts = told({"bco": {"mean": 1.0}}, {"aot": table(1)}, {"aot": 5})
    assert (facts["aot"].start, facts["aot"].survey.tolist(), facts["aot"].memory) == (5, [[1]], {})
    assert (facts["bco"].survey, facts["bco"].memory) == (None, {"mean": 1.0})
    assert told({}, {}, {}) == {}
