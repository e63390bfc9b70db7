"""The report of a run with stages, made from what lies on disk."""

import json

import pytest

from mmalign.errors import DataError
from mmalign.report.stages_report import write_stages_report

LINE = {"step": 1, "loss": 0.7, "rewards/margins": 0.0, "learning_rate": 1e-3}


@pytest.fixture
def root(tmp_path):
    """One stage that ended, one that took two steps, one that has not begun."""
    names = ["easy <b>", "middle", "hard"]
    stages = [
        {"name": name, "directory": f"stages/{number}", "starts_from": "base" if number == 1 else names[number - 2]}
        for number, name in enumerate(names, start=1)
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": stages}))
    for number, steps in ((1, 3), (2, 2)):
        place = tmp_path / "stages" / str(number)
        (place / "data" / "train").mkdir(parents=True)
        lines = [{**LINE, "step": step, "loss": 0.7 - 0.1 * step} for step in range(1, steps + 1)]
        (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        facts = {"rows": 10, "not_selected": {"score_gap above 2": 30}}
        (place / "data" / "train" / "prepared.json").write_text(json.dumps(facts))
        (place / "config.yaml").write_text("train: {learning_rate: 0.0005}\n")
    (tmp_path / "stages" / "1" / "final").mkdir()
    (tmp_path / "stages" / "1" / "report.html").touch()
    return tmp_path


def test_each_stage_stands_in_a_row_with_its_status(root):
    page = write_stages_report(root).read_text()
    rows = [row.split("</tr>")[0] for row in page.split("<tr>") if "<td>" in row]
    assert ["finished<" in row and "not finished<" not in row for row in rows] == [True, False, False]
    assert "not finished<" in rows[1]
    assert "not begun<" in rows[2]
    assert 'href="stages/1/report.html"' in rows[0]
    assert "href" not in rows[1]
    assert "10 of 40" in rows[0]
    assert "0.0005" in rows[0]
    assert "0.6 to 0.4" in rows[0]


def test_names_are_shown_as_text(root):
    page = write_stages_report(root).read_text()
    assert "easy &lt;b&gt;" in page
    assert "easy <b>" not in page


def test_a_run_without_stages_has_another_report(tmp_path):
    with pytest.raises(DataError, match="is no run with stages: its manifest.json names none"):
        write_stages_report(tmp_path)
