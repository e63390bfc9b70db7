"""Objectives that read whole next-token distributions, from recipe to trained model, on rows with pictures."""

import json
import re
import shutil

import pytest
from training_runs import assert_close, metrics, on_two_ranks, recipe, run, write_rows

from mmalign.engine.teacher_table import TeacherTable
from mmalign.errors import CheckpointError, ConfigError, ModelError
from mmalign.recipes import training
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
    on_two_ranks(values(tmp_path / "two", 2), sharded=sharded)
    assert_close(metrics(tmp_path / "two"), metrics(tmp_path / "one"), 5e-4)


# ---- a token-level reward model, and teachers ----------------------------------------------------------------------


@pytest.mark.parametrize("precomputed", [False, True], ids=["frozen copy", "table"])
def test_sail_weighs_tokens_by_a_second_frozen_model(tmp_path, tiny_model, rows, precomputed):
    values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=[{"name": "sail", "beta": 0.5}])
    values["model"] |= {"token_reward": str(tiny_model("qwen2_5_vl", seed=1)), "precompute_reference": precomputed}
    rewarded = run(values)
    values["train"]["output_dir"] = str(tmp_path / "plain")
    values["model"].pop("token_reward")
    values["objective"] = [{"name": "dpo", "beta": 0.5}]
    plain = run(values)
    assert rewarded.metrics[0]["loss"] == pytest.approx(plain.metrics[0]["loss"])  # at the start all log-ratios are 0
    assert rewarded.metrics[0]["grad_norm"] != pytest.approx(plain.metrics[0]["grad_norm"], rel=1e-3)


DISTILLED = [
    {"name": "dckd"},
    {"name": "adpa", "weight": 0.1},
    {"name": "aligndistil", "responses": "all", "weight": 0.1},
]


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_model, rows):
    """Return what makes a recipe with a teacher and a model to contrast it with, and held-out rows."""
    held_out = write_rows(tmp_path_factory.mktemp("held_out"), 3)
    teacher, contrast = (str(tiny_model("qwen2_5_vl", seed=seed)) for seed in (1, 2))

    def make(output_dir, **changes):
        values = recipe(
            tiny_model("qwen2_5_vl"), rows, output_dir, objective=DISTILLED, data__eval=str(held_out), **changes
        )
        values["model"]["teacher"] = {"path": teacher, "contrast": contrast, "top_k": 8}
        return values

    return make


def test_distillation_learns_from_a_table_and_comes_nearer_to_its_teacher(tmp_path, taught):
    done = run(taught(tmp_path / "run", train__max_steps=8, train__learning_rate=5e-3))
    first, last = done.metrics[0], done.metrics[-1]
    for name in ("dckd_chosen", "dckd_rejected", "aligndistil"):
        assert last[f"loss/{name}"] < first[f"loss/{name}"]
    assert "eval_loss/adpa" in last
    assert sorted(path.name for path in (tmp_path / "run" / "data" / "teacher-train").iterdir()) == [
        "contrast.float32", "done.uint8", "ids.int32", "manifest.json", "teacher.float32",
    ]  # fmt: skip


def test_a_table_that_was_cut_short_is_finished_and_one_of_another_teacher_is_refused(tmp_path, taught, tiny_model):
    run(taught(tmp_path / "whole"))
    values = taught(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TeacherTable, "write", dying_after(2, TeacherTable.write))
        with pytest.raises(KeyboardInterrupt):
            run(values)
    table = tmp_path / "run" / "data" / "teacher-train"
    assert 0 < sum((table / "done.uint8").read_bytes()) < 6
    run(values)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    again = taught(tmp_path / "run")
    again["model"]["teacher"]["path"] = str(tiny_model("qwen2_5_vl", seed=3))
    with pytest.raises(CheckpointError, match=r"teacher table .* is stale: what changed is teacher"):
        run(again, resume=True)


def dying_after(times, write):
    """Return a method that writes so often and then dies without a word."""
    left = [times]

    def write_or_die(self, *given):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, *given)

    return write_or_die


@pytest.mark.slow
def test_two_ranks_fill_one_table_and_learn_the_same(tmp_path, taught):
    def cut(size):
        return {"train__per_device_train_batch_size": size, "train__gradient_accumulation_steps": 1}

    run(taught(tmp_path / "one", **cut(4)))
    on_two_ranks(taught(tmp_path / "two", **cut(2)))
    assert_close(metrics(tmp_path / "two"), metrics(tmp_path / "one"), 5e-4)


