import base64
import dataclasses
import io
import os

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded
from PIL import Image
from videos import number_of, numbered, write, write_sound

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import clips, video, video_file, video_source
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits

ALL = Sampling(policy="uniform", frames=1000)


def ref(uri: str, **facts) -> MediaRef:
    return MediaRef(kind="video", uri=uri, **facts)


def limits_in(root, **values) -> VideoLimits:
    return VideoLimits(**{"root": root, "sampling": ALL, **values})


def loaded(reference: MediaRef, limits: VideoLimits) -> video.Clip:
    """Load a clip, after `check` promised its shape."""
    promised = video.check(reference, limits)
    clip = video.load(reference, limits)
    assert clip.frames.dtype == np.uint8
    assert (promised.frames, promised.height, promised.width, 3) == clip.frames.shape
    assert (len(clip.indices), len(clip.timestamps_s)) == (promised.frames, promised.frames)
    for fact in ("source_fps", "source_frames", "duration_s"):
        assert getattr(promised, fact) == getattr(clip, fact)
    return clip


def seen(clip: video.Clip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


FILES = {
    "a.mp4": {"codec": "libx264"},
    "b.mp4": {"codec": "mpeg4"},
    "c.mkv": {"codec": "libx264"},
    "d.avi": {"codec": "mpeg4"},
    "e.avi": {"codec": "libx264"},
    "f.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "g.mov": {"codec": "mjpeg"},
    "h.ts": {"codec": "libx264"},
    "i.flv": {"codec": "libx264"},
    "j.h264": {"codec": "libx264"},
}


@pytest.mark.parametrize("name", FILES)
def test_every_frame_of_every_container_is_where_it_belongs(folder, name):
    write(folder / name, numbered(20), **FILES[name])
    clip = loaded(ref(name), limits_in(folder))
    assert seen(clip) == list(range(20)) == list(clip.indices)
    fps = 25 if name == "j.h264" else 10  # a bare stream says nothing of time
    assert clip.timestamps_s == pytest.approx([k / fps for k in range(20)], abs=1e-3)
    assert clip.duration_s == pytest.approx(20 / fps, abs=1e-3)
    assert (clip.source_frames, clip.source_fps) == (20, pytest.approx(fps, rel=1e-3))


@pytest.mark.parametrize("name", ["a.mp4", "c.mkv", "e.avi", "h.ts"])
def test_frames_far_apart_are_the_same_frames(folder, name):
    write(folder / name, numbered(28), gop=6, **FILES[name])
    clip = loaded(ref(name, frame_indices=(27, 3, 3, 14)), limits_in(folder))
    assert seen(clip) == [27, 3, 3, 14] == list(clip.indices)
    assert clip.timestamps_s == pytest.approx([2.7, 0.3, 0.3, 1.4], abs=1e-3)


def want(**values) -> clips.Want:
    return dataclasses.replace(video_source.want_of(ref("x"), VideoLimits(sampling=ALL)), **values)


def both_readers(path, indices, monkeypatch):
    pytest.importorskip("decord", reason="decord has no wheel for this machine")
    opened = []
    decord = video_file._decord
    monkeypatch.setattr(video_file, "_decord", lambda *how: opened.append(decord(*how)) or opened[-1])
    first = [np.asarray(picture) for picture in video_file.VideoFile(str(path), want()).read(indices)]
    monkeypatch.setattr(video_file, "_decord", lambda *how: None)
    second = [np.asarray(picture) for picture in video_file.VideoFile(str(path), want()).read(indices)]
    assert opened != [None], "decord did not take part"
    return zip(first, second, strict=True)


@pytest.mark.parametrize("indices", [range(28), (0, 11, 13, 27), (26, 27)])
@pytest.mark.parametrize("name", ["a.mp4", "c.mkv", "f.webm"])
def test_decord_and_pyav_agree_frame_by_frame(folder, name, indices, monkeypatch):
    write(folder / name, numbered(28), gop=12, **FILES[name])
    for one, other in both_readers(folder / name, indices, monkeypatch):
        assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize("name", ["baby_reading.mp4", "flipping_a_pancake.mkv"])
def test_decord_and_pyav_agree_on_real_videos(shared_data, name, monkeypatch):
    for one, other in both_readers(shared_data / "video" / name, (5, 60, 61, 200), monkeypatch):
        assert np.abs(one.astype(int) - other).max() <= 2


def test_a_video_whose_frames_differ_in_length_keeps_the_times_of_its_container(folder):
    times_s = [0.0, 0.1, 0.2, 0.3, 2.0, 4.0, 4.1, 4.2]
    write(folder / "vfr.mp4", numbered(8), codec="libx264", times_s=times_s)
    clip = loaded(ref("vfr.mp4"), limits_in(folder))
    assert seen(clip) == list(range(8))
    assert clip.timestamps_s == pytest.approx(times_s)
    # One frame a second for 4.3 s: the middles are 0.54, 1.61, 2.69 and 3.76 s, where frames 3, 3, 4 and 4 are seen.
    slow = loaded(ref("vfr.mp4"), limits_in(folder, sampling=Sampling(policy="fps", fps=1.0)))
    assert (slow.indices, seen(slow)) == ((3, 4), [3, 4])


@pytest.mark.parametrize(
    ("degrees", "size", "red", "blue"),
    # The right side is red above and blue below. Against the clock by 90 degrees it is up, red on the left.
    [(90, (64, 48), (5, 5), (5, -5)), (180, (48, 64), (-5, 5), (5, 5)), (270, (64, 48), (-5, -5), (-5, 5))],
)
def test_rotated_videos_stand_upright(folder, degrees, size, red, blue):
    write(folder / "turned.mp4", numbered(5), codec="libx264", rotation=degrees)
    clip = loaded(ref("turned.mp4"), limits_in(folder))
    assert clip.frames.shape[1:3] == size
    assert (clip.frames[3][red] - [200, 30, 30]).astype(np.int8) == pytest.approx(0, abs=6)
    assert (clip.frames[3][blue] - [30, 30, 200]).astype(np.int8) == pytest.approx(0, abs=6)


def test_animated_pictures_keep_their_pauses_and_lie_on_white(folder):
    frames = [Image.fromarray(frame) for frame in numbered(4)]
    for format in ("GIF", "WEBP", "PNG"):
        how = {"lossless": True} if format == "WEBP" else {}
        content = encoded(
            frames[0], format, save_all=True, append_images=frames[1:], duration=[100, 200, 300, 400], **how
        )
        clip = loaded(MediaRef(kind="video", content=content), limits_in(folder))
        assert seen(clip) == [0, 1, 2, 3], format
        assert clip.timestamps_s == pytest.approx([0.0, 0.1, 0.3, 0.6])
        assert clip.duration_s == pytest.approx(1.0)
    clear = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "WEBP", lossless=True)
    assert loaded(MediaRef(kind="video", content=clear), limits_in(folder)).frames.min() == 255


