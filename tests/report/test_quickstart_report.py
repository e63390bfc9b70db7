"""The quickstart's page: figures as they are, roles checked, nothing fetched."""

from dataclasses import replace

import pytest
from PIL import Image
from report.pages import require_self_contained

from mmalign.errors import DataError
from mmalign.evaluate.bootstrap import Interval
from mmalign.report.parts import Answer, Example
from mmalign.report.quickstart_report import Arm, Metric, QuickstartStory, percent, points, write_quickstart_report


def at(mean, reach=0.05):
    return Interval(mean=mean, low=mean - reach, high=mean + reach)


STORY = QuickstartStory(
    title="It works",
    lead="Measured here.",
    metrics=(
        Metric(name="hallucination", title="Hallucination", meaning="states what is not there", lower_is_better=True),
        Metric(name="recall", title="Recall", meaning="states what is there"),
    ),
    arms=(
        Arm(name="SFT", explanation="start", role="before", values={"hallucination": at(0.643), "recall": at(0.90)}),
        Arm(name="DPO", explanation="40 steps", role="after", values={"hallucination": at(0.197), "recall": at(0.92)}),
        Arm(name="More", explanation="control", role="control", values={"hallucination": at(0.6), "recall": at(0.91)}),
    ),
    differences={"hallucination": Interval(mean=-0.446, low=-0.51, high=-0.39), "recall": at(0.02, 0.02)},
    conclusions=("It does <b>this</b>.",),
    examples=(
        Example(prompt="Describe.", images=(Image.new("RGB", (84, 84)),), truth="a circle",
                answers=(Answer(label="before", text="a circle, a cross", verdict="bad", marks=((10, 17),)),)),
    ),
    facts={"seed": "0"},
    files={"summary.json": "all figures"},
)  # fmt: skip


def test_the_page_holds_the_figures_and_fetches_nothing(tmp_path):
    path = write_quickstart_report(tmp_path / "out" / "report.html", STORY)
    page = require_self_contained(path.read_text(encoding="utf-8"))
    assert "64% → 20% −45 points, −51 to −39" in page.text
    assert "states what is not there; lower is better" in page.text
    assert "More control 60% 55% to 65%" in page.text
    assert "After less before percentage points, paired −45 −51 to −39 +2 0 to +4" in page.text
    assert "It does <b>this</b>." in page.text
    assert "mark" in page.tags
    assert not list((tmp_path / "out").glob("*.partial"))


def test_curves_of_a_run_come_along(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n')
    story = replace(STORY, runs=(("Preference training", tmp_path), ("Nothing here", tmp_path / "nowhere")))
    page = require_self_contained(write_quickstart_report(tmp_path / "report.html", story).read_text(encoding="utf-8"))
    assert "Preference training Loss" in page.text
    assert "Nothing here" not in page.text


def test_an_arm_without_a_metric_is_refused(tmp_path):
    lacking = replace(STORY, arms=(replace(STORY.arms[0], values={"recall": at(0.9)}), *STORY.arms[1:]))
    with pytest.raises(DataError, match="arm 'SFT' has no value for hallucination"):
        write_quickstart_report(tmp_path / "report.html", lacking)


def test_two_arms_before_are_refused(tmp_path):
    with pytest.raises(DataError, match="exactly one arm with role 'before', got 2"):
        write_quickstart_report(tmp_path / "report.html", replace(STORY, arms=(STORY.arms[0], *STORY.arms)))


def test_shares_and_differences_are_written_for_people():
    assert [percent(share) for share in (0.643, 1.0, 0.0, 0.003)] == ["64%", "100%", "0%", "0.3%"]
    assert [points(difference) for difference in (-0.446, 0.02, 0.0, -0.001)] == ["−45", "+2", "0", "0"]