def test_teachers_that_read_other_tokens_are_refused(tmp_path, taught, tiny_model):
    values = taught(tmp_path / "run")
    values["model"]["teacher"]["path"] = str(tiny_model("llama"))
    with pytest.raises(ModelError, match=r"model.teacher.path is a llama, the policy a qwen2_5_vl"):
        run(values)
    values = taught(tmp_path / "again")
    values["model"]["teacher"]["top_k"] = 100_000
    with pytest.raises(ConfigError, match=r"model.teacher.top_k: 100000 leaves no other token of a vocabulary of"):
        run(values)


def test_a_teacher_with_another_tokenizer_is_refused(tmp_path, taught, tiny_model):
    other = shutil.copytree(tiny_model("qwen2_5_vl", seed=1), tmp_path / "teacher")
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    word = next(word for word in vocabulary if word.isalpha())
    vocabulary[f"un{word}"] = vocabulary.pop(word)
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    values = taught(tmp_path / "run")
    values["model"]["teacher"]["contrast"] = str(other)
    with pytest.raises(ModelError, match=r"tokenizer of model.teacher.contrast .* has other tokens than the policy's"):
        run(values)


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        ("tdpo2", "precompute_reference: true", "reads whole next-token distributions of the reference, and a table"),
        ("sail", "freeze: []", "token_reward: is missing: objective sail weighs tokens by a reward model"),
        ("dpo", "token_reward: dir", "token_reward: objective dpo weighs no tokens by a reward model; remove this key"),
        ("dckd", "freeze: []", "teacher: is missing: objective dckd imitates a teacher; name one"),
        ("dpo", "teacher: {path: dir}", "teacher: objective dpo imitates no teacher; remove this key"),
        ("adpa", "teacher: {path: dir}", "contrast: is missing: objective adpa contrasts the teacher with a second"),
        ("dckd", "teacher: {path: dir, contrast: dir}", "contrast: objective dckd contrasts the teacher with nothing"),
    ],
)
def test_what_cannot_work_is_refused_by_name_and_line_before_a_model_is_loaded(tmp_path, objective, model, message):
    (tmp_path / "r.yaml").write_text(
        f"recipe: preference\nmodel:\n  path: nowhere\n  {model}\ndata: {{train: rows.jsonl}}\n"
        f"objective:\n  - {{name: {objective}}}\ntrain: {{output_dir: run, learning_rate: 1.0e-3}}\n"
    )
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        load_recipe(tmp_path / "r.yaml")
    assert re.search(r"r\.yaml:[2-4]: model\.", str(raised.value))


def test_a_program_that_skips_the_file_is_told_too(tmp_path, tiny_model, rows):
    with pytest.raises(ConfigError, match=r"model.teacher: is missing: objective dckd imitates a teacher"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=[{"name": "dckd"}]))


# ---- prompts without their earlier turns ---------------------------------------------------------------------------


def rows_with_history(directory, count, *, without=()):
    """Write rows of two turns about a picture; those in `without` have one turn."""
    path = write_rows(directory, count)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        if number not in without:
            answer = {"role": "assistant", "content": [{"type": "text", "text": "I like two ."}]}
            line["prompt"] += [answer, {"role": "user", "content": [{"type": "text", "text": "And now ?"}]}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("engine", ["tree", "flat"])
def test_nextquill_reads_prompts_with_and_without_their_earlier_turns(tmp_path, tiny_model, engine):
    rows = rows_with_history(tmp_path / "rows", 5, without=(3,))
    cuts = {"one": (4, 1), "four": (1, 4)}
    for name, (size, times) in cuts.items():
        sizes = {"train__per_device_train_batch_size": size, "train__gradient_accumulation_steps": times}
        settings = {"objective": [{"name": "nextquill"}], "engine": engine, "data__max_refused_share": 0.3, **sizes}
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / name, **settings))
    lines = metrics(tmp_path / "one")
    assert lines[-1]["loss/nextquill"] < lines[0]["loss/nextquill"]
    assert lines[0]["loss/nextquill_gained"] > 0
    assert_close(metrics(tmp_path / "four"), lines, 5e-4)
    refused = [json.loads(line) for line in (tmp_path / "one" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["row"] for line in refused] == [4]
    assert refused[0]["reason"].startswith("prompt has no turn before the last")


def test_a_model_that_caps_its_logits_is_refused_before_rows_are_prepared(tmp_path, tiny_model, rows, monkeypatch):
    monkeypatch.setattr(training, "prepare_rows", lambda *_: pytest.fail("rows were prepared"))
    model = tmp_path / "capped"
    shutil.copytree(tiny_model("paligemma"), model)
    settings = json.loads((model / "config.json").read_text())
    settings["text_config"]["final_logit_softcapping"] = 30.0
    (model / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"caps its logits \(at 30\).*other than nextquill, or history_weight: 0"):
        run(recipe(model, rows, tmp_path / "run", objective=[{"name": "nextquill"}]))