def test_a_path_bytes_and_a_data_uri_give_the_same_clip(folder):
    write(folder / "a.mp4", numbered(12), codec="libx264")
    content = (folder / "a.mp4").read_bytes()
    uri = "data:video/mp4;base64," + base64.b64encode(content).decode()
    refs = (ref("a.mp4"), MediaRef(kind="video", content=content), ref(uri))
    made = [loaded(each, limits_in(folder)) for each in refs]
    assert len({clip.frames.tobytes() for clip in made}) == 1
    assert len({clip.sha256 for clip in made}) == 1
    good = ref("a.mp4", sha256=made[0].sha256)
    assert video.load(good, limits_in(folder)).sha256 == made[0].sha256
    with pytest.raises(RowError, match="video does not match its sha256"):
        video.load(ref("a.mp4", sha256="0" * 64), limits_in(folder))


def test_a_changed_file_has_another_digest(folder):
    write(folder / "changing.mp4", numbered(3))
    before = video.load(ref("changing.mp4"), limits_in(folder)).sha256
    write(folder / "changing.mp4", numbered(4))
    assert video.load(ref("changing.mp4"), limits_in(folder)).sha256 != before


def test_a_span_in_seconds_is_a_clip_of_the_file(folder):
    write(folder / "a.mp4", numbered(28), codec="libx264")
    clip = loaded(ref("a.mp4", span_s=(1.0, 2.0)), limits_in(folder, sampling=Sampling(policy="uniform", frames=5)))
    # five parts of 0.2 s from 1.0 s on, middles at 1.1, 1.3, ...
    assert (clip.indices, clip.duration_s) == ((11, 13, 15, 17, 19), 1.0)
    assert seen(clip) == [11, 13, 15, 17, 19]
    assert clip.timestamps_s == pytest.approx([1.1, 1.3, 1.5, 1.7, 1.9])
    late = loaded(ref("a.mp4", span_s=(2.5, 60.0)), limits_in(folder))
    assert (seen(late), late.duration_s) == ([25, 26, 27], pytest.approx(0.3))


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


