"""`mmalign plan` of stages: each of them, and what all take on disk."""

from pathlib import Path

import pytest

from mmalign.config.stages import stages_of
from mmalign.recipes import plan, stages_plan
from mmalign.recipes.configuration import load_recipe
from mmalign.recipes.train import run

REPOSITORY = Path(__file__).resolve().parents[2]
CURRY = REPOSITORY / "configs" / "miniature" / "stages_curry_qwen2_5_vl.yaml"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The miniature recipe with stages, its run directory in a temporary place."""
    monkeypatch.chdir(REPOSITORY)
    return lambda *overrides: load_recipe(CURRY, [f"train.output_dir={tmp_path / 'run'}", *overrides])


def test_every_stage_is_planned_with_its_rows(recipe, capsys):
    plans = stages_plan.run(recipe())
    assert [len(made.rows) for made in plans] == [32, 32, 32]
    assert [made.batches.total_steps for made in plans] == [4, 4, 4]
    printed = capsys.readouterr().out
    for title in ("stage 1 of 3: easiest", "stage 2 of 3: middle, preference, from easiest, its adapter merged"):
        assert title in printed
    merged = [line for line in printed.splitlines() if "merged start" in line]
    assert [line.split(":")[0] for line in merged] == ["middle", "hardest"]
    assert "in all below" in printed


def test_what_is_not_selected_is_counted(recipe, tmp_path, capsys):
    lines = (REPOSITORY / "configs/miniature/corners_ranked_train.jsonl").read_text().splitlines()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(line.replace('"id"', f'"difficulty": {n}, "id"', 1) for n, line in enumerate(lines)))
    first = f"data={{train: {rows}, select: {{difficulty: {{below: 8}}}}}}"
    made, *_ = stages_plan.run(recipe(f"stages.0.{first}"))
    assert len(made.rows) == 8
    assert "not selected: 24 x difficulty below 8" in capsys.readouterr().out


def test_models_that_are_results_of_earlier_stages_are_planned_by_their_shape(recipe):
    """Neither is there yet: easiest's reward model is counted whole, and so is a reference that is no stage's start."""
    easiest = stages_of(recipe(), "miniature/qwen2_5_vl")[0].result
    rewarded = f"stages.2.model={{token_reward: {easiest}}}"
    third = stages_plan.run(recipe(rewarded, "stages.2.objective=[{name: sail}]", "stages.2.reference=easiest"))[2]
    bare = third.footprint.weights - third.footprint.gradients  # without the adapter, all that moves
    assert third.footprint.token_reward == third.footprint.reference == bare > 0


def test_a_recipe_without_stages_is_planned_as_ever(recipe):
    (made,) = stages_plan.run(recipe("stages=[]"))
    assert isinstance(made, plan.Plan)
    assert len(made.rows) == 32


def test_training_goes_on_where_a_plan_was(recipe):
    stages_plan.run(recipe("train.max_steps=1"))
    result = run(recipe("train.max_steps=1"))
    assert [line["stage"] for line in result.metrics] == ["easiest", "middle", "hardest"]
    assert [line["rewards/margins"] for line in result.metrics] == [0.0, 0.0, 0.0]
