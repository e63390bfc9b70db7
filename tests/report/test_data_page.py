"""The page of rows as a file: what stands in it, once, escaped, within its budget."""

import dataclasses
import json
import re

import pytest
from formats.rows import EVERYTHING, pair, png
from pictures import encoded, noise
from report.data_rows import HOSTILE, image, page_of, row, shelf
from report.pages import require_only_its_own_script
from videos import numbered, write

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.table import MODALITIES
from mmalign.modalities.video import VideoLimits
from mmalign.report import row_record
from mmalign.report.data_page import ROWS_A_CHUNK, island
from mmalign.report.media_shelf import described
from mmalign.report.refusals import KnownRefusals
from mmalign.sources.quarantine import Refusal


def islands(html: str, name: str) -> list:
    """The JSON of the page whose elements have ids that begin with `name`."""
    found = re.findall(rf'<script type="application/json" id="{name}[^>]*>(.*?)</script>', html, re.DOTALL)
    return [json.loads(text) for text in found]


def rows_in(html: str) -> list[dict]:
    return [record for chunk in islands(html, "chunk-") for record in chunk]


def test_the_page_is_one_file_that_runs_its_own_script_alone(tmp_path):
    path = page_of(tmp_path, [row("a"), row("b", number=2)])
    page = require_only_its_own_script(path.read_text(encoding="utf-8"))
    assert "rows.jsonl data/rows.jsonl Rows 2 mmalign" in page.text
    assert "None: every row can be read" in page.text
    assert "--max-media-mb" not in page.text and "--limit" not in page.text


def test_hostile_texts_stay_inside_their_element(tmp_path):
    hostile = row(HOSTILE, HOSTILE, (HOSTILE, Response.of("b", critique=HOSTILE)), tags={HOSTILE: HOSTILE})
    refusal = Refusal(HOSTILE, 3, HOSTILE, HOSTILE, HOSTILE)
    html = page_of(tmp_path, [hostile, refusal], again=HOSTILE, more_rows=True).read_text(encoding="utf-8")
    page = require_only_its_own_script(html)
    assert page.tags.count("img") == 0
    record = rows_in(html)[0]
    assert record["id"] == HOSTILE and record["answers"][1]["critique"] == HOSTILE


@pytest.mark.parametrize("value", ["</script>", "<!--", "<script", "\u2028 \u00e9 \U0001f642", "a\\b\"'&>"])
def test_json_in_an_element_says_the_same_without_a_bracket(value):
    assert "<" not in island({"a": value})
    assert json.loads(island([value])) == [value]


def test_a_row_keeps_everything_it_says(tmp_path):
    record = row_record.of_preference(EVERYTHING, lambda ref, field: 7)
    assert [role for role, _ in record["turns"]] == ["system", "user", "assistant", "user"]
    assert record["turns"][1][1] == ["Compare", 7, "with", 7, "\nplease \u00e9\u4f60\U0001f642\u2028"]
    best, second, third, worst = record["answers"]
    assert (best["score"], best["scores"], best["model"], best["annotator"]) == (
        3.5, {"helpful": 4.0, "true": 1.0}, "m-7b", "anna",
    )  # fmt: skip
    assert [role for role, _ in second["turns"]] == ["assistant", "tool", "assistant"]
    assert second["critique"] == "too long"
    assert third["spans"] == [[2, 7, 0.0], [8, 13, 2.5]]
    assert [answer["level"] for answer in record["answers"]] == [0, 1, 1, 2]
    assert "media" not in worst  # all numbers are 7 here: the same media as the row's
    assert (record["margin"], record["weight"], record["difficulty"]) == (4.5, 0.25, 7.0)
    assert (record["file"], record["row"], record["source"]) == ("x.jsonl", 3, "trl")


@pytest.mark.parametrize("label", [True, False, None])
def test_a_row_says_how_its_only_answer_was_judged(label):
    judged = dataclasses.replace(pair(0), responses=(Response.of("A kettle."),), label=label)
    record = row_record.of_preference(judged, lambda ref, field: 0)
    assert record.get("label") is label
    assert record["answers"][0]["level"] == (1 if label is False else 0)
    assert row_record.summary(record, [])["judged"] == {True: "good", False: "bad", None: ""}[label]


def test_the_overview_counts_answers_judged_good_and_bad(tmp_path):
    labels = (True, False, False, None)
    alone = [dataclasses.replace(row(str(k), answers=("A kettle.",)), label=label) for k, label in enumerate(labels)]
    page = require_only_its_own_script(page_of(tmp_path, alone).read_text(encoding="utf-8"))
    assert "Judged one by one 3 1 good, 2 bad" in page.text


def test_places_of_spans_count_as_a_browser_counts():
    text = "\U0001f642\U0001f642 a wrong \u4f60 thing"
    answer = Response.of(text, spans=(Span(start=5, end=10, weight=2.0), Span(start=13, end=99, weight=0.0)))
    record = row_record.of_preference(row("a", answers=(answer, "b")), lambda ref, field: 0)
    assert record["answers"][0]["spans"] == [[7, 12, 2.0], [15, 20, 0.0]]


