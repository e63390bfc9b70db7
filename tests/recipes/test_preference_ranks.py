"""Two ranks give the curve of one, replicated (DDP) or sharded (FSDP2), also when one of them holds text only."""

import shutil

import pytest
from training_runs import (
    assert_close,
    assert_same_weights,
    final_weights,
    in_processes,
    metrics,
    recipe,
    run,
    write_rows,
)

CUTS = {
    1: {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
    2: {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2},
}
TABLE = {"model__precompute_reference": True}
LORA = {"model__lora": {"rank": 4, "alpha": 8.0}, "model__freeze": ["vision"]}


@pytest.fixture
def settings(tmp_path, tiny_model):
    """Of every four rows two are text, and the short last step of the epoch leaves one rank with a filler."""
    rows = write_rows(tmp_path / "rows", 9, text_only=(1, 3, 5, 7))
    held_out = write_rows(tmp_path / "held_out", 3, text_only=(0,))

    def make(name, ranks, **changes):
        steps = {"train__shuffle": False, "train__max_steps": 4, "train__save_steps": 2}
        changes = {**CUTS[ranks], **steps, "data__eval": str(held_out), **changes}
        return recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / name, **changes)

    return make


def assert_same_training(one, two):
    assert_close(metrics(two)[:1], metrics(one)[:1], 1e-5)
    assert_close(metrics(two), metrics(one), 5e-4)
    first, second = final_weights(one), final_weights(two)
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max() for name in first) < 2e-3  # of 4 steps of 1e-3 each


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, {**LORA, **TABLE}], ids=["everything trained", "adapters, precomputed reference"])
def test_two_ranks_give_the_curve_of_one(tmp_path, settings, kind):
    run(settings("one", 1, **kind))
    in_processes(settings("two", 2, **kind), ranks=2)
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_ranks_that_share_the_weights_give_the_curve_of_one(tmp_path, settings):
    run(settings("one", 1, **TABLE))
    in_processes(settings("two", 2, **TABLE), ranks=2, sharded=True)
    assert_same_training(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_ranks_that_share_the_weights_resume_bit_for_bit(tmp_path, settings):
    run(settings("one", 1, **LORA))
    in_processes(settings("two", 2, **LORA), ranks=2, sharded=True)
    assert_same_training(tmp_path / "one", tmp_path / "two")
    curve, weights = metrics(tmp_path / "two"), final_weights(tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "two" / "final")
    in_processes(settings("two", 2, **LORA), "--resume", ranks=2, sharded=True)
    assert metrics(tmp_path / "two") == curve
    assert_same_weights(final_weights(tmp_path / "two"), weights)
