"""Rows whose only answer is judged good or bad: KTO and its kin learn from them, with pictures, in any cut."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import assert_close, assert_same_run, metrics, on_two_ranks, recipe, run, run_until, write_rows

from mmalign.errors import DataError
from mmalign.train.loader import BatchReader, filler_tree
from mmalign.train.mismatch import lenders, with_answer_of_another
from mmalign.train.rows import COLUMNS

KTO = [{"name": "kto", "beta": 0.5}]
RESPONSE_TOKENS = COLUMNS.index("response_tokens")
CUTS = {
    "one batch": {"train__per_device_train_batch_size": 4, "train__gradient_accumulation_steps": 1},
    "four batches": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
    "two ranks": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2},
}


def judged_rows(directory, count, *, paired=()):
    """Write rows of TRL's unpaired kind, good and bad in turn, and pairs where `paired` says so."""
    path = write_rows(directory, count, text_only=(1,))
    lines = []
    for number, line in enumerate(path.read_text().splitlines()):
        row = json.loads(line)
        if number not in paired:
            good, bad = row.pop("chosen"), row.pop("rejected")
            row |= {"completion": (bad, good)[number % 2], "label": number % 2 == 1}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """Six rows, one of them a pair: a step of four and a short one of two."""
    rows = judged_rows(tmp_path_factory.mktemp("rows"), 6, paired=(2,))
    held_out = judged_rows(tmp_path_factory.mktemp("held_out"), 5)

    def make(output_dir, cut="one batch", **changes):
        steps = {"train__shuffle": False, "train__max_steps": 4, "train__save_steps": 2, "data__eval": str(held_out)}
        return recipe(tiny_model("qwen2_5_vl"), rows, output_dir, **{"objective": KTO, **CUTS[cut], **steps, **changes})

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings):
    output_dir = tmp_path_factory.mktemp("whole") / "run"
    run(settings(output_dir))
    return output_dir


def test_judged_answers_are_pushed_apart(whole):
    first, last = metrics(whole)[0], metrics(whole)[-2]
    assert first["loss"] == pytest.approx(0.5, abs=1e-6)  # policy and reference are one
    assert first["rewards/baseline"] == 0
    assert last["rewards/chosen"] > last["rewards/rejected"] + 1
    assert last["loss"] < 0.5


@pytest.mark.parametrize(
    "changes",
    [
        {"cut": "four batches"},
        {"engine": "flat"},
        {"model__precompute_reference": True},
    ],
    ids=["four batches", "separate rows", "a table of the reference"],
)
def test_the_same_is_learnt_whatever_way_it_is_computed(tmp_path, settings, whole, changes):
    run(settings(tmp_path / "run", **changes))
    assert_close(metrics(tmp_path / "run")[:1], [_like(metrics(tmp_path / "run")[0], metrics(whole)[0])], 1e-5)
    for one, other in zip(metrics(tmp_path / "run"), metrics(whole), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=5e-4)
        assert one["rewards/baseline"] == pytest.approx(other["rewards/baseline"], abs=5e-4)


def _like(one, other):
    """Return `other` with the number of computed tokens of `one`, which the engine decides."""
    return {**other, "num_tokens": one["num_tokens"]}


