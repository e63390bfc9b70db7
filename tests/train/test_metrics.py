"""Metrics are divided once, and every step has one line, also after an interruption."""

import json

import pytest
import torch
from accelerate import Accelerator

from mmalign.objectives.metrics import Ratio
from mmalign.train.metrics import MetricsFile, Totals, read_metrics


def ratio(total, count):
    return Ratio(torch.tensor(float(total)), torch.tensor(float(count)))


def test_means_are_taken_over_all_micro_batches_together():
    """(1 + 7) / (1 + 3), not the mean of 1/1 and 7/3."""
    totals = Totals()
    totals.add({"loss": ratio(1, 1)})
    totals.add({"loss": ratio(7, 3)})
    means, sums = totals.reduce(Accelerator(cpu=True), [5.0, torch.tensor(0.5)])
    assert means == {"loss": 2.0}
    assert sums == [5.0, 0.5]


def test_fillers_bring_names_and_no_numbers():
    totals = Totals()
    totals.add({"loss": ratio(float("nan"), 1)}, counted=False)
    totals.add({"loss": ratio(6, 3)})
    assert totals.reduce(Accelerator(cpu=True), [0.0])[0] == {"loss": 2.0}


def test_a_metric_that_counted_nothing_is_left_out():
    totals = Totals()
    totals.add({"loss": ratio(6, 3), "rewards/margins": ratio(0, 0)})
    assert totals.reduce(Accelerator(cpu=True), [0.0])[0] == {"loss": 2.0}


def test_a_continued_file_has_every_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo')
    with MetricsFile(path, step=2) as file:
        file.write({"step": 3, "loss": 0.1})
    assert read_metrics(path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.1}]


def test_a_line_can_be_read_at_once(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write({"step": 1, "loss": 0.1})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 0.1}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stands_as_null_and_costs_neither_run_nor_file(tmp_path, value):
    """A held-out loss may overflow; `diagnose` then names the step."""
    with MetricsFile(tmp_path / "metrics.jsonl") as file:
        file.write({"step": 1, "loss": 0.1, "eval_loss": value})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "loss": 0.1, "eval_loss": None}
