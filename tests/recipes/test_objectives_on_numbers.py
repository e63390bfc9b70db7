"""Objectives that read numbers of the rows, through whole runs on rows with pictures."""

import json
import math
import shutil

import pytest
from pictures import encoded, noise
from training_runs import (
    assert_close,
    assert_same_weights,
    final_weights,
    metrics,
    on_two_ranks,
    recipe,
    run,
)

from mmalign.errors import DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.store import write_jsonl
from mmalign.recipes import training
from mmalign.recipes.data_score import score
from mmalign.train.state import load_memory

GIVEN = {"win_rate": (0.9, 0.5, 0.1), "strength": (3, 2, 1), "judge": (1.0, 0.5, 0.2), "from_reference": (0, 1, 0)}


def written(path, count=6, responses=3):
    """Write rows with every number but those of other models; every second has a picture, the last of five too."""
    rows = []
    for number in range(count):
        picture = (MediaRef(kind="image", content=encoded(noise(28, 56, seed=number))),) if number % 2 == 0 else ()
        asked = Message.of("user", 0, "What is it?") if picture else Message.of("user", "What is it?")
        answers = tuple(
            Response.of(
                f"answer {k} {'indeed ' * (number % 3)}",
                score=3.0 - k,
                scores={name: values[k] * (1 if name != "judge" else number) for name, values in GIVEN.items()},
            )
            for k in range(responses)
        )
        rows.append(Preference(id=f"row {number}", prompt=(asked,), media=picture, responses=answers))
    write_jsonl(path, rows)
    return path


def test_a_model_scored_beforehand_is_the_reference_that_the_run_would_have_had(tmp_path, tiny_model):
    """infifpo_sum with the start as its one source is dpo, on rows with pictures, all the way through training."""
    model, rows = tiny_model("qwen2_5_vl"), written(tmp_path / "rows.jsonl", 6)
    score(rows, tmp_path / "scored.jsonl", model=model, name="start")
    fused = {"name": "infifpo_sum", "sources": ["start"], "clip": False, "count_reference": False}
    curves = []
    for source, spec, out in ((tmp_path / "scored.jsonl", fused, "a"), (rows, {"name": "dpo"}, "b")):
        done = run(recipe(model, source, tmp_path / out, objective=[spec], train__save_steps=9))
        curves.append([(line["loss"], line["rewards/margins"]) for line in done.metrics])
    for one, other in zip(*curves, strict=True):
        assert one == pytest.approx(other, abs=2e-5)


EVERY_ONE = ["infifpo", "infifpo_sum", "poft", "sppo", "irepo", "selm", "xpo", "cream", "spa", "scir", "crm", "eurus"]


def test_every_objective_on_numbers_trains_on_rows_with_pictures(tmp_path, tiny_model):
    model, rows = tiny_model("qwen2_5_vl"), written(tmp_path / "rows.jsonl")
    score(rows, tmp_path / "scored.jsonl", model=tiny_model("llava"), name="other")
    objective = [{"name": name} for name in EVERY_ONE] + [{"name": "sppo_single"}]
    done = run(recipe(model, tmp_path / "scored.jsonl", tmp_path / "run", objective=objective))
    assert all(f"loss/{spec['name']}" in done.metrics[0] for spec in objective)
    assert all(math.isfinite(value) for line in done.metrics for value in line.values())
    assert done.metrics[-1]["loss/poft"] < done.metrics[0]["loss/poft"]


def test_rows_without_the_numbers_stop_a_run_before_its_model_is_loaded(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(training, "load_start", lambda *_: pytest.fail("a model was loaded"))
    rows = written(tmp_path / "rows.jsonl", 3)
    with pytest.raises(DataError, match="response lacks a number that the objective reads: 3"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=[{"name": "poft"}]))
    refused = json.loads((tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()[0])
    assert "mmalign data score" in refused["hint"]


OF_A_STEP = [
    {"name": "crm", "beta": 0.5, "selected_share": 0.5},
    {"name": "spa", "beta": 0.5, "doubt": 0.3, "quantile": 0.5, "window": 6, "warmup_steps": 1},
    {"name": "infifpo", "sources": ["other"]},
    {"name": "poft", "sources": ["other"]},
    {"name": "bco_unpaired", "beta": 0.5},
    {"name": "kto", "beta": 0.5},
]
CUTS = {
    "one batch": {"train__per_device_train_batch_size": 4, "train__gradient_accumulation_steps": 1},
    "four batches": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
    "two ranks": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2},
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    """Six rows a pass of four and two: the short step leaves a second rank with one row, and then with a filler."""
    directory = tmp_path_factory.mktemp("rows")
    scored = directory / "scored.jsonl"
    score(written(directory / "rows.jsonl", 5), scored, model=tiny_model("llava"), name="other")

    def make(output_dir, cut):
        steps = {"train__shuffle": False, "train__max_steps": 4, "train__save_steps": 2}
        return recipe(tiny_model("qwen2_5_vl"), scored, output_dir, objective=OF_A_STEP, **CUTS[cut], **steps)

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings):
    """A run whose steps are single batches."""
    output_dir = tmp_path_factory.mktemp("whole") / "run"
    run(settings(output_dir, "one batch"))
    return output_dir


def test_a_step_cut_into_micro_batches_learns_the_same(tmp_path, settings, whole):
    run(settings(tmp_path / "run", "four batches"))
    assert_close(metrics(tmp_path / "run")[:1], metrics(whole)[:1], 1e-5)
    assert_close(metrics(tmp_path / "run"), metrics(whole), 5e-4)


@pytest.mark.slow
def test_two_ranks_one_of_them_with_a_filler_learn_the_same(tmp_path, settings, whole):
    on_two_ranks(settings(tmp_path / "run", "two ranks"))
    assert_close(metrics(tmp_path / "run")[:1], metrics(whole)[:1], 1e-5)
    assert_close(metrics(tmp_path / "run"), metrics(whole), 5e-4)


def test_a_resumed_run_goes_on_with_the_margins_that_spa_remembers(tmp_path, settings, whole):
    memory = load_memory(whole / "checkpoints" / "step-00000002" / "memory.safetensors")["spa"]
    assert memory["steps"].item() == 2
    assert memory["sizes"].tolist() == [12, 3]  # three pairs of each of four rows, then of one; twelve fill the window
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "run" / "final")
    run(settings(tmp_path / "run", "one batch"), resume=True)
    assert metrics(tmp_path / "run") == metrics(whole)
    assert_same_weights(final_weights(tmp_path / "run"), final_weights(whole))


def test_a_part_that_reads_one_response_gets_the_numbers_of_that_one(tmp_path, tiny_model):
    """poft reads the best alone; its loss at the start is known from the numbers."""
    model, rows = tiny_model("qwen2_5_vl"), written(tmp_path / "rows.jsonl", 1)
    score(rows, tmp_path / "scored.jsonl", model=model, name="start")
    spec = {"name": "poft", "sources": ["start"], "offset": 0.5}
    done = run(recipe(model, tmp_path / "scored.jsonl", tmp_path / "run", objective=[spec], train__max_steps=1))
    assert done.metrics[0]["loss"] == pytest.approx(math.log1p(math.exp(-0.5)), abs=1e-5)
