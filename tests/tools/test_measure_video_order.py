"""The measurement of order goes all the way in small, takes up what was stopped, and compares like with like."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmalign.errors import ConfigError
from mmalign.evaluate import order
from mmalign.recipes.configuration import load_recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import measure_video_order
import video_order_runs

RUNS = tuple(run for run in video_order_runs.CONTINUED if run.name in ("easy_to_hard", "dpo_mixed_sft"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A measurement of few steps; nothing is learned, but everything is done."""
    place = tmp_path_factory.mktemp("runs") / "7"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"LEARNED_CLIPS": 6, "FRESH_CLIPS": 4, "HELD_OUT_CLIPS": 5}.items():
            patch.setattr(measure_video_order, name, value)
        for name, value in {"SFT_STEPS": 1, "SFT_ROWS_PER_STEP": 4, "CONTINUED_STEPS": 2, "PAIRS_PER_STEP": 2}.items():
            patch.setattr(video_order_runs, name, value)
        yield place, measure_video_order.measure(place, seed=7, threads=1, runs=RUNS)


def test_summary_holds_every_figure_with_its_interval(measured):
    place, summary = measured
    assert json.loads((place / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert list(summary["models"]) == ["sft", "easy_to_hard", "dpo_mixed_sft"]
    for name, facts in summary["models"].items():
        for figures in (facts["levels"], *([facts["change"]] if name != "sft" else [])):
            assert {"exact", "events", "pairs"} <= set(figures) <= set(order.METRICS)
            assert all(set(interval) == {"mean", "low", "high"} for interval in figures.values())
    assert set(summary["other_films"]) == {"sft", "dpo_mixed_sft"}
    assert all(len(films) == 3 for films in summary["other_films"].values())


def test_what_is_finished_is_not_done_again(measured, monkeypatch, capsys):
    place, summary = measured
    monkeypatch.setattr(measure_video_order.train, "run", None)
    monkeypatch.setattr(measure_video_order.asking, "ask", None)
    assert measure_video_order.measure(place, seed=7, threads=1, runs=RUNS) == summary
    assert "Training easy_to_hard_2: + DPO, coarse then fine: finished before" in capsys.readouterr().out


def test_a_part_that_fails_is_not_finished(tmp_path):
    def fail():
        raise RuntimeError("the disk is full")

    ledger = measure_video_order.Ledger(tmp_path, {"seed": 1})
    ledger.do("world", "Drawing", lambda: None)
    with pytest.raises(RuntimeError, match="the disk is full"):
        ledger.do("sft", "Training", fail)
    assert set(measure_video_order.Ledger(tmp_path, {"seed": 1}).seconds) == {"world"}


def test_a_directory_of_other_settings_is_refused(tmp_path):
    measure_video_order.Ledger(tmp_path, {"seed": 1, "threads": 1}).do("world", "Drawing", lambda: None)
    with pytest.raises(ConfigError, match=r"begun with other settings \(seed 1, now 2\); delete it or name another"):
        measure_video_order.Ledger(tmp_path, {"seed": 2, "threads": 1})


def test_stages_follow_each_other_and_all_runs_read_equally_many_sequences(tmp_path):
    sequences = set()
    for run in video_order_runs.CONTINUED:
        paths = video_order_runs.write_recipes(tmp_path, run, seed=3, threads=1)
        recipes = [load_recipe(path) for path in paths]
        starts = [Path(recipe.model.path) for recipe in recipes]
        assert starts == [tmp_path / "sft" / "final", *(Path(one.train.output_dir) / "final" for one in recipes[:-1])]
        responses = [2 if recipe.recipe == "preference" else 1 for recipe in recipes]
        sequences.add(
            sum(
                recipe.train.max_steps * recipe.train.per_device_train_batch_size * read
                for recipe, read in zip(recipes, responses, strict=True)
            )
        )
    assert sequences == {video_order_runs.CONTINUED_STEPS * 2 * video_order_runs.PAIRS_PER_STEP}


def test_the_table_shows_shares_and_leaves_out_what_cannot_be_judged():
    interval = {"mean": 0.5, "low": 0.25, "high": 0.75}
    facts = {"title": "+ DPO", "levels": {"exact": interval, "events": interval, "pairs": interval}}
    table = measure_video_order.table({"models": {"dpo": {**facts, "change": {"exact": interval}}}, "other_films": {}})
    assert table.splitlines()[2] == "| + DPO | 50 [25, 75] | +50 [+25, +75] |  |  | 50 [25, 75] | 50 [25, 75] |"