def test_the_title_of_a_row_is_the_last_thing_said_before_the_answer():
    turns = (Message.of("user", "First?"), Message.of("assistant", "Yes."), Message.of("user", "  And\nnow? " * 40))
    preference = Preference(id="a", prompt=turns, responses=(Response.of("x"),))
    summary = row_record.summary(row_record.of_preference(preference, lambda ref, field: 0), [])
    assert summary["title"] == ("And now? " * 40)[:140]
    assert row_record.summary(row_record.of_refusal(Refusal("a", 1, "", "", "bad"), {}), [])["title"] == ""


# ---- refused rows ----------------------------------------------------------------------------------------------


def test_a_row_with_a_bad_medium_is_refused_and_still_says_everything(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    rows = [row("a", media=(image("gone.jpg"),)), row("b", media=(image("broken.jpg"),), number=2)]
    html = page_of(tmp_path, [*rows, row("c", number=3)]).read_text(encoding="utf-8")
    gone, broken, kept = rows_in(html)
    [why] = gone["refused"]
    assert why | {"hint": ""} == {"reason": "image is missing", "field": "media[0]", "value": "'gone.jpg'", "hint": ""}
    assert str(tmp_path) in why["hint"]  # the folder in which it was looked for
    assert broken["refused"][0]["reason"] == "image is not in a known format"
    assert len(gone["answers"]) == 2 and "refused" not in kept
    page = require_only_its_own_script(html)
    assert "2 of 3 rows are refused" in page.text
    assert "image is missing 1 rows.jsonl, row 1, media[0]: 'gone.jpg'" in page.text


def test_a_refused_row_comes_with_its_way_out_and_its_columns_shortened(tmp_path):
    columns = {"prompt": "", "chosen": "a" * 500, "images": None} | {f"c{k}": k for k in range(60)}
    refusal = Refusal("rows.jsonl", 4, "prompt", "''", "prompt is empty", "say something")
    record = row_record.of_refusal(refusal, columns)
    assert list(record["raw"].items())[:4] == [
        ("prompt", "''"), ("chosen", "'" + "a" * 116 + "..."), ("images", "None"), ("c0", "0"),
    ]  # fmt: skip
    assert (len(record["raw"]), record["raw"]["..."]) == (41, "and 23 more columns")
    assert row_record.refused_for(refusal)["hint"] == "say something"


PLACES = [
    # What the run was given, and so called the file; what the page was given; whether row 3 is the one refused.
    ("rows.jsonl", "", "rows.jsonl", True),
    ("part/rows.jsonl", "part", "rows.jsonl", True),
    ("rows.jsonl", "", "part/rows.jsonl", True),
    ("set/part/rows.jsonl", "part", "rows.jsonl", False),
    ("art/rows.jsonl", "part", "rows.jsonl", False),
    ("top.jsonl", "", "part/top.jsonl", False),  # the folder has a file of just this name
]


@pytest.mark.parametrize(("said", "base", "file", "is_found"), PLACES)
def test_a_refusal_is_joined_to_its_row_whether_a_folder_or_a_file_was_given(tmp_path, said, base, file, is_found):
    (tmp_path / "part").mkdir()
    for name in ("rows.jsonl", "top.jsonl"):
        (tmp_path / "part" / name).touch()
    (tmp_path / "top.jsonl").touch()
    refusal = Refusal(said, 3, "", "", "prompt is empty")
    known = KnownRefusals([refusal, Refusal(said, 4, "", "", "other")], tmp_path / base)
    assert known.take(file, 3) == ([refusal] if is_found else [])
    assert known.take(file, 3) == []
    assert len(known.rest()) == (1 if is_found else 2)


def test_reasons_of_a_run_stand_at_their_rows_and_under_a_heading_of_their_own_where_the_row_is_not_here(tmp_path):
    before = [
        Refusal("rows.jsonl", 2, "images[0]", "'x'", "image is missing"),
        Refusal("rows.jsonl", 2, "", "", "prompt tree is too long"),
        Refusal("other.jsonl", 9, "prompt", "", "prompt is empty"),
    ]
    rows = [row("a"), row("b", media=(image("gone.jpg"),), number=2)]
    html = page_of(tmp_path, rows, refused_before=before).read_text(encoding="utf-8")
    records = rows_in(html)
    assert [[one["reason"] for one in record.get("refused", [])] for record in records] == [
        [], ["image is missing", "prompt tree is too long"],
    ]  # fmt: skip
    page = require_only_its_own_script(html)
    heading = page.text.index("Refused by the run, and not among these rows")
    assert page.text.index("prompt is empty 1 other.jsonl, row 9, prompt") > heading
    assert "1 of 2 rows is" not in page.text and "Rows 2 " in page.text


# ---- media -----------------------------------------------------------------------------------------------------


def test_a_content_stands_in_the_page_once(tmp_path):
    for name in ("a.png", "same.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "other.png").write_bytes(png((0, 0, 9)))
    rows = [row(str(k), media=(image(name),)) for k, name in enumerate(["a.png", "a.png", "same.png", "other.png"])]
    html = page_of(tmp_path, rows).read_text(encoding="utf-8")
    index = islands(html, "index")[0]
    assert len(islands(html, "picture-")) == 2
    assert [entry["picture"] for entry in index["media"]] == [0, 0, 1]
    assert [entry["name"] for entry in index["media"]] == ["a.png", "same.png", "other.png"]
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in islands(html, "picture-"))


def test_beyond_the_budget_media_are_checked_and_named_and_have_no_picture(tmp_path):
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(encoded(noise(64, 64, seed=k)))
    (tmp_path / "4.png").write_bytes(b"broken")
    rows = [row(str(k), media=(image(f"{k}.png"),), number=k + 1) for k in range(5)]
    one = len(MODALITIES["image"].render(image("0.png"), shelf(tmp_path)._limits["image"], 200_704))
    html = page_of(tmp_path, rows, budget_bytes=int(2.5 * one), again="mmalign data view x").read_text(encoding="utf-8")
    entries = islands(html, "index")[0]["media"]
    assert [entry.get("left_out", False) for entry in entries] == [False, False, True, True, False]
    assert [entry.get("facts") for entry in entries] == ["64 x 64"] * 4 + [None]
    assert len(islands(html, "picture-")) == 2
    page = require_only_its_own_script(html)
    assert "2 media have no picture here" in page.text
    assert "Raise --max-media-mb" in page.text and "mmalign data view x" in page.text


def test_a_medium_may_be_played_or_too_long_to_be(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png((0, 0, 9)))
    moving = {"a.png": "data:image/webp;base64,AAAA", "b.png": None}
    playing = MODALITIES["image"]._replace(playable=lambda ref, limits, field: moving[ref.uri])
    monkeypatch.setitem(MODALITIES, "image", playing)
    html = page_of(tmp_path, [row("a", media=(image("a.png"), image("b.png")))]).read_text(encoding="utf-8")
    one, other = islands(html, "index")[0]["media"]
    assert islands(html, "picture-")[one["playable"]] == "data:image/webp;base64,AAAA"
    assert other["too_long"] and "playable" not in other


def test_a_clip_whose_still_fits_and_whose_moving_picture_does_not_is_counted_apart(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").write_bytes(png((0, 0, 9)))
    playing = MODALITIES["image"]._replace(playable=lambda ref, limits, field: "data:image/webp;base64," + 9999 * "A")
    monkeypatch.setitem(MODALITIES, "image", playing)
    rows = [row("a", media=(image("a.png"),)), row("b", media=(image("b.png"),))]
    html = page_of(tmp_path, rows, budget_bytes=5_000).read_text(encoding="utf-8")
    one, other = islands(html, "index")[0]["media"]
    assert "picture" in one and one["playable_left_out"] and "left_out" not in one
    assert other["left_out"] and not other.keys() & {"picture", "playable_left_out"}
    text = require_only_its_own_script(html).text
    assert "1 media have no picture here, and 1 media cannot be played here, because" in text


def test_media_that_stand_alone_are_rows_without_answers(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    html = page_of(tmp_path, [image("a.png"), image("gone.png")]).read_text(encoding="utf-8")
    found, gone = rows_in(html)
    assert (found["id"], found["turns"]) == ("a.png", [["", [0]]])
    assert gone["refused"][0]["reason"] == "image is missing"


def test_what_a_check_found_is_told_with_its_units_and_without_a_value_a_frame(tmp_path):
    write(tmp_path / "a.mp4", numbered(12))
    limits = VideoLimits(root=tmp_path, sampling=Sampling(policy="uniform", frames=8))
    shape = MODALITIES["video"].check(MediaRef(kind="video", uri="a.mp4"), limits)
    assert len(shape.timestamps_s) == 8
    assert described(shape) == "frames 8, 64 x 48, source fps 10, source frames 12, duration 1.2 s, source 64 x 48"
    assert described((640, 480)) == "640 x 480"


def test_many_rows_stand_in_chunks(tmp_path):
    html = page_of(tmp_path, [row(f"row-{k}") for k in range(ROWS_A_CHUNK + 1)]).read_text(encoding="utf-8")
    assert [len(chunk) for chunk in islands(html, "chunk-")] == [ROWS_A_CHUNK, 1]
    assert rows_in(html)[ROWS_A_CHUNK]["id"] == f"row-{ROWS_A_CHUNK}"


def test_a_file_name_that_is_not_unicode_does_not_cost_the_page(tmp_path):
    refusal = Refusal("bad\udcff.jsonl", 1, "", "", "line is not JSON")
    html = page_of(tmp_path, [refusal]).read_text(encoding="utf-8")
    assert rows_in(html)[0]["file"] == "bad\udcff.jsonl"
