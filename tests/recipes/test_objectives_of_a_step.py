"""Objectives that compare across a step or remember: the same run however rows are cut and dealt, and when resumed."""

import json
import shutil
from zlib import crc32

import pytest
import torch
from pictures import encoded, noise
from training_runs import (
    CutInFours,
    assert_close,
    assert_same_weights,
    final_weights,
    metrics,
    on_two_ranks,
    recipe,
    run,
    write_rows,
)

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.store import write_jsonl
from mmalign.train import step
from mmalign.train.state import load_memory

EVERY_KIND = [
    {"name": "aot", "beta": 0.5},
    {"name": "aot_unpaired", "beta": 0.5, "weight": 0.5},
    {"name": "kto_pair", "beta": 0.5},
    {"name": "bco", "beta": 0.5},
    {"name": "wpo", "beta": 0.5},
    {"name": "sampo", "beta": 0.5},
    {"name": "ddpo", "beta": 0.5},
    {"name": "lcpo", "beta": 0.5},
    {"name": "beta_dpo", "beta": 0.5},
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """Six rows a pass of four and two: the short step leaves a second rank with one row."""
    directory = tmp_path_factory.mktemp("rows")
    return CutInFours(tiny_model("qwen2_5_vl"), directory, 6, text_only=(1, 3), objective=EVERY_KIND)


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
    on_two_ranks(settings(tmp_path / "run", "two ranks"))
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


def test_held_out_rows_are_compared_as_many_at_a_time_as_a_step_of_training_has(tmp_path, settings, tiny_model):
    """The loss on held-out rows is the mean of what training would have had on them, whatever their own batch size."""
    rows = write_rows(tmp_path / "rows", 6, text_only=(1, 3))
    same = {"objective": [{"name": "kto_pair", "beta": 5.0}], "data__eval": str(rows), "train__learning_rate": 1e-12}
    ends = []
    for size in (1, 4):
        values = settings(tmp_path / f"run{size}", "one batch", **same, train__per_device_eval_batch_size=size)
        values["data"]["train"] = str(rows)
        values["model"]["reference"] = str(tiny_model("qwen2_5_vl", seed=3))
        run(values)
        ends.append(metrics(tmp_path / f"run{size}"))
    first, second = ends[0][:2]  # four rows and two, with weights that do not move
    assert ends[0][-1]["eval_loss"] == pytest.approx((4 * first["loss"] + 2 * second["loss"]) / 6, rel=1e-4)
    assert ends[1][-1]["eval_loss"] == pytest.approx(ends[0][-1]["eval_loss"], rel=1e-5)


def test_a_second_forward_meets_the_dropout_of_the_first(tmp_path, settings, monkeypatch):
    """In two micro-batches the step is looked at first; its values are those that the loss is then made of."""
    seen = []
    policy_logps = step._policy_logps

    def remember(learner, batch, beside):
        logps = policy_logps(learner, batch, beside)
        seen.append((batch.ids, learner.policy.training, logps.token_logps.detach().clone()))
        return logps

    monkeypatch.setattr(step, "_policy_logps", remember)
    noisy = {"model__lora": {"rank": 4, "alpha": 8.0, "dropout": 0.5}, "model__freeze": ["vision"]}
    objective = [{"name": "kto_pair", "beta": 5.0}]
    changes = {"objective": objective, "data__eval": None, "train__max_steps": 2, "train__learning_rate": 0.1}
    run(settings(tmp_path / "run", "four batches", **noisy, **changes))
    looked, learnt = seen[:4] + seen[8:10], seen[4:8] + seen[10:12]  # four micro-batches in step 1, two in step 2
    assert len(seen) == 12
    for (ids, training, first), (again, _, second) in zip(looked, learnt, strict=True):
        assert (ids, training) == (again, True)
        assert torch.equal(first, second)
    assert learnt[4][2].abs().sum() != 0


def test_nothing_of_the_policy_is_kept_between_the_survey_of_a_step_and_its_losses(tmp_path, settings, monkeypatch):
    kept = []
    look_first = step.look_first

    def remember(learner, loaded):
        seen, told = look_first(learner, loaded)
        kept.extend(seen)
        return seen, told

    monkeypatch.setattr(step, "look_first", remember)
    changes = {"objective": [{"name": "kto_pair"}], "data__eval": None, "train__max_steps": 1}
    run(settings(tmp_path / "run", "four batches", **changes))
    assert [set(vars(one)) for one in kept] == [{"reference", "beside", "noise"}] * 4
    assert all(one.reference is not None for one in kept)


LISTS = [
    {"name": "pro"},
    {"name": "plackett_luce"},
    {"name": "mm_dpo", "pairs": "best_rest"},
    {"name": "lcpo"},
    {"name": "beta_dpo"},
    {"name": "tpo"},
]


def scored_rows(path, scores):
    """Write one row for each tuple of scores, with pictures in the rows, by two annotators in turn."""
    rows = [
        Preference(
            id=f"row {number}",
            prompt=(Message.of("user", 0, "What is it?"),),
            media=(MediaRef(kind="image", content=encoded(noise(28, 56, seed=number))),),
            responses=tuple(Response.of(f"answer {k} of {number}", score=score) for k, score in enumerate(given)),
            tags={"annotator": "ab"[number % 2]},
        )
        for number, given in enumerate(scores)
    ]
    write_jsonl(path, rows)
    return path


def test_lists_with_scores_train_on_every_objective_that_reads_them(tmp_path, tiny_model):
    rows = scored_rows(tmp_path / "rows.jsonl", [(5.0, 4.0, 1.0), (3.0, 2.0, 2.0), (9.0, 1.0, 0.0), (2.0, 1.5, 0.5)])
    done = run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=LISTS, train__save_steps=1))
    first, last = done.metrics[0], done.metrics[-1]
    for name in ("pro", "pro_nll", "plackett_luce", "mm_dpo", "mm_dpo_nll", "lcpo", "beta_dpo", "tpo", "tpo_nll"):
        assert f"loss/{name}" in first
    assert last["loss"] < first["loss"]
    memory = load_memory(tmp_path / "run" / "checkpoints" / "step-00000001" / "memory.safetensors")
    assert memory["lcpo"]["annotators"].tolist() == sorted(crc32(name) for name in (b"a", b"b"))
    # Policy and reference are one in the first step: every label is believed right with the starting reliability.
    assert memory["lcpo"]["reliabilities"].tolist() == pytest.approx([0.9, 0.9])


def test_rows_without_the_scores_that_an_objective_reads_are_refused_for_one_reason(tmp_path, tiny_model):
    rows = scored_rows(tmp_path / "rows.jsonl", [(5.0, 4.0), (None, None), (3.0, None), (2.0, 1.0), (2.0, 1.0)])
    values = recipe(
        tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=[{"name": "mm_dpo"}], train__max_steps=1
    )
    values["data"]["max_refused_share"] = 0.5
    run(values)
    refused = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [line["row"] for line in refused] == [2, 3]
    assert {line["reason"] for line in refused} == {"response has no score, and the objective reads scores"}
