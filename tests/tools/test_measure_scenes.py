"""The measurement of scenes goes all the way in small, and takes up what was stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import layout_runs
import measure_layouts
import measure_scenes

from mmalign.miniature import scene_rows

RUNS = tuple(run for run in layout_runs.CONTINUED if run.name == "dpo_sft")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A measurement of few steps; nothing is learned, but everything is done."""
    place = tmp_path_factory.mktemp("runs") / "7"
    with pytest.MonkeyPatch.context() as patch:
        sizes = {"LEARNED_ROOMS": 6, "FRESH_ROOMS": 4, "HELD_OUT_ROOMS": 3, "CANDIDATES": 2}
        for name, value in sizes.items():
            patch.setattr(measure_scenes, name, value)
        for name, value in {"SFT_STEPS": 1, "SFT_ROWS_PER_STEP": 4, "CONTINUED_STEPS": 1, "PAIRS_PER_STEP": 2}.items():
            patch.setattr(layout_runs, name, value)
        yield place, measure_scenes.measure(place, seed=7, threads=1, runs=RUNS)


def test_summary_holds_every_model_with_its_change(measured):
    place, summary = measured
    assert json.loads((place / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert list(summary["held_out"]) == ["sft", "dpo_sft"]
    for facts in summary["held_out"].values():
        assert {"read", "valid", "free", "exact"} <= set(facts["levels"]) <= set(measure_scenes.FIGURES)
    assert "change" in summary["held_out"]["dpo_sft"]
    assert measure_scenes.table(summary).count("\n") == 3


def test_what_is_finished_is_not_done_again(measured, monkeypatch):
    place, summary = measured
    monkeypatch.setattr(measure_layouts.train, "run", None)
    monkeypatch.setattr(measure_scenes.asking, "ask", None)
    assert measure_scenes.measure(place, seed=7, threads=1, runs=RUNS) == summary


def test_figures_of_truths_and_of_what_cannot_be_read():
    house = scene_rows.draw_house("rooms", 3, seed=1)
    answers = [t.response(t.scene.added(item)).text for t, item in zip(house.tasks, house.truths(), strict=True)]
    outside = json.dumps({**json.loads(answers[1]), "pos": [9.0, 0.0, 0.0]})
    values = measure_scenes.values(house, [answers[0], outside, "nothing"])
    assert values["read"].tolist() == [1, 1, 0]
    assert values["exact"].tolist() == values["free"].tolist() == [1, 0, 0]
    width, height, depth = house.truths()[1].size
    assert values["delta_oob"] == pytest.approx([0, width * height * depth, 0], rel=0.01)
