"""What is refused is listed with its reason, counted, and stops the run when it is too much."""

import json
import re

import pytest

from mmalign.errors import DataError, RowError
from mmalign.sources.quarantine import Quarantine, Refusal, recorded

MISSING = RowError("image is missing", field="images[0]", value="a.jpg", hint="look there")
EMPTY = RowError("response is empty", field="chosen", value="")


def test_a_refusal_is_one_line_with_file_row_field_value_reason_and_way_out(tmp_path):
    quarantine = Quarantine(tmp_path / "run" / "quarantine.jsonl")
    quarantine.refuse("rows.jsonl", 3, MISSING)
    assert [json.loads(line) for line in quarantine.path.read_text().splitlines()] == [
        {
            "file": "rows.jsonl",
            "row": 3,
            "field": "images[0]",
            "value": "'a.jpg'",
            "reason": "image is missing",
            "hint": "look there",
        }
    ]
    assert recorded(quarantine.path) == [
        Refusal("rows.jsonl", 3, "images[0]", "'a.jpg'", "image is missing", "look there")
    ]


def test_a_file_without_hints_is_read(tmp_path):
    line = '{"file": "rows.jsonl", "row": 3, "field": "", "value": "", "reason": "image is missing"}'
    (tmp_path / "quarantine.jsonl").write_text(line + "\n")
    assert recorded(tmp_path / "quarantine.jsonl") == [Refusal("rows.jsonl", 3, "", "", "image is missing", hint="")]


def test_no_file_is_made_when_nothing_is_refused(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    quarantine.kept()
    quarantine.check()
    quarantine.close()
    assert list(tmp_path.iterdir()) == []
    assert quarantine.summary() == "all 1 rows are kept"


def test_a_value_that_is_no_json_is_written_as_people_see_it(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl")
    for row, value in enumerate([float("nan"), b"\xff\x00", "\ud83d", "y" * 1000, {"a": {1, 2}}]):
        quarantine.refuse("x", row, RowError("odd", value=value))
    values = [refusal.value for refusal in recorded(quarantine.path)]
    assert values[:3] == ["nan", r"b'\xff\x00'", r"'\ud83d'"]
    assert len(values[3]) == 120
    assert "NaN" not in quarantine.path.read_text()


def test_counts_are_by_reason_and_the_summary_says_them_most_frequent_first(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", max_share=1.0)
    for row in range(3):
        quarantine.refuse("x", row, MISSING)
    quarantine.refuse("x", 9, EMPTY)
    for _ in range(36):
        quarantine.kept()
    assert quarantine.counts == {"image is missing": 3, "response is empty": 1}
    assert quarantine.summary() == "4 of 40 rows (10.0%) are refused: image is missing: 3; response is empty: 1"


def test_a_second_run_adds_no_row_twice_and_drops_a_line_cut_short(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    first = Quarantine(path, max_share=1.0)
    first.refuse("x", 1, MISSING)
    first.close()
    with path.open("a") as file:
        file.write('{"file": "x", "row": 2, "fie')  # killed while writing
    second = Quarantine(path, max_share=1.0)
    for row, error in [(1, MISSING), (1, EMPTY), (2, MISSING)]:
        second.refuse("x", row, error)
    assert second.counts == {"image is missing": 2, "response is empty": 1}
    assert [(refusal.row, refusal.reason) for refusal in recorded(path)] == [
        (1, "image is missing"), (1, "response is empty"), (2, "image is missing")
    ]  # fmt: skip


def test_too_many_refused_rows_end_the_run_early_but_not_at_the_first_row(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", max_share=0.1, rows_before_early_stop=20)
    for row in range(10):
        quarantine.refuse("x", row, MISSING)
        if row < 9:
            quarantine.kept()
    quarantine.kept()  # the twentieth row
    message = (
        "11 of 21 rows (52.4%) are refused: image is missing: 11; that is more than the accepted share of 0.1. "
        f"See {quarantine.path}; mend the rows, or raise data.max_refused_share"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        quarantine.refuse("x", 11, MISSING)


def test_the_share_is_judged_at_the_end_of_a_small_file_too(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", max_share=0.25, limit_name="--max-refused-share")
    quarantine.refuse("x", 1, MISSING)
    for _ in range(3):
        quarantine.kept()
    quarantine.check()  # one of four is just accepted
    quarantine.refuse("x", 2, MISSING)
    with pytest.raises(DataError, match=r"2 of 5 rows \(40.0%\).*or raise --max-refused-share"):
        quarantine.check()


def test_a_file_of_which_nothing_is_left_says_so_whatever_the_share(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", max_share=1.0)
    quarantine.refuse("x", 1, MISSING)
    with pytest.raises(DataError, match=r"no row is left: 1 of 1 rows \(100.0%\) are refused: image is missing: 1"):
        quarantine.check()


def test_the_end_of_a_run_shows_the_first_refusal_with_its_way_out(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", max_share=1.0, counted="answers")
    quarantine.refuse("x", 7, MISSING)
    quarantine.refuse("x", 8, RowError("other"))
    ending = "The first: x, row 7: images[0]: image is missing; got 'a.jpg'; look there"
    with pytest.raises(DataError, match=re.escape(ending) + "$"):
        quarantine.check()
    assert quarantine.summary() == "2 of 2 answers (100.0%) are refused: image is missing: 1; other: 1"


def test_a_full_disk_is_a_message():
    with pytest.raises(DataError, match="cannot write /dev/full: No space left on device"):
        Quarantine("/dev/full").refuse("x", 1, MISSING)
