"""What a step computes does not depend on how it is cut, where the reference comes from, or what is reused."""

import pytest
from safetensors.torch import load_file
from training_runs import assert_close, metrics, recipe, run, write_rows

ROWS = 20


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), ROWS, text_only=(3, 8, 13))


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_model, rows):
    """The curve that all others must repeat: steps of 8 rows in one micro-batch each."""
    output_dir = tmp_path_factory.mktemp("straight") / "run"
    cut = {"train__per_device_train_batch_size": 8, "train__gradient_accumulation_steps": 1}
    run(recipe(tiny_model("qwen2_5_vl"), rows, output_dir, **cut))
    return metrics(output_dir)


@pytest.mark.parametrize(
    "cut",
    [
        {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 8},
        {"train__per_device_train_batch_size": 2, "train__gradient_accumulation_steps": 4},
        {
            "train__per_device_train_batch_size": 8,
            "train__gradient_accumulation_steps": 1,
            "train__max_tokens_per_batch": 130,
        },
    ],
    ids=["1 x 8", "2 x 4", "by tokens"],
)
def test_a_step_of_eight_rows_is_the_same_however_it_is_cut(tmp_path, tiny_model, rows, straight, cut):
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **cut))
    assert_close(metrics(tmp_path / "run"), straight, 2e-4)
    assert_close(metrics(tmp_path / "run")[:1], straight[:1], 1e-5)


def test_the_short_last_step_of_an_epoch_is_normalised_by_its_own_rows(straight):
    """20 rows in steps of 8: the third step has 4, and its loss is their mean, of the size of the others'."""
    assert [line["epoch"] for line in straight] == pytest.approx([1 / 3, 2 / 3, 1])
    assert 0.5 < straight[2]["loss"] / straight[1]["loss"] < 2
    assert straight[2]["num_tokens"] - straight[1]["num_tokens"] < straight[0]["num_tokens"]


def test_a_run_starts_with_nothing_preferred(straight):
    first = straight[0]
    assert first["rewards/margins"] == first["rewards/chosen"] == first["rewards/rejected"] == 0
    assert first["loss/dpo"] == pytest.approx(0.693147, abs=1e-6)
    assert first["loss"] == pytest.approx(first["loss/dpo"] + 0.1 * first["loss/sft"], rel=1e-6)


@pytest.mark.parametrize(
    "way",
    [
        {"model__precompute_reference": True},
        {"vision__share": "off"},
        {"engine": "flat"},
        {"data__num_workers": 2},
        {"train__gradient_checkpointing": True},
    ],
    ids=["precomputed reference", "vision not shared", "separate rows", "loader processes", "checkpointing"],
)
def test_ways_to_compute_the_same_curve(tmp_path, tiny_model, rows, straight, way):
    cut = {"train__per_device_train_batch_size": 4, "train__gradient_accumulation_steps": 2}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **cut, **way))
    assert_close(metrics(tmp_path / "run"), straight, 2e-4)


def test_another_model_as_reference_sets_the_margins_apart_from_the_start(tmp_path, tiny_model, rows):
    reference = tiny_model("qwen2_5_vl", seed=3)
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", model__reference=str(reference)))
    assert metrics(tmp_path / "run")[0]["rewards/margins"] != 0


def test_the_start_named_as_reference_is_the_default_reference(tmp_path, tiny_model, rows):
    start = tiny_model("qwen2_5_vl")
    run(recipe(start, rows, tmp_path / "default"))
    run(recipe(start, rows, tmp_path / "named", model__reference=str(start)))
    assert_close(metrics(tmp_path / "named"), metrics(tmp_path / "default"), 1e-6)


def test_a_second_epoch_with_cached_features_repeats_the_curve_without_cache(tmp_path, tiny_model, rows):
    frozen = {"model__freeze": ["vision"], "train__max_steps": 6, "train__gradient_accumulation_steps": 4}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "plain", **frozen))
    run(
        recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "cached", **frozen, vision__cache_dir=str(tmp_path / "cache"))
    )
    assert_close(metrics(tmp_path / "cached"), metrics(tmp_path / "plain"), 2e-4)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == ROWS - 3


def test_objectives_without_reference_load_no_second_model(tmp_path, tiny_model, rows, monkeypatch):
    from mmalign.recipes import references

    monkeypatch.setattr(references, "FrozenCopy", None)
    run(
        recipe(
            tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=[{"name": "simpo", "beta": 2.0, "gamma": 1.0}]
        )
    )
    assert "rewards/margins" in metrics(tmp_path / "run")[0]


def test_held_out_rows_are_evaluated_when_due_and_at_the_end(tmp_path, tiny_model, rows):
    held_out = write_rows(tmp_path / "held_out", 5)
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", data__eval=str(held_out), train__eval_steps=2))
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "eval_loss" in line] == [2, 3]
    assert {"eval_rewards/margins", "eval_rewards/accuracies", "eval_logps/chosen"} <= lines[1].keys()


def test_evaluation_does_not_depend_on_how_it_is_cut_and_changes_nothing(tmp_path, tiny_model, rows, straight):
    held_out = write_rows(tmp_path / "held_out", 5)
    for size in (1, 4):
        cut = {"train__per_device_train_batch_size": 8, "train__gradient_accumulation_steps": 1}
        cut |= {"train__per_device_eval_batch_size": size, "data__eval": str(held_out), "train__eval_steps": 1}
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / f"run{size}", **cut))
    one, four = metrics(tmp_path / "run1"), metrics(tmp_path / "run4")
    assert_close(one, four, 1e-5)
    assert_close([{k: v for k, v in line.items() if not k.startswith("eval_")} for line in one], straight, 1e-6)


def test_momentum_moves_the_vision_tower_in_a_step_of_text_alone(tmp_path, tiny_model):
    """As it does on several ranks, which have gradients of zero there."""
    rows = write_rows(tmp_path / "rows", 8, text_only=(4, 5, 6, 7))
    settings = {"train__shuffle": False, "train__max_steps": 2, "train__save_steps": 1}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **settings))
    folders = [tmp_path / "run" / "checkpoints" / f"step-0000000{step}" / "model" for step in (1, 2)]
    pictures, text = (load_file(folder / "model.safetensors") for folder in folders)
    moved = [(text[name] - weight).abs().max().item() for name, weight in pictures.items() if "visual" in name]
    # Two thirds of the second step's rate, 5e-4: see the moments by hand in tests/train/test_optim.py.
    assert len(moved) > 5 and max(moved) == pytest.approx(0.67 * 5e-4, rel=0.02)
