"""`mmalign report`: a page for a run whatever became of it."""

import json

import pytest

from mmalign.cli import main
from mmalign.errors import DataError
from mmalign.recipes import report


def interrupted(root, steps: int = 12):
    """What a run leaves behind that was killed while it wrote a line."""
    root.mkdir()
    lines = [
        json.dumps({"step": step, "loss": 0.7, "learning_rate": 0.0, "epoch": 0.1}) for step in range(1, steps + 1)
    ]
    (root / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 13, "lo']))
    (root / "config.yaml").write_text("recipe: preference\nmodel: {path: ./my-model}\n")
    return root


def test_an_interrupted_run_gets_its_page_and_what_its_curves_say(tmp_path, capsys):
    root = interrupted(tmp_path / "mine")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(root)])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "The learning rate was 0 in all 12 steps" in printed
    assert f"{root / 'report.html'}: 12 steps, not finished" in printed
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "not finished" in page and "The learning rate was 0 in all 12 steps" in page


def test_a_finished_run_and_one_without_a_step_are_called_so(tmp_path, capsys):
    root = interrupted(tmp_path / "mine")
    (root / "final").mkdir()
    assert report.run(root) == root / "report.html"
    assert "12 steps, finished" in capsys.readouterr().out
    (root / "metrics.jsonl").unlink()
    report.run(root)
    assert "no step yet, finished" in capsys.readouterr().out


def test_a_run_that_was_killed_in_its_second_stage_is_reported_stage_by_stage(tmp_path, capsys):
    root = tmp_path / "mine"
    (root / "stages").mkdir(parents=True)
    stages = [{"name": name, "directory": f"stages/{name}", "starts_from": "base"} for name in ("easy", "hard", "last")]
    (root / "manifest.json").write_text(json.dumps({"stages": stages}))
    (root / "config.yaml").write_text("recipe: preference\n")
    interrupted(root / "stages" / "easy")
    interrupted(root / "stages" / "hard", steps=5)
    report.run(root)
    printed = capsys.readouterr().out
    assert "stage easy: The learning rate was 0 in all 12 steps" in printed
    assert "17 steps, not finished" in printed
    assert "hard" in (root / "report.html").read_text(encoding="utf-8")


def test_a_directory_without_a_run_gets_no_page(tmp_path):
    (tmp_path / "notes.txt").write_text("not a run")
    with pytest.raises(DataError, match="holds no run; a run directory has a config.yaml; name the train.output_dir"):
        report.run(tmp_path)
    with pytest.raises(DataError, match="there is no run directory"):
        report.run(tmp_path / "gone")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
