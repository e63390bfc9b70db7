"""Videos that are refused, by `check` and `load` alike."""

import io

import av
import numpy as np
import pytest
from modalities.clip_cases import FILES, limits_in, ref
from videos import numbered, write, write_sound

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import video, video_source
from mmalign.modalities.video import VideoLimits


def test_what_is_not_there_is_refused(folder):
    write(folder / "a.mp4", numbered(12), codec="libx264")
    rules = {
        ref("a.mp4", span_s=(3.0, 4.0)): "video clip starts behind the end .*the file ends at 1.200 s",
        ref("a.mp4", frame_indices=(3, 12)): "video has no such frame .*frame 12 is listed; it has 12, counted from 0",
        ref("a.mp4", frame_indices=()): "video lists no frames",
        ref("a.mp4", frame_indices=tuple(range(5)) * 1000): "video lists too many frames .*at most 4,096 are read",
        ref("b/missing.mp4"): "video is missing",
        ref("../a.mp4"): "video path leaves the data root",
    }
    for reference, message in rules.items():
        for verb in (video.check, video.load):
            with pytest.raises(RowError, match=message) as error:
                verb(reference, limits_in(folder), field="videos[1]")
            assert error.value.field == "videos[1]"


def test_what_is_no_video_is_refused(folder):
    write_sound(folder / "sound.m4a")
    (folder / "text.mp4").write_text("not a video" * 100)
    (folder / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    (folder / "list.ffconcat").write_text("ffconcat version 1.0\nfile a.mp4\n")
    rules = {
        "sound.m4a": "video has no picture stream",
        "text.mp4": "video is not in a known format or broken",
        "list.m3u8": "video is not in a known format or broken",
        "list.ffconcat": "video is not in a known format or broken",
    }
    for name, reason in rules.items():
        for verb in (video.check, video.load):
            with pytest.raises(RowError) as error:
                verb(ref(name), limits_in(folder))
            assert error.value.reason == reason


@pytest.mark.parametrize("name", ["a.mp4", "c.mkv", "e.avi"])
def test_a_file_that_was_cut_is_refused_by_check_and_load(folder, name):
    write(folder / name, numbered(28), **FILES[name])
    whole = (folder / name).read_bytes()
    if name.endswith("mp4"):
        whole = _index_first(folder, whole)
    cut = MediaRef(kind="video", content=whole[: int(len(whole) * 0.6)])
    outcomes = set()
    for verb in (video.check, video.load):
        try:
            outcomes.add(verb(cut, limits_in(folder)).source_frames)
        except RowError as error:
            outcomes.add(error.reason)
    assert len(outcomes) == 1
    # Matroska is made for streams: what is there plays, and nothing promised more.
    assert outcomes & {"video is truncated or broken", "video is not in a known format or broken"} or name == "c.mkv"


def _index_first(folder, whole: bytes) -> bytes:
    """Return the same MP4 with its index before its data, as on the web, so that it opens when it was cut."""
    with (
        av.open(io.BytesIO(whole)) as source,
        av.open(str(folder / "first.mp4"), "w", container_options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return (folder / "first.mp4").read_bytes()


def test_the_corrupted_sample_is_refused_by_check_and_load(shared_data):
    limits = VideoLimits(root=shared_data / "video")
    for verb in (video.check, video.load):
        with pytest.raises(RowError, match="packet 30 is damaged") as error:
            verb(ref("corrupted.mp4"), limits)
        assert error.value.reason == "video is truncated or broken"


def test_a_file_that_vanishes_while_it_is_read_is_refused(folder, monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file", path)

    write(folder / "a.mp4", numbered(2))
    monkeypatch.setattr(video_source, "_hash_of", gone)
    with pytest.raises(RowError, match="videos.2.: video cannot be read .*No such file"):
        video.load(ref("a.mp4"), limits_in(folder), field="videos[2]")


def test_what_is_too_large_is_refused_before_it_is_decoded(folder):
    write(folder / "a.mp4", numbered(5), codec="libx264")
    write(folder / "line.mp4", [np.zeros((16, 480, 3), dtype=np.uint8)] * 2, codec="mpeg4")
    for verb in (video.check, video.load):
        with pytest.raises(RowError, match="video has too many pixels .*64 x 48 exceeds 3,000; make it smaller"):
            verb(ref("a.mp4"), limits_in(folder, max_decoded_pixels=3_000))
        with pytest.raises(RowError, match="video is too narrow .*480 x 16 is beyond 20 to 1"):
            verb(ref("line.mp4"), limits_in(folder, max_aspect_ratio=20))
        with pytest.raises(RowError, match="video file is too large"):
            verb(ref("a.mp4"), limits_in(folder, max_file_bytes=100))


def test_limits_are_checked():
    with pytest.raises(ConfigError, match="data.video.max_pixels must be positive, got 0"):
        VideoLimits(max_pixels=0)
    with pytest.raises(ConfigError, match="data.video.min_pixels 9 exceeds max_pixels 4"):
        VideoLimits(min_pixels=9, max_pixels=4)


def test_a_network_address_needs_its_switch():
    with pytest.raises(RowError, match="video address needs the network"):
        video.check(ref("http://127.0.0.1:9/a.mp4"), VideoLimits())
