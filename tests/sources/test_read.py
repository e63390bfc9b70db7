"""Files become raw rows with their place, one at a time; what is broken is named and the rest goes on."""

import codecs
import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmalign.errors import DataError
from mmalign.sources import read as read_module
from mmalign.sources import tables
from mmalign.sources.json_values import JsonValues
from mmalign.sources.read import read_raw

ROWS = [{"a": 1}, {"a": 2, "b": "\u00e9\u4f60\U0001f642"}, {"a": [3, {"c": None}]}]


def rows_of(path, **choices):
    return [raw.values for raw in read_raw(path, **choices)]


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return path


# ---- every kind of file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=3, ensure_ascii=False)),
        ("rows.json", json.dumps({"version": {"x": [1]}, "data": ROWS, "licence": "MIT"}, indent=1)),
        ("rows.json", json.dumps({"rows": ROWS})),
        ("rows.json", "\n".join(map(json.dumps, ROWS))),  # JSONL under another name, as many published files are
        ("rows.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n"),
        ("rows.ndjson", "\r\n".join(map(json.dumps, ROWS))),
        ("rows.jsonl", "\n\n" + "\n  \n".join(map(json.dumps, ROWS)) + "\n\n"),
    ],
)
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "byte-order mark"])
@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
def test_json_of_any_shape_is_read(tmp_path, name, text, mark, packed):
    content = mark + text.encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert rows_of(path) == ROWS


def test_a_json_object_without_a_list_of_rows_is_one_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "hi"}], "rejected_response": "no"}
    assert rows_of(write(tmp_path / "row.json", json.dumps(row, indent=2))) == [row]
    assert rows_of(write(tmp_path / "line.json", json.dumps(row))) == [row]


def test_parquet_is_read_and_a_null_is_no_column(tmp_path):
    rows = [{"a": 1, "image": {"bytes": b"\x00\xff", "path": None}}, {"a": 2, "image": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=1)
    assert rows_of(tmp_path / "rows.parquet") == [rows[0], {"a": 2}]


def test_rows_know_where_they_stand(tmp_path):
    write(tmp_path / "rows.jsonl", '{"a": 1}\n\n{"a": 2}\n')
    assert [(raw.file, raw.row) for raw in read_raw(tmp_path / "rows.jsonl")] == [("rows.jsonl", 1), ("rows.jsonl", 3)]
    write(tmp_path / "rows.json", '[{"a": 1}, {"a": 2}]')
    assert [(raw.file, raw.row) for raw in read_raw(tmp_path / "rows.json")] == [("rows.json", 1), ("rows.json", 2)]


def test_a_folder_of_shards_is_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "00.jsonl", '{"a": 3}')
    write(tmp_path / "01.jsonl", '{"a": 2}')
    write(tmp_path / "00.jsonl.gz", gzip.compress(b'{"a": 1}'))
    write(tmp_path / ".hidden.jsonl", "not read")
    for name in (".cache", "b/_old"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "02.jsonl", "not read")
    write(tmp_path / "README.md", "not read")
    found = [(raw.file, raw.values["a"]) for raw in read_raw(tmp_path)]
    assert found == [("00.jsonl.gz", 1), ("01.jsonl", 2), ("b/00.jsonl", 3)]


def test_a_datasets_folder_is_read_without_decoding_pictures(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"a": datasets.Value("int64"), "image": datasets.Image()})
    data = datasets.Dataset.from_list(
        [{"a": k, "image": {"bytes": b"not a picture", "path": None}} for k in range(7)], features=features
    )
    data.save_to_disk(str(tmp_path / "set"), num_shards=2)
    rows = rows_of(tmp_path / "set")
    assert [row["a"] for row in rows] == list(range(7))
    assert rows[0]["image"] == {"bytes": b"not a picture", "path": None}


def test_a_datasets_folder_of_splits_asks_which(tmp_path):
    datasets = pytest.importorskip("datasets")
    splits = {name: datasets.Dataset.from_list([{"a": 1}]) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match=r"holds the splits train, test; name one, as in .*set/train"):
        rows_of(tmp_path / "set")
    assert rows_of(tmp_path / "set" / "test") == [{"a": 1}]


def test_the_hub_is_asked_only_when_allowed(monkeypatch):
    asked = []
    monkeypatch.setattr(tables, "hub_rows", lambda name: asked.append(name) or iter([{"a": 1}]))
    with pytest.raises(DataError, match="owner/name does not exist here; if it is a data set on the hub, allow"):
        rows_of("owner/name")
    assert asked == []
    assert rows_of("owner/name", allow_network=True) == [{"a": 1}]
    assert asked == ["owner/name"]


