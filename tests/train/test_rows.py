import pytest

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities.fetch import MediaLimits
from mmalign.train.rows import MediaStore


def test_bytes_go_into_the_store_and_come_back(tmp_path):
    store, ref = MediaStore(tmp_path / "media"), MediaRef(kind="image", content=b"encoded")
    stored = store.put(ref, MediaLimits(root=tmp_path))
    assert stored.content is None and stored.uri.startswith("stored:")
    assert store.fetch(stored) == ref


def test_files_below_the_root_stay_where_they_are(tmp_path):
    ref = MediaRef(kind="image", uri="stored/a.jpg")
    assert MediaStore(tmp_path).put(ref, MediaLimits(root=tmp_path)) == ref


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../etc/passwd", "ab" * 32])
def test_no_row_names_a_file_of_the_store_itself(tmp_path, name):
    ref = MediaRef(kind="image", uri=f"stored:{name}")
    with pytest.raises(RowError, match="image path looks like a name of the store .*data.root"):
        MediaStore(tmp_path).put(ref, MediaLimits(root=tmp_path))
