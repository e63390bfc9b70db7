"""The page of a run: whole, unfinished, spoilt by hand, and with hostile rows."""

import base64
import io
import json
import re

import pytest
from PIL import Image
from report.pages import require_self_contained

from mmalign.errors import DataError
from mmalign.objectives.histograms import HALF, TARGETS, WEIGHTS
from mmalign.report.bars import Bars, bar_chart
from mmalign.report.parts import Answer, Example, picture, spread
from mmalign.report.run_report import write_run_report

HOSTILE = "</p><script>alert(1)</script><img src=http://example.com/x onerror=alert(1)>"


def write_run(root, *, steps=30, finished=True):
    root.mkdir()
    lines = [
        {
            "step": step,
            "loss": 0.7 - 0.01 * step,
            "rewards/margins": 0.02 * step,
            "rewards/accuracies": 0.5,
            "logps/chosen": -20.0 + (step % 3),
            "rewards/chosen": 0.01 * step,
            "grad_norm": 1.0 + (step % 2),
            "learning_rate": 1e-5,
            "epoch": step / 30,
            "num_tokens": 100 * step,
            "step_time_s": 0.25,
            "data_time_s": 0.01,
            "surprise/metric": 4.0,
        }
        for step in range(1, steps + 1)
    ]
    if lines:
        lines[-1]["eval_loss"] = 0.45
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "config.yaml").write_text(
        "recipe: preference\nmodel: {path: ./my-model}\nobjective:\n- {name: dpo, weight: 1.0, beta: 0.1}\n"
    )
    (root / "manifest.json").write_text(json.dumps({"versions": {"torch": "2.11.0"}, "command": ["mmalign", "train"]}))
    if finished:
        (root / "final").mkdir()
    return root


