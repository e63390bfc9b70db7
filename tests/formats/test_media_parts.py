import pytest

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef


def test_a_clip_is_told_by_bounds_or_by_frame_numbers_not_by_both():
    with pytest.raises(RowError, match="clip has both bounds and frame numbers .*keep one of the two") as error:
        MediaRef(kind="video", uri="a.mp4", span_s=(5.0, 6.0), frame_indices=(0, 1))
    assert error.value.field == "span_s"


def test_a_list_of_frames_has_no_digest():
    with pytest.raises(RowError, match="list of frames has no sha256 .*leave sha256 out") as error:
        MediaRef(kind="video", frames=("a.png", "b.png"), sha256="ab" * 32)
    assert error.value.field == "sha256"
