"""Rows on disk come back as they were, in bounded memory, and a file is there whole or not at all."""

import gc
import json
import tracemalloc
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from formats.rows import EVERYTHING, pair, png, preferences
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmalign.errors import DataError, RowError
from mmalign.formats import parquet, store
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response

PICTURE = MediaRef(kind="image", content=png())
PATH = MediaRef(kind="image", uri="kitchen.jpg")
STORES = {
    ".jsonl": (store.write_jsonl, store.read_jsonl),
    ".parquet": (store.write_parquet, store.read_parquet),
}
either_store = pytest.mark.parametrize("ending", STORES)


def round_trip(folder, ending, rows, **choices):
    write, read = STORES[ending]
    assert write(folder / f"rows{ending}", iter(rows), **choices) == len(rows)
    return list(read(folder / f"rows{ending}"))


@given(rows=st.lists(preferences(), max_size=5), rows_per_group=st.integers(1, 3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_row_says_comes_back(tmp_path_factory, rows, rows_per_group):
    folder = tmp_path_factory.mktemp("store")
    assert round_trip(folder, ".jsonl", rows) == rows
    assert round_trip(folder, ".parquet", rows, rows_per_group=rows_per_group) == rows


@either_store
def test_a_row_that_says_everything_comes_back(tmp_path, ending):
    assert round_trip(tmp_path, ending, [EVERYTHING]) == [EVERYTHING]


@either_store
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_responses_comes_back(tmp_path, ending, count):
    row = pair(0, responses=tuple(Response.of(f"answer {k}") for k in range(count)))
    assert round_trip(tmp_path, ending, [row]) == [row]


@either_store
def test_no_rows_come_back_as_no_rows(tmp_path, ending):
    assert round_trip(tmp_path, ending, []) == []


@either_store
def test_ten_thousand_turns_come_back(tmp_path, ending):
    turns = tuple(Message.of("user" if k % 2 == 0 else "assistant", f"turn {k}") for k in range(10_001))
    row = Preference(id="long", prompt=turns, responses=(Response.of("a"), Response.of("b")))
    assert round_trip(tmp_path, ending, [row]) == [row]


def test_a_pair_has_trls_columns_and_nothing_more():
    assert store.to_columns(pair(3, PATH)) == {
        "id": "row-3",
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is number 3?"}]}],
        "images": [{"bytes": None, "path": "kitchen.jpg"}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A kettle."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A fridge."}]}],
    }


@pytest.mark.parametrize(("ties", "rejected"), [((), "c"), (((1, 2),), "b"), (((0, 1),), "c"), (((0, 1, 2),), "b")])
def test_rejected_is_the_first_of_the_worst_and_never_the_chosen_one(ties, rejected):
    row = pair(0, responses=tuple(map(Response.of, "abc")), ties=ties)
    columns = store.to_columns(row)
    assert row.rejected.text == columns["rejected"][0]["content"][0]["text"] == rejected
    assert store.from_columns(columns) == row


def test_one_response_has_no_rejected_and_three_have_all_responses():
    answers = tuple(Response.of(text) for text in "abc")
    assert "rejected" not in store.to_columns(pair(0, responses=answers[:1]))
    columns = store.to_columns(pair(0, responses=answers))
    assert [response["messages"][0]["content"][0]["text"] for response in columns["responses"]] == ["a", "b", "c"]
    assert columns["rejected"][0]["content"][0]["text"] == "c"


def test_images_stand_in_the_order_of_their_placeholders():
    first, second = MediaRef(kind="image", uri="first.jpg"), MediaRef(kind="image", uri="second.jpg")
    row = replace(pair(0, first, second), prompt=(Message.of("user", 1, 0, "?"),))
    columns = store.to_columns(row)
    assert [image["path"] for image in columns["images"]] == ["second.jpg", "first.jpg"]
    assert store.from_columns(columns) == row


