"""The measurement of layouts goes all the way in small, and takes up what was stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import layout_runs
import measure_layouts

from mmalign.miniature import layout_rows

RUNS = tuple(run for run in layout_runs.CONTINUED if run.name == "dpo_sft")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A measurement of few steps; nothing is learned, but everything is done."""
    place = tmp_path_factory.mktemp("runs") / "7"
    with pytest.MonkeyPatch.context() as patch:
        sizes = {"LEARNED_POSTERS": 6, "FRESH_POSTERS": 4, "HELD_OUT_POSTERS": 5, "CANDIDATES": 2}
        for name, value in sizes.items():
            patch.setattr(measure_layouts, name, value)
        for name, value in {"SFT_STEPS": 1, "SFT_ROWS_PER_STEP": 4, "CONTINUED_STEPS": 1, "PAIRS_PER_STEP": 2}.items():
            patch.setattr(layout_runs, name, value)
        yield place, measure_layouts.measure(place, seed=7, threads=1, runs=RUNS)


def test_summary_holds_every_model_with_its_change(measured):
    place, summary = measured
    assert json.loads((place / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert list(summary["held_out"]) == ["sft", "dpo_sft"]
    assert list(summary["exchanged"]) == ["sft"]
    for facts in summary["held_out"].values():
        assert {"read", "mean_iou", "exact"} <= set(facts["levels"]) <= set(measure_layouts.FIGURES)
    assert "change" in summary["held_out"]["dpo_sft"]
    assert measure_layouts.table(summary).count("\n") == 4


def test_what_is_finished_is_not_done_again(measured, monkeypatch):
    place, summary = measured
    monkeypatch.setattr(measure_layouts.train, "run", None)
    monkeypatch.setattr(measure_layouts.asking, "ask", None)
    assert measure_layouts.measure(place, seed=7, threads=1, runs=RUNS) == summary


def test_figures_of_truths_and_of_what_cannot_be_read():
    wall = layout_rows.draw_inline_wall("posters", 3, seed=1)
    answers = [task.response(truth).text for task, truth in zip(wall.tasks, wall.truths(), strict=True)]
    values = measure_layouts.values(wall, [answers[0], answers[1], "nothing"])
    assert values["read"].tolist() == values["exact"].tolist() == values["mean_iou"].tolist() == [1, 1, 0]
    assert np.abs(values["overlap"]).max() == np.abs(values["occluded"]).max() == 0
