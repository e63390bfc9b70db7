"""`mmalign data view`: what goes into the page, what is said at the end, and what is refused."""

import html
import io
import json
import re
import shlex

import pytest
from formats.rows import pair, png
from rich.console import Console

from mmalign import cli
from mmalign.errors import DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.store import write_jsonl
from mmalign.recipes import data_view
from mmalign.recipes.data_view import View, report, view
from mmalign.sources.detect import read


def rows_in(path) -> list[dict]:
    """The rows that stand in a page."""
    chunks = re.findall(r'id="chunk-\d+">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    return [row for chunk in chunks for row in json.loads(chunk)]


@pytest.fixture
def folder(tmp_path):
    """Two pictures, and five lines: a good row, one without its picture, no JSON, two good rows."""
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(size=(112, 56)))
    image = [MediaRef(kind="image", uri=name) for name in ("a.png", "gone.png", "b.png")]
    write_jsonl(tmp_path / "rows.jsonl", [pair(0, image[0]), pair(1, image[1]), pair(2, image[2]), pair(3)])
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines[:2], "no json", *lines[2:]]) + "\n")
    return tmp_path


def test_kept_and_refused_rows_stand_in_the_order_of_the_file(folder):
    done = view(folder / "rows.jsonl", folder / "out" / "page.html")
    assert done == View(
        folder / "out" / "page.html", rows=5, refused=2, pictures=1, left_out=0, playable_left_out=0, more_rows=False
    )
    rows = rows_in(done.path)
    assert [row["id"] for row in rows] == ["row-0", "row-1", "rows.jsonl:3", "row-2", "row-3"]
    assert [[one["reason"] for one in row.get("refused", [])] for row in rows] == [
        [], ["image is missing"], ["line is not JSON"], [], [],
    ]  # fmt: skip
    assert not list((folder / "out").glob("*.partial"))


@pytest.mark.parametrize(
    ("choices", "ids", "more"),
    [
        ({"limit": 2}, ["row-0", "row-1"], True),
        ({"from_row": 3}, ["rows.jsonl:3", "row-2", "row-3"], False),
        ({"from_row": 2, "limit": 3}, ["row-1", "rows.jsonl:3", "row-2"], True),
        ({"limit": 5}, ["row-0", "row-1", "rows.jsonl:3", "row-2", "row-3"], False),
    ],
)
def test_a_part_of_the_rows_says_that_there_are_more(folder, choices, ids, more):
    done = view(folder / "rows.jsonl", folder / "page.html", **choices)
    assert ([row["id"] for row in rows_in(done.path)], done.more_rows) == (ids, more)
    assert ("the file holds more" in done.path.read_text(encoding="utf-8")) == more


def test_reasons_of_a_run_are_shown_at_the_rows(folder):
    refusal = {"file": "rows.jsonl", "row": 5, "field": "", "value": "", "reason": "prompt tree is too long"}
    lines = [
        refusal | {"file": f"{folder.name}/rows.jsonl"},
        refusal | {"file": "other.jsonl", "reason": "is elsewhere"},
    ]
    (folder / "quarantine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = view(folder / "rows.jsonl", folder / "page.html", quarantine=folder / "quarantine.jsonl")
    assert rows_in(done.path)[4]["refused"] == [{"reason": "prompt tree is too long"}]
    assert (done.rows, done.refused) == (5, 3)
    assert "is elsewhere" in done.path.read_text(encoding="utf-8")
    part = view(folder / "rows.jsonl", folder / "part.html", quarantine=folder / "quarantine.jsonl", limit=1)
    # What was not looked at is not said to be missing.
    assert "is elsewhere" not in part.path.read_text(encoding="utf-8")


def test_a_refused_row_comes_with_what_stands_in_it_and_the_way_out(folder):
    (folder / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "b", "note": 7}\n[1]\n')
    with_columns, broken = rows_in(view(folder / "bad.jsonl", folder / "page.html").path)
    assert with_columns["raw"] == {"prompt": "'a'", "chosen": "'b'", "rejected": "'b'", "note": "7"}
    assert with_columns["refused"][0]["reason"] == "chosen equals rejected"
    assert broken["refused"][0]["hint"] == "a row is {column: value}" and "raw" not in broken


def test_ids_are_those_of_a_run_where_rows_share_one(folder):
    row = {"id": "same", "prompt": "a", "chosen": "b", "rejected": "c"}
    (folder / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(2)))
    ids = [row["id"] for row in rows_in(view(folder / "twice.jsonl", folder / "page.html").path)]
    assert ids == [preference.id for preference in read(folder / "twice.jsonl", on_refused=pytest.fail)]
    assert ids == ["same", "same (twice.jsonl:2)"]


