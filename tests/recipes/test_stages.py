"""Runs in stages: what passes from one to the next, exactly, and what a killed run leaves and finds again."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from processes import started
from safetensors.torch import load_file
from training_runs import (
    assert_close,
    assert_same_run,
    assert_same_weights,
    configured,
    final_weights,
    metrics,
    on_two_ranks,
    recipe,
    run,
    wait_for_line,
    write_rows,
)

from mmalign.config.load import load
from mmalign.config.stages import stages_of
from mmalign.engine.load import load_model
from mmalign.engine.policy import Policy
from mmalign.errors import CheckpointError, ConfigError, DataError
from mmalign.recipes import preference, stage_directories, stages
from mmalign.train import resume as resuming
from mmalign.train.checkpoint import latest

ROWS, STEPS = 8, 4
LORA = {"rank": 4, "alpha": 8.0}
KEPT = ({}, {"adapter": "keep", "optimizer": "kept"})
SCORE_GAPS = [0.5, 3.0, 1.0, 4.0, 2.0, 5.0, 0.25, 6.0]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Pairs with pictures, a margin each, and the tag of an even or an odd row."""
    path = write_rows(tmp_path_factory.mktemp("rows"), ROWS, text_only=(3,))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        line |= {"id": f"row-{number}", "margin": SCORE_GAPS[number], "tags": {"side": "odd" if number % 2 else "even"}}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def settings(tiny_model, rows):
    """A run of two stages, easy pairs before hard ones."""

    def make(output_dir, *changed, **changes):
        easy = {"name": "easy", "data": {"select": {"score_gap": {"above": 2}}}}
        hard = {"name": "hard", "data": {"select": {"score_gap": {"at_most": 2}}}, "train": {"learning_rate": 5e-4}}
        for stage, change in zip((easy, hard), changed, strict=False):
            stage |= change
        changes = {"train__max_steps": STEPS, "train__save_steps": 2, "model__lora": dict(LORA), **changes}
        changes = {"train__per_device_train_batch_size": 1, **changes, "stages": [easy, hard]}
        return recipe(tiny_model("qwen2_5_vl"), rows, output_dir, **changes)

    return make


@pytest.fixture(scope="module")
def straight(tmp_path_factory, settings):
    """A run that nobody interrupts."""
    output_dir = tmp_path_factory.mktemp("straight") / "run"
    run(settings(output_dir))
    return output_dir


@pytest.fixture(scope="module")
def kept_straight(tmp_path_factory, settings):
    """The same with adapter and optimiser kept."""
    output_dir = tmp_path_factory.mktemp("kept") / "run"
    run(settings(output_dir, *KEPT))
    return output_dir


def stage(output_dir, name):
    return output_dir / "stages" / name


def assert_same_stages(one, other):
    for name in ("1-easy", "2-hard"):
        assert_same_run(stage(one, name), stage(other, name))
    assert_same_weights(final_weights(one), final_weights(other))


def logps(model, batch):
    """Token log-probs of a batch under a model."""
    with torch.no_grad():
        return Policy(model)(batch)


def batch_of(values, name):
    """The first rows of a stage as the policy sees them."""
    from accelerate import PartialState

    from mmalign.objectives.compose import build
    from mmalign.recipes import training
    from mmalign.train.rundir import RunDirectory

    (made,) = [one for one in stages_of(configured(values)) if one.name == name]
    objective = build(made.recipe.objective)
    prepared = training.prepare_rows(
        made.recipe, RunDirectory(made.directory), made.recipe.model.path, objective, PartialState()
    )
    reader = training.reader_of(prepared.train, prepared.train_tokeniser, objective, read_again=False)
    return reader[(0, 1)].batch


# ---- what a stage is -------------------------------------------------------------------------------------------------


def test_a_stage_trains_on_its_rows_with_its_learning_rate(straight):
    facts = [
        json.loads((stage(straight, name) / "data/train/prepared.json").read_text()) for name in ("1-easy", "2-hard")
    ]
    assert [fact["rows"] for fact in facts] == [4, 4]
    assert [fact["not_selected"] for fact in facts] == [{"score_gap above 2": 4}, {"score_gap at most 2": 4}]
    ids = [
        {json.loads(line)["id"] for line in (stage(straight, name) / "data/train/rows.jsonl").read_text().splitlines()}
        for name in ("1-easy", "2-hard")
    ]
    assert ids == [{"row-1", "row-3", "row-5", "row-7"}, {"row-0", "row-2", "row-4", "row-6"}]
    peaks = [max(line["learning_rate"] for line in metrics(stage(straight, name))) for name in ("1-easy", "2-hard")]
    assert peaks == [1e-3, 5e-4]