def test_a_run_becomes_one_page_that_fetches_nothing(tmp_path):
    path = write_run_report(write_run(tmp_path / "mine"))
    page = require_self_contained(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "mine" / "report.html"
    assert "mine dpo(beta=0.1, pairs=all) on ./my-model" in page.text
    assert "preference · finished" in page.text
    assert "Nothing in the curves stands out." in page.text
    assert "7.5 s in all" in page.text
    assert "versions.torch 2.11.0" in page.text
    assert page.tags.count("figure") == page.tags.count("svg")


def test_every_metric_is_drawn_also_one_nobody_knows(tmp_path):
    page = write_run_report(write_run(tmp_path / "run")).read_text(encoding="utf-8")
    titles = re.findall(r"<h3>([^<]*?) <span", page)
    assert titles == [
        "Loss", "Reward margin", "Accuracy", "Rewards", "Log-prob of answers", "Gradient norm", "Learning rate", "Time",
        "surprise/metric",
    ]  # fmt: skip
    assert "held out, step 30: 0.45" in page


def test_findings_stand_in_the_page(tmp_path):
    root = write_run(tmp_path / "run")
    lines = [json.loads(line) | {"learning_rate": 0.0} for line in (root / "metrics.jsonl").read_text().splitlines()]
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = require_self_contained(write_run_report(root).read_text(encoding="utf-8"))
    assert "The learning rate was 0 in all 30 steps" in page.text


def test_refused_rows_are_counted_by_reason_and_shown_as_text(tmp_path):
    root = write_run(tmp_path / "run")
    rows = [("image is missing", 3), ("image is missing", 9), (HOSTILE, 12)]
    (root / "quarantine.jsonl").write_text(
        "".join(
            json.dumps({"file": "a/rows.jsonl", "row": row, "field": "images[0]", "value": HOSTILE, "reason": reason})
            + "\n"
            for reason, row in rows
        )
    )
    page = require_self_contained(write_run_report(root).read_text(encoding="utf-8"))
    assert "3 rows stand in quarantine.jsonl" in page.text
    assert "image is missing 2 rows.jsonl, row 3, images[0]" in page.text
    assert HOSTILE in page.text


def test_refused_rows_come_with_the_command_that_shows_them(tmp_path):
    root = write_run(tmp_path / "run")
    (root / "config.yaml").write_text("data: {train: my rows.jsonl, root: pictures, format: null}\n")
    refusal = {"file": "my rows.jsonl", "row": 1, "field": "", "value": "", "reason": "prompt is empty"}
    (root / "quarantine.jsonl").write_text(json.dumps(refusal) + "\n")
    page = require_self_contained(write_run_report(root).read_text(encoding="utf-8"))
    command = f"--quarantine {root / 'quarantine.jsonl'} --root pictures"
    assert f"To see them in full: mmalign data view 'my rows.jsonl' -o rows.html {command}" in page.text


@pytest.mark.parametrize(
    ("file", "row", "options"),
    [
        ("rows.jsonl", 10_000, ""),
        ("rows.jsonl", 70_000, " --limit 70000"),
        ("rows.jsonl", 250_000, " --from-row 50001 --limit 200000"),
        ("part/rows.jsonl", 3, " --limit 200000"),  # how many rows stand before it is not known
    ],
)
def test_the_command_for_refused_rows_reaches_the_last_of_them(tmp_path, file, row, options):
    root = write_run(tmp_path / "run")
    (root / "config.yaml").write_text("data: {train: rows.jsonl}\n")
    refusal = {"file": file, "row": row, "field": "", "value": "", "reason": "prompt is empty"}
    (root / "quarantine.jsonl").write_text(json.dumps(refusal) + "\n")
    page = require_self_contained(write_run_report(root).read_text(encoding="utf-8"))
    assert f"rows.html --quarantine {root / 'quarantine.jsonl'}{options} reason rows" in page.text


def test_hostile_rows_config_and_names_are_shown_and_do_nothing(tmp_path):
    root = write_run(tmp_path / "<b>run")
    (root / "config.yaml").write_text(f"recipe: '{HOSTILE}'\nmodel: {{path: '{HOSTILE}'}}\n")
    (root / "metrics.jsonl").write_text(json.dumps({"step": 1, HOSTILE: 1.0}) + "\n")
    example = Example(
        title=HOSTILE, prompt=HOSTILE, truth=HOSTILE,
        answers=(Answer(label=HOSTILE, text=HOSTILE, note=HOSTILE, marks=((4, 12),)),),
    )  # fmt: skip
    page = require_self_contained(write_run_report(root, examples=[example]).read_text(encoding="utf-8"))
    assert page.text.count("<script>alert(1)</script>") >= 6


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.jsonl", ""),
        ("metrics.jsonl", '{"step": 1, "loss": 0.5}\n{"step": 2, "lo'),
        ("metrics.jsonl", '[1, 2]\n{"loss": 3}\n'),
        ("metrics.jsonl", '{"step": 1, "loss": NaN}\n{"step": 2, "loss": null}\n'),
        ("config.yaml", "a: [1, 2"),
        ("config.yaml", "- just\n- a list\n"),
        ("config.yaml", "objective: [dpo]\nmodel: 3\n"),
        ("manifest.json", "{"),
        ("quarantine.jsonl", '{"file": "x"}\nnot json\n'),
    ],
)
def test_a_file_that_is_spoilt_does_not_cost_the_page(tmp_path, file, text):
    root = write_run(tmp_path / "run", finished=False)
    (root / file).write_text(text)
    page = require_self_contained(write_run_report(root).read_text(encoding="utf-8"))
    assert "not finished" in page.text


def test_an_empty_directory_has_a_page_and_a_missing_one_an_error(tmp_path):
    require_self_contained(write_run_report(tmp_path).read_text(encoding="utf-8"))
    with pytest.raises(DataError, match="no run directory .*nowhere"):
        write_run_report(tmp_path / "nowhere")


def _decoded(shown):
    return Image.open(io.BytesIO(base64.b64decode(shown.uri.split(",")[1])))