def numbers_in(path) -> list[int]:
    """What the page calls its rows."""
    index = json.loads(re.search(r'id="index"[^>]*>(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])
    return [line[index["columns"].index("row")] for line in index["rows"]]


def test_rows_are_called_by_the_number_that_show_calls_them_by(folder):
    first, *others = (folder / "rows.jsonl").read_text().splitlines()
    (folder / "rows.jsonl").write_text("\n".join([first, "", "", *others]))
    done = view(folder / "rows.jsonl", folder / "page.html", from_row=4)
    assert numbers_in(done.path) == [4, 5, 6, 7]
    assert [row["row"] for row in rows_in(done.path)] == [4, 5, 6, 7]
    # In a folder of files a number of a file would name several rows.
    (folder / "set").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (folder / "set" / name).write_text(first + "\n")
    done = view(folder / "set", folder / "set.html", from_row=2)
    assert (numbers_in(done.path), [row["file"] for row in rows_in(done.path)]) == ([2], ["b.jsonl"])


def test_without_room_for_pictures_the_page_says_how_to_get_them(folder):
    done = view(folder / "rows.jsonl", folder / "my page.html", root=folder, limit=4, max_media_mb=1e-3)
    assert (done.pictures, done.left_out) == (0, 2)
    text = html.unescape(done.path.read_text(encoding="utf-8"))
    assert "2 media have no picture here" in text
    again = re.search(r"<code>(mmalign data view .*?)</code>", text)[1]
    said = ["--root", str(folder), "--limit", "4", "--max-media-mb", "64", "--overwrite"]
    assert shlex.split(again)[3:] == [str(folder / "rows.jsonl"), "-o", str(folder / "my page.html"), *said]


@pytest.mark.parametrize(("room_mb", "said"), [(0, "64"), (10, "64"), (40, "80")])
def test_the_command_for_more_pictures_has_room_for_more_and_repeats_the_network(room_mb, said):
    command = data_view._again("rows.jsonl", "page.html", {"limit": data_view.MOST_ROWS}, room_mb, True)
    assert command == f"mmalign data view rows.jsonl -o page.html --max-media-mb {said} --overwrite --allow-network"


def test_a_folder_of_media_and_one_picture_are_rows_too(folder):
    (folder / "rows.jsonl").unlink()
    (folder / "c.jpg").write_bytes(b"no picture")
    done = view(folder, folder / "page.html")
    assert [row["id"] for row in rows_in(done.path)] == ["a.png", "b.png", "c.jpg"]
    assert (done.rows, done.refused, done.pictures) == (3, 1, 1)  # both pictures are the same
    alone = view(folder / "a.png", folder / "alone.html")
    assert [row["turns"] for row in rows_in(alone.path)] == [[["", [0]]]]


def test_media_may_be_below_another_root(folder):
    (folder / "elsewhere").mkdir()
    (folder / "rows.jsonl").rename(folder / "elsewhere" / "rows.jsonl")
    done = view(folder / "elsewhere" / "rows.jsonl", folder / "page.html", root=folder)
    assert (done.refused, done.pictures) == (2, 1)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"quarantine": "nowhere.jsonl"}, "there is no quarantine file 'nowhere.jsonl'; a run writes quarantine.jsonl"),
        ({"from_row": 6}, r"rows.jsonl has no row 6 to begin with; leave out --from-row"),
        ({"format": "sharegtp"}, "format 'sharegtp' is unknown; did you mean 'sharegpt'"),
        (
            {"limit": 200_001},
            "limit 200,001 is more rows than a browser can list; take 200,000 at most, and others with --from-row",
        ),
    ],
)
def test_what_cannot_be_shown_is_said(folder, choices, message):
    with pytest.raises(DataError, match=message):
        view(folder / "rows.jsonl", folder / "page.html", **choices)
    assert not (folder / "page.html").exists()


