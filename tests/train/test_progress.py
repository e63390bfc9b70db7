"""What a log file says of a run: a line now and then, and always the last step."""

import pytest

from mmalign.train import progress
from mmalign.train.progress import TrainingBar


def steps_printed(capsys):
    return [line.split("/")[0] for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("logging_steps", "expected"),
    [(1, ["step 1", "step 2", "step 3", "step 4", "step 5"]), (2, ["step 2", "step 4", "step 5"])],
)
def test_a_line_is_printed_every_so_many_steps_and_at_the_end(monkeypatch, capsys, logging_steps, expected):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with TrainingBar(5, logging_steps=logging_steps) as bar:
        for step in range(1, 6):
            bar.advance(step, 2, {"loss": 0.5})
    assert steps_printed(capsys) == expected


def test_lines_keep_apart_however_fast_the_steps(capsys):
    with TrainingBar(5) as bar:
        for step in range(1, 6):
            bar.advance(step, 2, {"loss": 0.5})
    assert steps_printed(capsys) == ["step 1", "step 5"]


def test_a_line_shows_loss_and_margin(capsys):
    with TrainingBar(1, unit="pairs") as bar:
        bar.advance(1, 2, {"loss": 0.5, "rewards/margins": -0.25})
    assert capsys.readouterr().err.startswith("step 1/1: loss 0.5000  margin -0.250  ")


def test_silent_ranks_print_nothing(capsys):
    with TrainingBar(1, shown=False) as bar:
        bar.advance(1, 2, {"loss": 0.5})
    assert capsys.readouterr().err == ""
