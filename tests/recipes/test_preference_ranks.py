"""Two ranks give the curve of one, replicated (DDP) or sharded (FSDP2), also when one of them holds text only."""

import shutil

import pytest
from training_runs import (
    CutInFours,
    assert_close,
    assert_same_weights,
    by_launcher,
    final_weights,
    metrics,
    on_two_ranks,
    run,
)

TABLE = {"model__precompute_reference": True}
LORA = {"model__lora": {"rank": 4, "alpha": 8.0}, "model__freeze": ["vision"]}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """Two rows of the first step are text, all of the second; the short third leaves one rank with a filler."""
    return CutInFours(tiny_model("qwen2_5_vl"), tmp_path_factory.mktemp("rows"), 9, text_only=(1, 3, 4, 5, 6, 7))


def assert_same_training(one, two):
    assert_close(metrics(two)[:1], metrics(one)[:1], 1e-5)
    assert_close(metrics(two), metrics(one), 5e-4)
    first, second = final_weights(one), final_weights(two)
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max() for name in first) < 2e-3  # of 4 steps of 1e-3 each


@pytest.mark.slow
def test_two_ranks_give_the_curve_of_one(tmp_path, settings):
    run(settings(tmp_path / "one", "four batches"))
    by_launcher(settings(tmp_path / "two", "two ranks"), ranks=2)
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_ranks_with_adapters_and_a_table_give_the_curve_of_one(tmp_path, settings):
    run(settings(tmp_path / "one", "four batches", **LORA, **TABLE))
    on_two_ranks(settings(tmp_path / "two", "two ranks", **LORA, **TABLE))
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_ranks_that_share_the_weights_give_the_curve_of_one(tmp_path, settings):
    run(settings(tmp_path / "one", "four batches", **TABLE))
    on_two_ranks(settings(tmp_path / "two", "two ranks", **TABLE), sharded=True)
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_ranks_that_share_the_weights_resume_bit_for_bit(tmp_path, settings):
    run(settings(tmp_path / "one", "four batches", **LORA))
    on_two_ranks(settings(tmp_path / "two", "two ranks", **LORA), sharded=True)
    assert_same_training(tmp_path / "one", tmp_path / "two")
    curve, weights = metrics(tmp_path / "two"), final_weights(tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "two" / "final")
    on_two_ranks(settings(tmp_path / "two", "two ranks", **LORA), resume=True, sharded=True)
    assert metrics(tmp_path / "two") == curve
    assert_same_weights(final_weights(tmp_path / "two"), weights)