@pytest.mark.parametrize(
    ("kinds", "said"),
    [("tt", [None, None]), ("ti", [[], 1]), ("it", [1, []]), ("ttit", [[], [], 1, []])],
    ids=["text only", "picture later", "picture first", "picture in the middle"],
)
@either_store
def test_images_is_a_column_of_every_row_or_of_none(tmp_path, ending, kinds, said):
    rows = [pair(k, *([PATH] if kind == "i" else [])) for k, kind in enumerate(kinds)]
    choices = {"rows_per_group": 1} if ending == ".parquet" else {}
    assert round_trip(tmp_path, ending, rows, **choices) == rows
    if ending == ".jsonl":
        raw = [json.loads(line).get("images") for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    else:
        table = pq.read_table(tmp_path / "rows.parquet")
        raw = table["images"].to_pylist() if "images" in table.column_names else [None] * len(rows)
    assert [len(images) if images else images for images in raw] == said


def test_a_column_that_speaks_late_widens_the_parquet_file(tmp_path):
    rows = [pair(0), pair(1), pair(2, margin=2.5), pair(3, PATH, tags={"a": "b"})]
    assert round_trip(tmp_path, ".parquet", rows, rows_per_group=1) == rows
    names = pq.read_schema(tmp_path / "rows.parquet").names
    assert names == ["id", "prompt", "images", "chosen", "rejected", "margin", "tags"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


FRAMES = MediaRef(kind="video", frames=("clip/1.jpg", "clip/2.jpg"))


def test_a_list_of_frames_stands_among_the_facts_and_leaves_its_place_in_the_column_empty():
    columns = store.to_columns(pair(0, FRAMES, MediaRef(kind="video", uri="a.mp4")))
    assert columns["videos"] == [{"bytes": None, "path": None}, {"bytes": None, "path": "a.mp4"}]
    assert columns["media_facts"] == [{"frames": ["clip/1.jpg", "clip/2.jpg"]}, {}]
    assert json.loads(store.to_line(pair(0, FRAMES)))["videos"] == [None]


def test_a_clip_without_a_place_is_refused_unless_its_frames_are_listed():
    row = store.to_columns(pair(0, FRAMES))
    assert store.from_columns(row).media == (FRAMES,)
    with pytest.raises(RowError, match=r"videos\[0\]: video is neither a path"):
        store.from_columns(row | {"media_facts": None})
    with pytest.raises(RowError, match="media needs exactly one of a uri, its bytes and its frames"):
        store.from_columns(row | {"videos": ["a.mp4"]})


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x00\x00\x00\x18ftypmp42", "video/mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", "video/quicktime"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video/x-msvideo"),
        (b"\x1aE\xdf\xa3\x93B\x82\x88matroska", "video/x-matroska"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"GIF89a", "image/gif"),
        (b"something else", "application/octet-stream"),
    ],
)
def test_bytes_are_named_by_how_they_begin(start, kind):
    assert store.mime_type(start) == kind


def test_bytes_stand_in_jsonl_as_a_data_uri_that_names_the_kind_of_picture():
    assert json.loads(store.to_line(pair(0, PICTURE)))["images"][0].startswith("data:image/png;base64,iVBOR")


@either_store
def test_memory_does_not_grow_with_the_number_of_rows(tmp_path, ending):
    write, read = STORES[ending]
    medium, count = 100_000, 200  # 20 MB of media
    rows = (pair(k, MediaRef(kind="image", content=bytes([k]) * medium)) for k in range(count))
    choices = {"rows_per_group": 10} if ending == ".parquet" else {}
    gc.collect()
    tracemalloc.start()
    write(tmp_path / f"rows{ending}", rows, **choices)
    assert sum(1 for _ in read(tmp_path / f"rows{ending}")) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize("where", ["image", "video", "video of an answer"])
def test_a_row_group_ends_when_its_media_are_large(tmp_path, monkeypatch, where):
    monkeypatch.setattr(parquet, "_LARGEST_GROUP_BYTES", 1000)
    media = [MediaRef(kind=where.split()[0], content=bytes([k + 1]) * 600) for k in range(6)]
    rows = [pair(k, ref) for k, ref in enumerate(media)]
    if where == "video of an answer":
        clip = MediaRef(kind="video", uri="a.mp4")
        answers = [(Response.of("a"), Response.of("b", media=(ref,))) for ref in media]
        rows = [pair(k, clip, responses=both) for k, both in enumerate(answers)]
    assert round_trip(tmp_path, ".parquet", rows) == rows
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_never_gets_into_json(number):
    with pytest.raises(RowError, match="number is not finite"):
        pair(0, margin=number)
    row = pair(0, margin=1.0)
    object.__setattr__(row, "margin", number)  # past the record's own check
    with pytest.raises(RowError, match="row-0: row cannot be written as JSON"):
        store.to_line(row)


