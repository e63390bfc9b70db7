"""Objectives that read whole next-token distributions, from recipe to trained model, on rows with pictures."""

import re

import pytest
from training_runs import assert_close, in_processes, metrics, recipe, run, write_rows

from mmalign.errors import ConfigError
from mmalign.recipes.configuration import load_recipe

LORA = {"rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), 6, text_only=(1,))


TDPO = [{"name": "tdpo1", "beta": 0.5}, {"name": "tdpo2", "beta": 0.5, "weight": 0.5}]


@pytest.mark.parametrize("lora", [None, LORA], ids=["frozen copy", "adapter off"])
def test_tdpo_trains_against_either_reference(tmp_path, tiny_model, rows, lora):
    values = recipe(
        tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=TDPO, train__max_steps=4, train__learning_rate=5e-3
    )
    values["model"] |= {"lora": lora} if lora else {}
    done = run(values)
    assert done.metrics[0]["loss/tdpo1"] == pytest.approx(0.6931, abs=1e-4)  # ln 2: nothing has moved yet
    assert done.metrics[-1]["loss"] < done.metrics[0]["loss"]


def test_a_step_cut_into_micro_batches_learns_the_same_beside_an_objective_that_sees_the_whole(
    tmp_path, tiny_model, rows
):
    both = [*TDPO, {"name": "aot", "beta": 0.5}]
    cuts = {"one": (4, 1), "four": (1, 4)}
    for name, (size, times) in cuts.items():
        sizes = {"train__per_device_train_batch_size": size, "train__gradient_accumulation_steps": times}
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / name, objective=both, **sizes))
    assert_close(metrics(tmp_path / "four"), metrics(tmp_path / "one"), 5e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
def test_two_ranks_learn_the_same(tmp_path, tiny_model, rows, sharded):
    def values(output_dir, size):
        sizes = {"train__per_device_train_batch_size": size, "train__gradient_accumulation_steps": 1}
        made = recipe(tiny_model("qwen2_5_vl"), rows, output_dir, objective=TDPO, **sizes)
        made["model"]["lora"] = LORA
        return made

    run(values(tmp_path / "one", 4))
    in_processes(values(tmp_path / "two", 2), ranks=2, sharded=sharded)
    assert_close(metrics(tmp_path / "two"), metrics(tmp_path / "one"), 5e-4)


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        ("tdpo2", "precompute_reference: true", "reads whole next-token distributions of the reference, and a table"),
    ],
)
def test_what_cannot_work_is_refused_by_name_and_line_before_a_model_is_loaded(tmp_path, objective, model, message):
    (tmp_path / "r.yaml").write_text(
        f"recipe: preference\nmodel:\n  path: nowhere\n  {model}\ndata: {{train: rows.jsonl}}\n"
        f"objective:\n  - {{name: {objective}}}\ntrain: {{output_dir: run, learning_rate: 1.0e-3}}\n"
    )
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        load_recipe(tmp_path / "r.yaml")
    assert "r.yaml:4: model." in str(raised.value)