def test_a_clip_cut_without_encoding_begins_where_players_begin(folder):
    """As `ffmpeg -ss 0.9 -c copy` cuts: packets from the last keyframe on, and an edit list that hides some of them."""
    write(folder / "uncut.mp4", numbered(28), codec="libx264", gop=6, options={"bf": "0", "sc_threshold": "0"})
    with av.open(str(folder / "uncut.mp4")) as source, av.open(str(folder / "edited.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        frame_ticks = round(1 / (10 * source.streams.video[0].time_base))
        for packet in source.demux(source.streams.video[0]):
            if packet.size and packet.pts >= 6 * frame_ticks:
                packet.pts, packet.dts = packet.pts - 9 * frame_ticks, packet.dts - 9 * frame_ticks
                packet.stream = stream
                target.mux(packet)
    clip = loaded(ref("edited.mp4"), limits_in(folder))
    assert seen(clip) == list(range(9, 28))
    assert (clip.timestamps_s[0], clip.source_frames) == (0.0, 19)
    assert seen(loaded(ref("edited.mp4", frame_indices=(17, 0, 10)), limits_in(folder))) == [26, 9, 19]


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


def test_real_videos_are_read(shared_data):
    limits = VideoLimits(root=shared_data / "video", max_pixels=10_000, sampling=Sampling(frames=6))
    # Facts as ffprobe gives them.
    facts = {
        "baby_reading.mp4": (243, 25.0, 9.72),
        "cooking.avi": (270, 359 / 12, 9.02507),
        "flipping_a_pancake.mkv": (310, 30.0, 10.333),
    }
    for name, (frames, fps, duration_s) in facts.items():
        clip = loaded(ref(name), limits)
        assert (clip.source_frames, len(clip.indices)) == (frames, 6)
        assert (clip.source_fps, clip.duration_s) == (pytest.approx(fps, rel=1e-4), pytest.approx(duration_s, abs=1e-5))
        assert clip.frames.std() > 20


def test_a_clip_of_one_frame_is_a_clip(folder):
    for name in ("one.mp4", "one.mkv", "one.avi"):
        write(folder / name, numbered(1), codec="mpeg4")
        clip = loaded(ref(name), limits_in(folder, sampling=Sampling(policy="sharpness", frames=2)))
        assert (clip.indices, clip.timestamps_s, clip.source_frames) == ((0,), (0.0,), 1)
        assert clip.duration_s == pytest.approx(0.1)


def test_a_file_that_vanishes_while_it_is_read_is_refused(folder, monkeypatch):
    def gone(path):
        raise FileNotFoundError(2, "No such file", path)

    write(folder / "a.mp4", numbered(2))
    monkeypatch.setattr(video_source, "_hash_of", gone)
    with pytest.raises(RowError, match="videos.2.: video cannot be read .*No such file"):
        video.load(ref("a.mp4"), limits_in(folder), field="videos[2]")


def test_black_frames_stay_black(folder):
    write(folder / "black.mp4", [np.zeros((48, 64, 3), dtype=np.uint8)] * 4, codec="libx264")
    assert loaded(ref("black.mp4"), limits_in(folder)).frames.max() <= 2


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_keyframes_are_the_frames_coded_alone(folder, codec):
    options = {"sc_threshold": "0"} if codec == "libx264" else {"sc_threshold": "1000000000"}
    write(folder / "key.mp4", numbered(20), codec=codec, gop=6, options=options)
    clip = loaded(ref("key.mp4"), limits_in(folder, sampling=Sampling(policy="keyframes", frames=32)))
    assert clip.indices == (0, 6, 12, 18)


def test_the_sharpest_frame_near_each_centre_is_taken(folder):
    plain, checks = np.full((48, 64, 3), 128, dtype=np.uint8), np.full((48, 64, 3), 128, dtype=np.uint8)
    checks[::8] = checks[1::8] = 255
    frames = [checks if k in (3, 7) else plain for k in range(12)]
    write(folder / "sharp.mp4", frames, codec="libx264", options={"crf": "10"})
    two = Sampling(policy="sharpness", frames=2)
    # Centres 4 and 8; frames 3 and 7 are sharp and near.
    assert loaded(ref("sharp.mp4"), limits_in(folder, sampling=two)).indices == (3, 7)
    write(folder / "flat.mp4", [plain] * 12, codec="libx264")
    assert loaded(ref("flat.mp4"), limits_in(folder, sampling=two)).indices == (4, 8)


def test_frames_shrink_into_both_bounds_and_none_is_left_out(folder):
    write(folder / "large.mp4", [np.full((200, 300, 3), 90, dtype=np.uint8)] * 10, codec="libx264")
    bounds = {
        (None, None, None): (10, 200, 300),
        (None, 15_000, None): (10, 100, 150),
        (None, None, 150_000): (10, 100, 150),
        (None, 15_000, 24_000): (10, 40, 60),
        (240_000, None, None): (10, 400, 600),
        (240_000, None, 150_000): (10, 100, 150),  # the total wins
    }
    for (least, most, total), shape in bounds.items():
        clip = loaded(ref("large.mp4"), limits_in(folder, min_pixels=least, max_pixels=most, max_total_pixels=total))
        assert clip.frames.shape == (*shape, 3)
    smaller = video.load(ref("large.mp4"), limits_in(folder, max_pixels=15_000), 600)
    assert smaller.frames.shape == (10, 20, 30, 3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(2, 2000),
    st.integers(2, 2000),
    st.integers(1, 64),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 10**6),
    st.none() | st.integers(1, 10**7),
)
def test_sizes_keep_their_bounds_and_shape(width, height, frames, least, most, total):
    if least and most and least > most:
        least, most = most, least
    size = clips.frame_size(width, height, frames, want(min_pixels=least, max_pixels=most, max_total_pixels=total))
    area = size[0] * size[1]
    bounds = [bound for bound in (most, total and max(1, total // frames)) if bound is not None]
    assert min(size) >= 1
    assert not bounds or area <= min(bounds) or min(size) == 1  # a line of one pixel may be longer than its bound
    assert area >= min([least or 1, width * height, *bounds]) * 0.3  # whole pixels round far at the smallest sizes
    if min(size) > 30:
        assert size[0] / size[1] == pytest.approx(width / height, rel=0.1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["fps", "uniform", "sharpness", "keyframes"]),
    st.integers(1, 30),
    st.integers(1, 20_000),
    st.none() | st.integers(1, 100_000),
    st.none() | st.tuples(st.floats(0.0, 2.0), st.floats(0.01, 2.0)),
)
def test_check_promises_the_shape_that_load_delivers(folder, policy, frames, most, total, span):
    if not (folder / "promise.mp4").exists():
        write(folder / "promise.mp4", numbered(28), codec="libx264", gop=5)
    span_s = None if span is None else (span[0], span[0] + span[1])
    sampling = Sampling(policy=policy, frames=frames, fps=7.0)
    loaded(
        ref("promise.mp4", span_s=span_s),
        limits_in(folder, sampling=sampling, max_pixels=most, max_total_pixels=total),
    )


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


def test_no_file_stays_open(folder):
    write(folder / "a.mp4", numbered(5), codec="libx264")
    video.load(ref("a.mp4"), limits_in(folder))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        video.load(ref("a.mp4"), limits_in(folder))
    assert len(os.listdir("/proc/self/fd")) == before