def test_the_recipe_of_a_stage_runs_by_itself_and_gives_the_same(straight, tmp_path):
    config = load(stage(straight, "2-hard") / "config.yaml", [f"train.output_dir={tmp_path / 'alone'}"])
    preference.run(config)
    assert_same_run(tmp_path / "alone", stage(straight, "2-hard"))


def test_the_result_of_the_run_is_that_of_the_last_stage_and_takes_no_room(straight):
    for path in (stage(straight, "2-hard") / "final").iterdir():
        assert os.path.samefile(path, straight / "final" / path.name)


def test_the_report_of_all_stages_links_to_each(straight):
    page = (straight / "report.html").read_text()
    assert "easy, its adapter merged" in page
    assert 'href="stages/2-hard/report.html"' in page
    assert "4 of 8" in page
    assert "0.0005" in page
    assert page.count(">finished<") == 2


def test_imitation_and_preferences_follow_each_other_in_either_order(tmp_path, settings):
    imitate, prefer = {"recipe": "sft", "objective": None}, {}
    for name, changed in (("sft_first", (imitate, prefer)), ("preferences_first", (prefer, imitate))):
        result = run(settings(tmp_path / name, *changed, train__max_steps=1))
        compares = {line["stage"]: "rewards/margins" in line for line in result.metrics}
        assert compares == {"easy": name == "preferences_first", "hard": name == "sft_first"}
        assert [line["step"] for line in result.metrics] == [1, 1]


# ---- weights, reference and optimiser between stages -----------------------------------------------------------------


def test_merged_weights_give_the_log_probs_of_model_and_adapter(straight, settings):
    batch = batch_of(settings(straight), "hard")
    with_adapter = logps(load_model(stage(straight, "1-easy") / "final"), batch)
    merged = logps(load_model(stage(straight, "2-hard") / "start"), batch)
    assert torch.allclose(merged, with_adapter, atol=1e-5, rtol=1e-6)
    started = logps(load_model(configured(settings(straight)).model.path), batch)
    assert (with_adapter - started).abs().max() > 1e-3  # the adapter does something


def test_merged_weights_are_the_sum_by_hand(straight, settings):
    start = load_file(next((stage(straight, "2-hard") / "start").glob("*.safetensors")))
    base = load_file(next(Path(configured(settings(straight)).model.path).glob("*.safetensors")))
    adapter = final_weights(stage(straight, "1-easy"))
    changed = [name for name in base if not torch.equal(base[name], start[name])]
    assert len(changed) == len(adapter) // 2 > 0
    for name in changed:
        ending = name.removesuffix(".weight").split("layers.", 1)[1]
        (down,) = [tensor for key, tensor in adapter.items() if f"layers.{ending}.lora_A" in key]
        (up,) = [tensor for key, tensor in adapter.items() if f"layers.{ending}.lora_B" in key]
        expected = base[name].double() + 8.0 / 4 * up.double() @ down.double()
        assert torch.allclose(start[name].double(), expected, atol=1e-7)


def test_the_reference_begins_anew_with_the_stage(straight):
    assert [metrics(stage(straight, name))[0]["rewards/margins"] for name in ("1-easy", "2-hard")] == [0.0, 0.0]


def test_a_kept_adapter_goes_on_bit_for_bit_and_its_start_is_the_reference(tmp_path, settings):
    values = settings(tmp_path / "run", {}, {"adapter": "keep", "train": {"max_steps": 1, "learning_rate": 1e-30}})
    run(values)
    before, after = (final_weights(stage(tmp_path / "run", name)) for name in ("1-easy", "2-hard"))
    assert_same_weights(before, after)  # the learning rate is too small to move a weight
    assert not (stage(tmp_path / "run", "2-hard") / "start").exists()
    assert metrics(stage(tmp_path / "run", "2-hard"))[0]["rewards/margins"] == 0.0


def test_a_kept_adapter_may_be_compared_with_the_first_start_without_a_second_model(tmp_path, settings, monkeypatch):
    from mmalign.recipes import references

    monkeypatch.setattr(references, "load_model", None)
    run(settings(tmp_path / "run", {}, {"adapter": "keep", "reference": "first_start"}))
    margin = metrics(stage(tmp_path / "run", "2-hard"))[0]["rewards/margins"]
    assert margin != 0.0


def test_the_first_start_of_merged_stages_is_another_model(tmp_path, settings, straight):
    run(settings(tmp_path / "run", {}, {"reference": "first_start"}))
    first = metrics(stage(tmp_path / "run", "2-hard"))[0]
    assert first["rewards/margins"] != 0.0
    policy = metrics(stage(straight, "2-hard"))[0]
    assert first["logps/chosen"] == pytest.approx(policy["logps/chosen"], abs=1e-4)


