"""The sampler: every row once an epoch, the same rows however they are cut, and no memory of earlier steps."""

import numpy as np
import pytest

from mmalign.errors import ConfigError
from mmalign.train.sampler import StepSampler

LENGTHS = [7, 3, 11, 5, 2, 13, 17, 19, 23, 29, 31]


def sampler(**changes) -> StepSampler:
    return StepSampler(**{"lengths": LENGTHS, "per_device_rows": 2, "accumulation": 2, "seed": 5, **changes})


def test_an_epoch_reads_every_row_once_and_keeps_its_short_last_step():
    order = sampler()
    steps = [order.rows(step).tolist() for step in range(order.steps_per_epoch)]
    assert [len(rows) for rows in steps] == [4, 4, 3]
    assert sorted(sum(steps, [])) == list(range(11))


def test_epochs_have_different_orders_and_the_same_seed_the_same_order():
    epochs = [np.concatenate([sampler().rows(3 * epoch + step) for step in range(3)]) for epoch in range(2)]
    assert not np.array_equal(*epochs)
    assert np.array_equal(epochs[1], np.concatenate([sampler().rows(step) for step in (3, 4, 5)]))
    assert not np.array_equal(sampler(seed=6).rows(0), sampler(seed=5).rows(0))


def test_any_step_can_be_asked_for_first():
    forwards = sampler()
    known = [forwards.micro_batches(step) for step in range(9)]
    assert [sampler().micro_batches(step) for step in reversed(range(9))] == known[::-1]


def test_without_shuffling_rows_keep_the_order_of_the_file_in_every_epoch():
    order = sampler(shuffle=False)
    assert order.rows(0).tolist() == [0, 1, 2, 3]
    assert order.rows(3).tolist() == [0, 1, 2, 3]


def test_rows_of_a_step_are_sorted_by_length_and_cut():
    assert sampler(shuffle=False).micro_batches(0) == ((2, 0), (3, 1))


def test_equal_lengths_stand_in_the_order_of_the_file():
    assert sampler(lengths=[4, 4, 4, 4], shuffle=False).micro_batches(0) == ((0, 1), (2, 3))


@pytest.mark.parametrize("cut", [(1, 8, 1), (2, 4, 1), (8, 1, 1), (4, 1, 2), (2, 2, 2), (1, 2, 4)])
def test_a_step_holds_the_same_rows_however_it_is_cut(cut):
    per_device_rows, accumulation, world_size = cut
    order = sampler(per_device_rows=per_device_rows, accumulation=accumulation, world_size=world_size)
    for step in range(4):
        dealt = [row for rank in range(world_size) for batch in order.micro_batches(step, rank) for row in batch]
        expected = sampler(per_device_rows=8, accumulation=1).rows(step)
        assert sorted(dealt) == sorted(expected.tolist())


def test_ranks_get_equal_numbers_and_the_missing_ones_are_fillers():
    order = sampler(per_device_rows=2, accumulation=1, world_size=4, shuffle=False)
    last = [order.micro_batches(1, rank) for rank in range(4)]
    assert last == [((10, 9),), ((8,),), ((),), ((),)]


def test_a_token_budget_bounds_the_padded_tokens_of_a_batch():
    order = sampler(per_device_rows=11, accumulation=1, shuffle=False, max_tokens_per_batch=40)
    batches = order.micro_batches(0)
    assert batches[0] == (10,)
    assert batches[-2:] == ((5, 2, 0), (3, 1, 4))
    assert all(len(batch) * LENGTHS[batch[0]] <= 40 for batch in batches)
    assert sorted(sum(batches, ())) == list(range(11))


def test_a_row_over_the_token_budget_runs_alone():
    assert sampler(lengths=[100, 3], max_tokens_per_batch=10, shuffle=False).micro_batches(0) == ((0,), (1,))


def test_the_length_of_a_run_comes_from_epochs_or_steps():
    assert sampler().total_steps(epochs=2.0, max_steps=None) == 6
    assert sampler().total_steps(epochs=0.5, max_steps=None) == 2
    assert sampler().total_steps(epochs=0.01, max_steps=None) == 1
    assert sampler().total_steps(epochs=None, max_steps=7) == 7


def test_no_rows_are_refused():
    with pytest.raises(ConfigError, match="no rows to train"):
        sampler(lengths=[])


def test_a_token_budget_balances_text_images_and_videos_over_micro_batches_and_ranks():
    """Eight texts of 30 tokens, six images of 300, two videos of 2,900: in all 7,840 tokens of one step."""
    lengths = [30] * 8 + [300] * 6 + [2900] * 2
    order = sampler(lengths=lengths, per_device_rows=4, accumulation=2, world_size=2, max_tokens_per_batch=3000)
    ranks = [order.micro_batches(0, rank) for rank in range(2)]
    tokens = [[sum(lengths[row] for row in batch) for batch in batches] for batches in ranks]
    # One video each; then all images (and as many texts as padded rows leave room for), beside the other texts.
    assert [len(batches) for batches in ranks] == [2, 2]
    assert [batch[0] for batch in tokens] == [2900, 2900]
    assert sorted(row for batches in ranks for batch in batches for row in batch) == list(range(16))
    assert all(len(batch) * max((lengths[row] for row in batch), default=0) <= 3000 for b in ranks for batch in b)
    assert max(map(sum, tokens)) < 1.6 * min(map(sum, tokens))