def test_half_a_surrogate_pair_is_named_before_it_is_written(tmp_path):
    with pytest.raises(RowError, match="row-0: row cannot be written as JSON.*surrogates not allowed"):
        store.write_jsonl(tmp_path / "rows.jsonl", [pair(0, responses=(Response.of("\ud83d"),))])
    assert list(tmp_path.iterdir()) == []


@either_store
def test_a_file_appears_only_when_it_is_whole(tmp_path, ending):
    def rows():
        yield pair(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        STORES[ending][0](tmp_path / f"rows{ending}", rows())
    assert list(tmp_path.iterdir()) == []


@either_store
def test_a_full_disk_is_a_message_and_leaves_nothing_behind(tmp_path, ending):
    (tmp_path / f"rows{ending}.partial").symlink_to("/dev/full")
    rows = (pair(k, PICTURE) for k in range(300))
    with pytest.raises(DataError, match=rf"cannot write .*rows\{ending}: .*No space left"):
        STORES[ending][0](tmp_path / f"rows{ending}", rows)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_line_is_named_with_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(store.to_line(pair(0)) + "\n" + store.to_line(pair(1))[:40] + "\n")
    rows = store.read_jsonl(path)
    assert next(rows) == pair(0)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: line is not JSON"):
        next(rows)


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read as Parquet"):
        list(store.read_parquet(tmp_path / "rows.parquet"))


def test_a_parquet_file_cut_short_is_named(tmp_path):
    store.write_parquet(tmp_path / "rows.parquet", [pair(k, PICTURE) for k in range(9)])
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        list(store.read_parquet(tmp_path / "rows.parquet"))


ROW = store.to_columns(pair(0, PATH))


def one_fact(name, value):
    """The columns of a row whose first response says `name`."""
    return {"responses": [{"messages": ROW["chosen"], name: value}, {"messages": ROW["rejected"]}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt: column must be a list of messages"),
        ({"prompt": [{"role": "user", "content": 7}]}, "prompt.0.: a message must be"),
        ({"prompt": [{"role": "user", "content": [{"type": "sound"}]}]}, "a part must be a text or a medium"),
        ({"images": []}, r"placeholders and media do not match: 1 placeholder\(s\), 0 medium"),
        ({"images": ["a.jpg", "b.jpg"]}, r"placeholders and media do not match: 1 placeholder\(s\), 2 medium"),
        ({"images": [7]}, r"images\[0\]: image is neither a path, bytes nor a data URI"),
        ({"images": ["data:image/png;base64,???"]}, r"images\[0\]: data URI is not valid base64"),
        ({"images": 5}, "images: column must be a list of media .got 5."),
        ({"images": "a.jpg"}, "images: column must be a list of media .got 'a.jpg'."),
        ({"images": {"bytes": None, "path": "a.jpg"}}, "images: column must be a list of media"),
        ({"chosen": [{"role": "assistant", "content": [{"type": "image"}]}]}, "chosen: a response must not hold media"),
        ({"chosen": None, "rejected": None}, "row has no response"),
        ({"margin": "3"}, r"margin: number is not finite \(got '3'\)"),
        ({"margin": float("nan")}, r"margin: number is not finite \(got nan\)"),
        ({"ties": [[0]]}, "a tie must name neighbouring responses"),
        ({"ties": 3}, "a column has the wrong shape"),
        ({"media_order": [1]}, "media_order must name every medium once"),
        ({"media_order": [0.0]}, "media_order: must be a whole number from 0 .got 0.0."),
        ({"media_order": [float("inf")]}, "media_order: must be a whole number from 0 .got inf."),
        ({"media_facts": [{}, {}]}, "media_facts must have one entry a placeholder"),
        ({"media_facts": [{"sha256": 5}]}, "sha256: must be a text .got 5."),
        ({"media_facts": [{"span_s": [1]}]}, "clip bounds must satisfy 0 <= start < end"),
        ({"media_facts": [{"span_s": [0, "x"]}]}, "span_s: number is not finite .got 'x'."),
        ({"media_facts": [{"frame_indices": ["a"]}]}, "frame_indices: must be a whole number from 0 .got 'a'."),
        ({"media_facts": [{"frames": ["a.jpg"]}]}, "media needs exactly one of a uri, its bytes and its frames"),
        ({"videos": "a.mp4"}, "videos: column must be a list of media .got 'a.mp4'."),
        ({"media": "a.wav"}, "media: column must be a list of media .got 'a.wav'."),
        ({"media": ["a.wav"]}, r'media\[0\]: medium must be {"kind": ..., "path": ...}'),
        ({"media": [{"path": "a.wav"}]}, "medium must be"),
        ({"media": [{"kind": "image", "path": "a.jpg"}]}, "kind that has a column of its own .*put it into images"),
        ({"media": [{"kind": "Sound", "path": "a.wav"}]}, "media kind is not a name .got 'Sound'"),
        ({"media": [{"kind": "sound", "path": "a.wav"}]}, r"do not match: 1 placeholder\(s\), 2 medium"),
        ({"media": [{"kind": "sound"}]}, r"media\[0\]: sound is neither a path, bytes nor a data URI"),
        ({"media": [{"kind": "sound", "json": 5}]}, "json of a medium must be an object or a list .got 5."),
        ({"media": [{"kind": "sound", "json": {"a": float("nan")}}]}, "json of a medium cannot be written"),
        ({"media": [{"kind": "sound", "json": ["\ud83d"]}]}, "json of a medium cannot be written"),
        ({"media": [{"kind": "sound", "json": [1], "path": "a"}]}, "medium is said in two ways .*keep json or path"),
        ({"images": [{"json": [1]}]}, "image is neither a path, bytes nor a data URI"),
        ({"images": ["half \ud83d.jpg"]}, "uri: text is not valid Unicode"),
        ({"margin": 10**400}, "margin: number is too large .got 'about 2..1328'."),
        ({"weight": 2**60}, "weight: number is too large .got '1152921504606846976'.; at most 2..53 is held exactly"),
        ({"id": "\ud83d"}, "id: text is not valid Unicode"),
        ({"tags": ["a"]}, "tags: must be {name: value} .got .'a'"),
        ({"tags": {"year": 2020}}, "tags.year: must be a text .got 2020.; put it in quotes"),
        ({"tags": {"a": "\ud83d"}}, "tags.a: text is not valid Unicode"),
        ({"provenance": {"source": ["a"]}}, "provenance.source: must be a text"),
        (one_fact("score", 10**400), "score: number is too large"),
        (one_fact("scores", [1]), r"responses\[0\].scores: must be {name: value}"),
        (one_fact("scores", {"good": "very"}), "good: number is not finite"),
        (one_fact("critique", 5), "critique: must be a text .got 5."),
        (one_fact("model", ["m"]), "model: must be a text"),
        (one_fact("annotator", True), "annotator: must be a text"),
        (one_fact("spans", [{"start": 0.0, "end": 2.0, "weight": 0}]), "spans.start: must be a whole number from 0"),
        (one_fact("spans", [{"start": 0, "end": True, "weight": 0}]), "spans.end: must be a whole number from 0"),
        (one_fact("spans", [{"start": 0, "end": 10**30, "weight": 0}]), "spans.end: number is too large"),
        (one_fact("spans", [{"start": 2, "end": 2, "weight": 0}]), "span must satisfy 0 <= start < end"),
        (
            {"responses": [{"messages": ROW["chosen"]}, {"messages": ROW["chosen"]}]},
            "chosen and rejected must be the best and the worst",
        ),
        ({"responses": ["x"]}, "a response must be"),
        (one_fact("media", [{"kind": "video", "path": "a.mp4"}]), r"responses.0..media: response has media of its own"),
        (one_fact("media", [{"kind": "image", "frames": ["a.jpg"]}]), "image cannot be a list of frames"),
        (one_fact("media", [{"kind": "video", "frames": "a.jpg"}]), "frames must be a list of paths .got 'a.jpg'."),
        (one_fact("media", [{"kind": "video", "frames": []}]), "list of frames is empty"),
    ],
)
def test_a_column_that_is_wrong_is_named(change, message):
    with pytest.raises(RowError, match=message):
        store.from_columns(ROW | change)