@pytest.mark.parametrize("name", ["missing.jsonl", "./owner/name", "/nowhere/rows.json", "a/b/c", "data/rows.jsonl"])
def test_a_path_that_does_not_exist_is_no_hub_id(name):
    with pytest.raises(DataError, match="does not exist$"):
        rows_of(name, allow_network=True)


def test_a_hub_data_set_is_streamed_and_its_media_stay_encoded(monkeypatch):
    datasets = pytest.importorskip("datasets")
    features = {"images": datasets.List(datasets.Image()), "video": datasets.Video(), "a": datasets.Value("int64")}
    features = datasets.Features(features)
    rows = [{"images": [{"bytes": b"jpeg", "path": None}], "video": {"bytes": b"mp4", "path": None}, "a": 1}]
    data = datasets.Dataset.from_list(rows, features=features).to_iterable_dataset()
    asked = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **how: asked.update(name=name, **how) or data)
    assert list(tables.hub_rows("owner/name:test")) == rows
    assert asked == {"name": "owner/name", "split": "test", "streaming": True}


def test_what_the_hub_says_no_to_is_a_message(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def refuse(*_, **__):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match="owner/name does not exist here and cannot be read from the hub: ConnectionError: offline"
    ):
        list(tables.hub_rows("owner/name"))


# ---- what is broken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", b"", "rows.json is empty"),
        ("rows.jsonl", b"", "rows.jsonl is empty"),
        ("rows.parquet", b"", "rows.parquet is empty"),
        ("rows.jsonl", b"\n \n", "rows.jsonl holds no rows"),
        ("rows.json", b"[]", "rows.json holds no rows"),
        ("rows.json", b'{"data": []}', "rows.json holds no rows"),
        ("rows.json", b"  \n ", r"must begin with '\[' or '{' at line 2, column 2"),
        ("rows.json", b"null", "must begin with"),
        ("rows.json", b'[{"a": 1}, {"a": }]', "not valid JSON: Expecting value at line 1, column 18"),
        ("rows.json", b'[\n {"a": 1},\n {"a" 2}\n]', "Expecting ':' delimiter at line 3, column 7"),
        ("rows.json", b'[\n {"a": 1}\n {"a": 2}\n]', r"expected '\]', found '{' at line 3, column 2"),
        ("rows.json", b'[{"a": 1}, {"a": "cut', "Unterminated string starting at at line 1, column 18"),
        ("rows.json", b'[{"a": 1},', "Expecting value at line 1, column 11"),
        ("rows.json", b'[{"a": 1}] x', "there is more text after the end of the value at line 1, column 12"),
        ("rows.json", b'{"data": [], "rows": []}', "two lists of rows, 'data' and 'rows'"),
        ("rows.json", b'{\n"a": 1,\n}', "a member's name must stand in double quotes at line 3, column 1"),
        ("rows.json", b'[{"a": "' + b"\xe9" + b'"}]', "the text is not UTF-8 .*at line 1, column 9"),
        ("rows.json", b'[{"a": 1},\n {"a": "\xc3\xa9 \xe9"}]', "the text is not UTF-8 .*at line 2, column 11"),
        ("rows.json", '[{"a": 1}]'.encode("utf-16"), "looks like UTF-16 or binary; save it as UTF-8"),
        ("rows.jsonl", '{"a": 1}'.encode("utf-16-le"), "looks like UTF-16 or binary; save it as UTF-8"),
        ("rows.jsonl", '{"a": 1}'.encode("utf-32"), "looks like UTF-16 or binary"),
        ("rows.jsonl.gz", b"not packed", "rows.jsonl.gz is damaged"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 50, mtime=0)[:-20], "rows.jsonl.gz is damaged"),
        ("rows.parquet", b"PAR1PAR1PAR1", "cannot be read as Parquet"),
        (
            "rows.csv",
            b"a,b\n1,2",
            r"rows.csv has no known ending; rows are in \.jsonl.*; a table \(\.csv\) becomes rows with",
        ),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        rows_of(write(tmp_path / name, content))