@pytest.mark.slow
def test_two_ranks_learn_the_same(tmp_path, settings, whole):
    on_two_ranks(settings(tmp_path / "run", "two ranks"))
    assert_close(metrics(tmp_path / "run")[:1], metrics(whole)[:1], 1e-5)
    assert_close(metrics(tmp_path / "run"), metrics(whole), 5e-4)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path, settings, whole, monkeypatch):
    run_until(3, settings(tmp_path / "run"), monkeypatch)
    run(settings(tmp_path / "run"), resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_every_objective_for_judged_answers_trains_beside_likelihood_of_the_good_ones(tmp_path, settings):
    objective = [{"name": "apo_zero_unpaired"}, {"name": "bco_unpaired"}, {"name": "sft", "weight": 0.1}]
    done = run(settings(tmp_path / "run", objective=objective, train__save_steps=None))
    assert {"loss/apo_zero_unpaired", "loss/bco_unpaired", "loss/sft"} <= done.metrics[0].keys()
    assert done.metrics[-1]["eval_loss"] < done.metrics[0]["loss"]


@pytest.mark.parametrize("objective", [[{"name": "dpo"}], [{"name": "simpo"}, {"name": "sft"}]], ids=["dpo", "simpo"])
def test_judged_rows_are_refused_by_objectives_that_compare(tmp_path, settings, objective):
    """Of the six rows dpo keeps the pair alone; likelihood takes the good answers too, and never a bad one."""
    values = settings(tmp_path / "run", objective=objective, train__max_steps=1, data__eval=None)
    values["data"]["max_refused_share"] = 0.9
    run(values)
    refused = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert {line["reason"] for line in refused} == {"row gives the objective nothing to compare"}
    assert [line["row"] for line in refused] == ([1, 2, 4, 5, 6] if objective[0]["name"] == "dpo" else [1, 5])
    assert "answers judged one by one are for kto" in refused[0]["hint"]


def test_a_borrowed_answer_is_cut_where_the_bound_on_tokens_is_and_counts_in_the_prepared_lengths(
    tmp_path, settings, monkeypatch
):
    """The prepared lengths are those of the trees, whose rows all fit."""
    seen = {}
    read = BatchReader.__getitem__

    def remember(reader, rows):
        loaded = read(reader, rows)
        seen.update(zip(rows, loaded.batch.response_lengths.sum(1).tolist(), strict=True))
        seen["rows"] = reader.rows
        return loaded

    monkeypatch.setattr(BatchReader, "__getitem__", remember)
    run(settings(tmp_path / "free", data__eval=None, train__save_steps=None))
    rows = seen.pop("rows")
    assert seen == dict(enumerate(rows.lengths[:, 0, RESPONSE_TOKENS].tolist()))
    assert rows.responses_per_row == (1, 2)
    prompt, responses = rows.lengths[:, 0, COLUMNS.index("prompt_tokens")], dict(rows.table_rows())
    free, own = dict(seen), max(prompt[row] + max(lengths[:-1]) for row, lengths in enumerate(responses.values()))
    seen.clear()
    run(settings(tmp_path / "bound", data__eval=None, train__save_steps=None, data__max_length=int(own)))
    rows = seen.pop("rows")
    assert seen == dict(enumerate(rows.lengths[:, 0, RESPONSE_TOKENS].tolist()))
    assert len(seen) == 6
    assert sum(seen.values()) < sum(free.values())


def test_every_row_borrows_from_another_and_lends_once():
    for count in (2, 3, 97):
        lender = lenders(count, "train")
        assert sorted(lender.tolist()) == list(range(count))
        assert (lender != np.arange(count)).all()
    for split, way_out in (("train", "add rows$"), ("eval", "add rows, or leave out data.eval$")):
        with pytest.raises(DataError, match=f"an answer to another one, and data.{split} has 1 row; .*{way_out}"):
            lenders(1, split)


def test_a_borrowed_answer_stands_behind_the_row_s_own_and_is_cut_by_its_end():
    tree = with_answer_of_another(filler_tree(3), torch.tensor([7, 8, 9]), max_length=4)
    assert [ids.tolist() for ids in tree.response_ids] == [[3], [7, 8]]
    assert tree.levels == (0, -1)


def test_a_borrowed_answer_has_no_score_and_no_number():
    row = replace(filler_tree(3), scores=(2.0,), numbers={"judge": (0.5,)})
    tree = with_answer_of_another(row, torch.tensor([7, 8, 9]), max_length=None)
    for given, own in ((tree.scores, 2.0), (tree.numbers["judge"], 0.5)):
        assert given == (own, pytest.approx(math.nan, nan_ok=True))


def test_rows_that_nobody_judged_are_refused(tmp_path, settings):
    path = judged_rows(tmp_path / "rows", 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    del lines[2]["label"]
    path.write_text("\n".join(map(json.dumps, lines)))
    values = settings(tmp_path / "run", data__train=str(path), data__eval=None, train__max_steps=1)
    values["data"]["max_refused_share"] = 0.5
    run(values)
    (refused,) = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert refused["reason"] == "answer stands alone and is not judged, and the objective reads judgements"
