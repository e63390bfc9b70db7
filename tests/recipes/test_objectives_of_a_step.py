"""Objectives that compare across a step or remember: the same run however rows are cut and dealt, and when resumed."""

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

from mmalign.train.state import load_memory

EVERY_KIND = [
    {"name": "aot", "beta": 0.5},
    {"name": "aot_unpaired", "beta": 0.5, "weight": 0.5},
    {"name": "kto_pair", "beta": 0.5},
    {"name": "bco", "beta": 0.5},
    {"name": "wpo", "beta": 0.5},
    {"name": "sampo", "beta": 0.5},
]
CUTS = {
    "one batch": {"train__per_device_train_batch_size": 4, "train__gradient_accumulation_steps": 1},
    "four batches": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
    "two ranks": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """Six rows a pass of four and two: the short step leaves a second rank with one row."""
    directory = tmp_path_factory.mktemp("rows")
    rows = write_rows(directory / "rows", 6, text_only=(1, 3))
    held_out = write_rows(directory / "held_out", 3, text_only=(0,))

    def make(output_dir, cut, **changes):
        steps = {"train__shuffle": False, "train__max_steps": 4, "train__save_steps": 2, "data__eval": str(held_out)}
        changes = {"objective": EVERY_KIND, **CUTS[cut], **steps, **changes}
        return recipe(tiny_model("qwen2_5_vl"), rows, output_dir, **changes)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings):
    """A run whose steps are single batches."""
    output_dir = tmp_path_factory.mktemp("whole") / "run"
    run(settings(output_dir, "one batch"))
    return output_dir


def test_a_step_cut_into_micro_batches_learns_the_same(tmp_path, settings, whole):
    run(settings(tmp_path / "run", "four batches", train__per_device_eval_batch_size=4))
    assert_close(metrics(tmp_path / "run")[:1], metrics(whole)[:1], 1e-5)
    assert_close(metrics(tmp_path / "run"), metrics(whole), 5e-4)


@pytest.mark.slow
def test_two_ranks_learn_the_same(tmp_path, settings, whole):
    in_processes(settings(tmp_path / "run", "two ranks"), ranks=2)
    assert_close(metrics(tmp_path / "run")[:1], metrics(whole)[:1], 1e-5)
    assert_close(metrics(tmp_path / "run"), metrics(whole), 5e-4)


def test_held_out_rows_are_one_step_however_they_are_cut(tmp_path, settings, whole):
    run(settings(tmp_path / "run", "one batch", train__per_device_eval_batch_size=1, train__max_steps=1))
    run(settings(tmp_path / "again", "one batch", train__per_device_eval_batch_size=3, train__max_steps=1))
    assert_close(metrics(tmp_path / "run"), metrics(tmp_path / "again"), 1e-5)


def test_what_is_remembered_is_in_the_checkpoint_and_a_resumed_run_goes_on_with_it(tmp_path, settings, whole):
    memory = load_memory(whole / "checkpoints" / "step-00000002" / "memory.safetensors")["bco"]
    assert memory["reward_count"].item() == 2 * (4 + 2)  # both responses of four rows and of two
    assert memory["reward_total"].item() != 0
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "run" / "final")
    run(settings(tmp_path / "run", "one batch"), resume=True)
    assert metrics(tmp_path / "run") == metrics(whole)
    assert_same_weights(final_weights(tmp_path / "run"), final_weights(whole))