def test_all_weights_pass_on_and_a_kept_optimiser_with_them(tmp_path, settings):
    """One stage of four steps on the same rows is two of two steps, at a constant learning rate."""
    kept = {"train": {}, "optimizer": "kept", "data": {}}
    changes = {"model__lora": None, "train__lr_scheduler_type": "constant", "train__shuffle": False}
    changes["train__gradient_accumulation_steps"] = 8  # a step reads all rows, so that every step is like every other
    objective = [{"name": "simpo"}]  # compares with no reference, which a stage would begin anew
    two = settings(tmp_path / "two", {"data": {}}, kept, **changes, train__max_steps=2, objective=objective)
    run(two)
    one = {**two, "train": {**two["train"], "max_steps": 4, "output_dir": str(tmp_path / "one")}}
    del one["stages"]
    run(one)
    assert_same_weights(final_weights(tmp_path / "one"), final_weights(tmp_path / "two"))
    reset = settings(tmp_path / "reset", {"data": {}}, {**kept, "optimizer": "reset"}, **changes)
    run({**reset, "objective": objective, "train": {**reset["train"], "max_steps": 2}})
    with pytest.raises(AssertionError):
        assert_same_weights(final_weights(tmp_path / "one"), final_weights(tmp_path / "reset"))


def test_a_kept_optimiser_has_the_settings_of_its_stage(tmp_path, settings):
    kept = {"adapter": "keep", "optimizer": "kept", "train": {"weight_decay": 0.25, "max_steps": 2}}
    run(settings(tmp_path / "run", {}, kept))
    from safetensors import safe_open

    path = latest(stage(tmp_path / "run", "2-hard") / "checkpoints") / "optimizer.safetensors"
    with safe_open(path, framework="pt") as file:
        groups = json.loads(file.metadata()["groups"])
        steps = {float(file.get_tensor(name)) for name in file.keys() if name.endswith("|step")}  # noqa: SIM118
    assert [group["weight_decay"] for group in groups] == [0.25]
    assert steps == {STEPS + 2.0}


def test_an_optimiser_that_is_not_there_cannot_be_kept(tmp_path, settings):
    values = settings(tmp_path / "run", train__optimizer_from=str(tmp_path / "nowhere"))
    del values["stages"]
    with pytest.raises(CheckpointError, match="train.optimizer_from '.*nowhere' has no whole checkpoint; name a run"):
        run(values)


# ---- killed and resumed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "lines"), [("1-easy", 3), ("2-hard", 1)], ids=["inside the first stage", "inside the second, at its begin"]
)
def test_killed_inside_a_stage_and_resumed(tmp_path, settings, straight, name, lines):
    process = started(run, settings(tmp_path / "run"))
    wait_for_line(stage(tmp_path / "run", name), lines)
    process.kill()
    process.join(timeout=60)
    assert not (tmp_path / "run" / "final").exists()
    run(settings(tmp_path / "run"), resume=True)
    assert_same_stages(tmp_path / "run", straight)


def _dies(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (stage_directories, "make_start"),
        (stage_directories, "load_processor"),
        (stages, "release_memory"),
        (stage_directories, "link_result"),
    ],
    ids=["before a start is merged", "while it is written", "behind a stage", "behind all stages"],
)
def test_killed_between_stages_and_resumed(tmp_path, settings, straight, module, function):
    process = started(_run_and_die, settings(tmp_path / "run"), module.__name__, function)
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    assert (stage(tmp_path / "run", "1-easy") / "final").exists()
    run(settings(tmp_path / "run"), resume=True)
    assert_same_stages(tmp_path / "run", straight)
    assert not list((tmp_path / "run").rglob("*.unfinished"))


def _run_and_die(values, module, function):
    """Run, in a process of its own, until a function is called: for the second stage where it is called for each."""
    setattr(sys.modules[module], function, _dies if function != "make_start" else _dies_for_the_second)
    run(values)


def _dies_for_the_second(made, accelerator):
    if made.name == "hard":
        _dies()


@pytest.mark.parametrize("lines", [1, 3], ids=["before a checkpoint", "behind one"])
def test_adapters_and_optimisers_that_go_on_resume_bit_for_bit(tmp_path, settings, kept_straight, lines):
    process = started(run, settings(tmp_path / "run", *KEPT))
    wait_for_line(stage(tmp_path / "run", "2-hard"), lines)
    process.kill()
    process.join(timeout=60)
    run(settings(tmp_path / "run", *KEPT), resume=True)
    assert_same_stages(tmp_path / "run", kept_straight)