def test_pictures_are_made_small_and_tiny_ones_stay_exact(tmp_path):
    Image.new("RGBA", (1200, 600), (200, 30, 30, 128)).save(tmp_path / "large.png")
    large, tiny = picture(tmp_path / "large.png"), picture(Image.new("RGB", (84, 84), (1, 2, 3)))
    assert _decoded(large).size == (360, 180)
    assert large.alt == "picture, 1200 by 600 pixels"
    assert tiny.tiny and not large.tiny
    assert _decoded(tiny).getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_cannot_be_read_says_so(content):
    shown = picture(content)
    assert shown.uri == ""
    assert shown.alt.startswith("no picture: ")


def test_marks_cut_an_answer_into_pieces_in_order_and_without_overlap():
    answer = Answer(label="before", text="a red cross", marks=((6, 99), (2, 5), (3, 7)))
    assert answer.pieces() == [("a ", False), ("red", True), (" c", True), ("ross", True)]
    assert Answer(label="", text="").pieces() == []


def test_spread_keeps_first_and_last():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 4) == [1, 2]


def test_a_run_says_how_much_its_model_looks(tmp_path):
    root = write_run(tmp_path / "run", steps=2)
    lines = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    for line, reliance in zip(lines, (0.25, 0.0625), strict=True):
        line["eval_image_reliance"] = reliance
    (root / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_run_report(root).read_text()
    assert "nats a token that blank media cost, step 1 to 2" in page
    assert "looks at its media less than before" in page
    assert "nats a token that blank media cost the better answers" in page  # under its curve


def add(root, values):
    """Add to every line of a run's metrics what `values` says of its step."""
    lines = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    (root / "metrics.jsonl").write_text("".join(json.dumps(line | values(line["step"])) + "\n" for line in lines))


def test_weights_are_drawn_as_a_histogram_of_the_first_and_the_last_quarter(tmp_path):
    root = write_run(tmp_path / "run", steps=8)
    bins = dict.fromkeys(WEIGHTS.bins, 0.0)
    add(root, lambda step: bins | {"weights/mean": 0.5, "weights/up_to_0": step / 10, "weights/above_4": 1 - step / 10})
    page = write_run_report(root).read_text(encoding="utf-8")
    for said in ("first quarter, 0: 15.0%", "first quarter, &gt; 4: 85.0%", "last quarter, 0: 75.0%"):
        assert f"<title>{said} of the pairs</title>" in page
    titles = re.findall(r"<h3>([^<]*?) <span", page)
    assert titles[-3:] == ["Time", "Weights of pairs", "surprise/metric"]  # no bin is drawn by itself
    assert "0.75–1.25" in require_self_contained(page).text


def test_a_short_run_has_one_histogram_of_all_its_steps(tmp_path):
    root = write_run(tmp_path / "run", steps=2)
    bins = dict.fromkeys(TARGETS.bins, 0.0)
    add(root, lambda step: bins | {"targets/mean": 0.5, HALF: 1.0 if step == 1 else 0.5, "targets/above_0.95": 0.1})
    page = write_run_report(root).read_text(encoding="utf-8")
    assert "<title>all steps, 0.45–0.55: 75.0% of the pairs</title>" in page
    assert "first quarter," not in page


def test_bars_stand_on_one_line_and_are_as_high_as_their_shares():
    drawn = bar_chart([Bars("one", (0.2, 0.4)), Bars("other", (0.1, 0.0), "b")], ("low", "high"), label="Shares")
    bars = [[float(number) for number in bar] for bar in re.findall(
        r'<rect class="column" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawn
    )]  # fmt: skip
    assert len({round(y + height, 6) for _, y, _, height in bars}) == 1
    heights = [height for *_, height in bars]
    assert [height / heights[1] for height in heights] == pytest.approx([0.5, 1.0, 0.25, 0.0], abs=0.01)
    starts = [x for x, *_ in bars]
    assert starts[0] < starts[2] < starts[1] < starts[3]  # side by side, bin after bin
