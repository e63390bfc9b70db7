"""What a path holds: rows, or media that stand alone."""

import pytest

from mmalign.errors import DataError
from mmalign.formats.media import MediaRef
from mmalign.sources.places import rows_or_media


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_lone_medium_is_named_below_its_folder(tmp_path):
    touch(tmp_path, "a.JPG", "b.mkv")
    assert rows_or_media(tmp_path / "a.JPG").media == (MediaRef(kind="image", uri="a.JPG"),)
    place = rows_or_media(tmp_path / "b.mkv")
    assert (place.media, place.root) == ((MediaRef(kind="video", uri="b.mkv"),), tmp_path)


def test_a_folder_of_media_is_all_of_them_in_order_and_no_hidden_file(tmp_path):
    touch(tmp_path, "b.mp4", "a/c.png", ".hidden.png", "_cache.png", "notes.txt", "a/.thumbnails/c.png", "_old/d.png")
    touch(tmp_path, ".cache/rows.jsonl")
    assert [ref.uri for ref in rows_or_media(tmp_path).media] == ["a/c.png", "b.mp4"]


def test_a_folder_with_a_data_file_holds_rows_and_its_media_are_theirs(tmp_path):
    touch(tmp_path, "a.png", "deep/rows.jsonl.gz")
    place = rows_or_media(tmp_path)
    assert (place.media, place.root) == ((), tmp_path)


def test_a_data_file_and_what_is_not_there_hold_rows(tmp_path):
    touch(tmp_path, "rows.jsonl")
    assert rows_or_media(tmp_path / "rows.jsonl").media == ()
    assert rows_or_media("owner/name").media == ()


def test_media_must_be_below_the_root(tmp_path):
    touch(tmp_path, "in/a.png", "out/b.png")
    assert rows_or_media(tmp_path / "in/a.png", tmp_path).media == (MediaRef(kind="image", uri="in/a.png"),)
    with pytest.raises(DataError, match=r"b.png is not below the data root .*in; give a --root above it"):
        rows_or_media(tmp_path / "out/b.png", tmp_path / "in")