def test_a_page_is_written_over_only_when_asked(folder):
    page = view(folder / "rows.jsonl", folder / "page.html", limit=1).path
    before = page.read_bytes()
    with pytest.raises(DataError, match=r"page.html exists; give another place, or --overwrite"):
        view(folder / "rows.jsonl", page)
    assert page.read_bytes() == before
    assert len(rows_in(view(folder / "rows.jsonl", page, overwrite=True).path)) == 5


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"format": "sharegpt"}, "--format asks for rows: leave it out"),
        ({"quarantine": "rows.jsonl"}, "--quarantine asks for rows: leave it out"),
    ],
)
def test_options_of_rows_are_refused_for_media_alone(folder, choices, said):
    choices = {name: folder / value if name == "quarantine" else value for name, value in choices.items()}
    with pytest.raises(DataError, match=rf"a.png holds media and no rows; {said}"):
        view(folder / "a.png", folder / "page.html", **choices)


def test_rows_are_not_written_over(folder):
    before = (folder / "rows.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"output '.*rows.jsonl' is not the name of a page; a page ends with .html or"):
        view(folder / "rows.jsonl", folder / "rows.jsonl")
    assert (folder / "rows.jsonl").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(folder):
    with pytest.raises(DataError, match=r"cannot write .*a.png/page.html: Not a directory|File exists"):
        view(folder / "rows.jsonl", folder / "a.png" / "page.html")


def test_the_report_names_what_did_not_come_along(folder):
    console = Console(file=io.StringIO(), width=120)
    report(view(folder / "rows.jsonl", folder / "page.html", limit=4, max_media_mb=0), console)
    said = console.file.getvalue()
    assert f"{folder / 'page.html'}: 4 rows, 2 refused, 0 pictures, 0.1 MB" in said
    assert "the file holds more rows: see --limit and --from-row" in said
    assert "2 media have no picture in it: see --max-media-mb" in said


def test_the_command_writes_the_page(folder, capsys):
    cli.app(["data", "view", str(folder / "rows.jsonl"), "-o", str(folder / "page.html")], standalone_mode=False)
    assert "5 rows, 2 refused, 1 picture," in capsys.readouterr().out
    assert (folder / "page.html").is_file()


def test_the_options_of_the_command_and_of_the_function_have_the_same_defaults(folder, monkeypatch):
    given = {}
    monkeypatch.setattr(data_view, "view", lambda path, output, **choices: given.update(choices))
    monkeypatch.setattr(data_view, "report", lambda done: None)
    cli.app(["data", "view", "x"], standalone_mode=False)
    assert (given["limit"], given["max_media_mb"]) == (data_view.MOST_ROWS, data_view.MAX_MEDIA_MB)


SHARED = {
    "preferences/llamafactory_mllm_demo.json": (6, {"image is missing"}),
    "preferences/llamafactory_dpo_60.json": (60, set()),
    "preferences/mdpo_sample.json": (2, {"image is missing"}),
    "preferences/vistadpo_object_60.jsonl": (60, {"video is missing"}),
    "image": (5, set()),
    "video": (4, {"video is truncated or broken"}),
}


@pytest.mark.parametrize("name", SHARED)
def test_every_real_file_has_a_page(shared_data, tmp_path, name):
    rows, reasons = SHARED[name]
    done = view(shared_data / name, tmp_path / "page.html")
    found = rows_in(done.path)
    assert done.rows == len(found) == rows
    assert {one["reason"] for row in found for one in row.get("refused", [])} == reasons