def test_resuming_a_finished_run_loads_no_weights_and_changes_nothing(straight, settings, monkeypatch):
    before = final_weights(straight)
    monkeypatch.setattr("mmalign.engine.policy.load_model", None)
    result = run(settings(straight), resume=True)
    assert_same_weights(before, final_weights(straight))
    assert [line["step"] for line in result.metrics] == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_stage_that_stands_on_another_result_than_before_is_another_run(tmp_path, settings):
    """The first stage was deleted and run again with another seed: what the second one started from is gone."""
    run(settings(tmp_path / "run", train__max_steps=1))
    shutil.rmtree(stage(tmp_path / "run", "1-easy"))
    other = {"train": {"seed": 8}}
    with pytest.raises(CheckpointError, match=r"2-hard.*belongs to another run:\n  model: "):
        run(settings(tmp_path / "run", other, train__max_steps=1), resume=True)


def test_a_finished_run_is_not_overwritten(settings, straight):
    with pytest.raises(
        ConfigError, match=r"is not empty \(it holds final, report.html, stages/1-easy, stages/2-hard\)"
    ):
        run(settings(straight))


def test_a_run_without_stages_is_no_place_for_stages(tmp_path, settings):
    values = settings(tmp_path / "run")
    run({name: value for name, value in values.items() if name != "stages"})
    with pytest.raises(CheckpointError, match="holds a run without stages; resume it with its own recipe"):
        run(values, resume=True)


def test_nothing_to_resume_is_said(tmp_path, settings):
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        run(settings(tmp_path / "never"), resume=True)


def test_another_learning_rate_of_a_finished_stage_is_another_run(settings, straight):
    changed = settings(straight, {"train": {"learning_rate": 7e-4}})
    with pytest.raises(CheckpointError, match=r"1-easy.*belongs to another run:\n  train.learning_rate: 0.001 in the"):
        run(changed, resume=True)


def test_a_selection_that_leaves_nothing_says_by_which_rule(tmp_path, settings):
    nothing = {"data": {"select": {"tags": {"side": "upper"}}}}
    with pytest.raises(
        DataError, match="data.select leaves none of the train rows; not selected by tag side: upper: 8"
    ):
        run(settings(tmp_path / "run", nothing))


def test_an_objective_that_cannot_be_built_stops_the_run_before_the_first_stage(tmp_path, settings):
    values = settings(tmp_path / "run")
    values["stages"][-1] |= {"objective": [{"name": "dpo", "betta": 1}]}
    with pytest.raises(ConfigError, match="dpo: unknown option 'betta'"):
        run(values)
    assert not list((tmp_path / "run").glob("stages/*/checkpoints"))


def test_no_room_for_a_merged_model_is_said(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(
        CheckpointError, match=r"merged model of stage 'hard' could not be written .* 0.0 GB are free; fr"
    ):
        run(settings(tmp_path / "run"))


def test_ctrl_c_inside_a_stage_saves_and_resumes(tmp_path, settings, straight, monkeypatch):
    process = started(run, settings(tmp_path / "run", train__save_steps=None))
    wait_for_line(stage(tmp_path / "run", "2-hard"), 1)
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 130
    run(settings(tmp_path / "run", train__save_steps=None), resume=True)
    assert_same_stages(tmp_path / "run", straight)


def test_relabelled_rows_are_those_that_train(tmp_path, settings, rows):
    values = settings(tmp_path / "run", data__relabel=[{"how": "swap"}], train__max_steps=1)
    del values["stages"]
    run(values)
    first = json.loads((tmp_path / "run/data/train/rows.jsonl").read_text().splitlines()[0])
    published = json.loads(rows.read_text().splitlines()[0])
    assert first["chosen"][0]["content"][0]["text"] == published["rejected"][0]["content"]
    assert first["provenance"]["relabel"] == "swap"


def test_an_optimiser_that_is_spread_over_ranks_cannot_be_kept(monkeypatch):
    monkeypatch.setattr(resuming, "is_sharded", lambda accelerator: True)
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    with pytest.raises(ConfigError, match="FSDP spreads the optimiser over ranks.*leave out train.optimizer_from"):
        resuming.begin_with_optimizer(SimpleNamespace(accelerator=sharded, optimizer=None), Path("x"))


@pytest.mark.slow
def test_two_ranks_give_the_stages_of_one(tmp_path, settings, straight):
    """The main process merges; both ranks then start from what it wrote."""
    on_two_ranks(settings(tmp_path / "two", train__gradient_accumulation_steps=1))
    for name in ("1-easy", "2-hard"):
        assert_close(metrics(stage(straight, name))[:1], metrics(stage(tmp_path / "two", name))[:1], 1e-4)
    first, second = final_weights(straight), final_weights(tmp_path / "two")
    assert max((first[name] - second[name]).abs().max() for name in first) < 2e-3