def test_a_broken_line_is_named_and_the_rest_is_read(tmp_path):
    lines = [b'{"a": 1}', b'{"a": ', b'{"a": "caf\xe9"}', b"[1, 2]", b'"text"', b"{} {}", b'{"a": 2}', b'{"cut": "off']
    broken = []
    path = write(tmp_path / "rows.jsonl", b"\n".join(lines))
    rows = rows_of(path, on_broken=lambda file, row, error: broken.append((file, row, str(error))))
    assert rows == [{"a": 1}, {"a": 2}]
    assert [(file, row) for file, row, _ in broken] == [("rows.jsonl", row) for row in (2, 3, 4, 5, 6, 8)]
    texts = [text for _, _, text in broken]
    assert texts[0] == """line is not JSON (got '{"a":'); Expecting value at column 6"""
    assert texts[1].startswith("line is not UTF-8") and "iconv -f LATIN1" in texts[1]
    assert texts[2] == "row is not an object (got [1, 2]); a row is {column: value}"
    assert "Extra data at column 4" in texts[4]
    assert "Unterminated string" in texts[5]


def test_a_broken_line_ends_the_reading_when_nobody_takes_it(tmp_path):
    with pytest.raises(DataError, match="rows.jsonl, row 2: line is not JSON"):
        rows_of(write(tmp_path / "rows.jsonl", '{"a": 1}\n{"a"\n'))


def test_a_broken_line_in_jsonl_under_another_name_is_a_broken_line_too(tmp_path):
    broken = []
    path = write(tmp_path / "rows.json", '{"a": 1,}\n{"a": 2}\n')
    assert rows_of(path, on_broken=lambda *place: broken.append(place[:2])) == [{"a": 2}]
    assert broken == [("rows.json", 1)]


def test_deep_nesting_and_endless_numbers_are_broken_lines(tmp_path):
    deep, endless = "[" * 200_000 + "]" * 200_000, "9" * 10_000
    lines = [f'{{"a": {deep}}}', f'{{"a": {endless}}}', '{"a": 1}']
    broken = []
    path = write(tmp_path / "rows.jsonl", "\n".join(lines))
    assert rows_of(path, on_broken=lambda file, row, error: broken.append((row, error.reason))) == [{"a": 1}]
    assert broken == [(1, "line is not JSON"), (2, "line is not JSON")]
    with pytest.raises(DataError, match="value cannot be read: .*recursion"):
        rows_of(write(tmp_path / "deep.json", f"[{lines[0]}]"))


def test_a_line_without_end_is_refused_without_being_held(tmp_path, monkeypatch):
    monkeypatch.setattr(read_module, "LARGEST_LINE_BYTES", 1000)
    broken = []
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n{"a": "' + "x" * 4321 + '"}\n{"a": 2}\n')
    assert rows_of(path, on_broken=lambda file, row, error: broken.append((row, str(error)))) == [{"a": 1}, {"a": 2}]
    assert broken == [(2, "line is too long (got 'more than 1000 bytes')")]


def test_a_folder_without_data_and_a_folder_of_several_kinds_say_so(tmp_path):
    with pytest.raises(DataError, match="holds no data file; known endings are"):
        rows_of(tmp_path)
    write(tmp_path / "a.jsonl", "{}")
    write(tmp_path / "b.json", "[]")
    with pytest.raises(DataError, match=r"holds files of several kinds \(\.json, \.jsonl\); name the file"):
        rows_of(tmp_path)


def test_a_damaged_datasets_folder_is_named(tmp_path):
    write(tmp_path / "state.json", '{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(DataError, match="cannot be read as a datasets folder"):
        rows_of(tmp_path)


# ---- bounded memory --------------------------------------------------------------------------------------------------


def test_a_json_array_is_not_held_as_a_whole(tmp_path):
    path = tmp_path / "rows.json"
    with path.open("w") as file:
        file.write("[")
        for k in range(2_000):
            file.write(("," if k else "") + json.dumps({"k": k, "text": "y" * 10_000}, indent=2))  # 20 MB
        file.write("]")
    tracemalloc.start()
    assert sum(raw.values["k"] for raw in read_raw(path)) == 1_999_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_where_a_chunk_ends_does_not_matter(monkeypatch, size):
    text = '[{"a": -1.5e-3, "b": [true, null, "\\ud83d\\ude42 \\" \u4f60"]},\n 12345, "x", {}, -Infinity]'

    class Trickle:
        def __init__(self):
            self.data = text.encode()

        def read(self, _):
            head, self.data = self.data[:size], self.data[size:]
            return head

    assert list(JsonValues(Trickle(), "x").rows()) == json.loads(text)


def test_a_file_of_broken_lines_is_not_called_empty(tmp_path):
    broken = []
    path = write(tmp_path / "rows.jsonl", b'{"a": "caf\xe9"}\n')
    assert rows_of(path, on_broken=lambda file, row, error: broken.append(error.reason)) == []
    assert broken == ["line is not UTF-8"]
