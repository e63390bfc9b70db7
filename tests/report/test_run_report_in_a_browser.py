"""The page of a run in a browser: it has the colours, answers and pictures of the page of rows."""

import json

import pytest
from formats.rows import png
from report.contrast import WORST_CONTRAST
from report.test_run_report import write_run

from mmalign.report.parts import Answer, Example
from mmalign.report.run_report import write_run_report

LONG = "unbreakable" * 60


@pytest.fixture
def report(tmp_path):
    root = write_run(tmp_path / "run")
    refusal = {"file": "rows.jsonl", "row": 1, "field": LONG, "value": LONG, "reason": "prompt is empty"}
    (root / "quarantine.jsonl").write_text(json.dumps(refusal) + "\n")
    answers = (
        Answer(label="before", text="a red " + LONG, verdict="bad", note="1 not there", marks=((2, 5),)),
        Answer(label="after", text="a kettle", verdict="good"),
    )
    example = Example(prompt="What?", answers=answers, images=(png(), b"broken"), truth="a kettle")
    return write_run_report(root, examples=[example])


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(report, opened, colours):
    ratio, text = opened(report, colours=colours).evaluate(WORST_CONTRAST)
    assert ratio >= 4.5, text


def test_a_narrow_screen_is_never_left_sideways(report, opened):
    page = opened(report, width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_colours_are_switched_without_a_script(report, opened):
    page = opened(report, colours="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(248, 247, 244)"
    page.get_by_text("Dark", exact=True).click()
    assert page.evaluate(ground) == "rgb(19, 21, 24)"


def test_answers_and_pictures_are_those_of_the_page_of_rows(report, opened):
    page = opened(report)
    assert page.locator(".answer .who").all_inner_texts() == ["before", "after"]
    assert page.locator(".answer mark").all_inner_texts() == ["red"]
    assert page.locator(".medium img").count() == 1
    assert page.inner_text(".medium .missing").startswith("no picture: ")
