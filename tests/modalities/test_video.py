"""Videos as they are read: containers, decoders, times, rotation, sources."""

import base64
import os

import av
import numpy as np
import pytest
from modalities.clip_cases import FILES, limits_in, loaded, ref, seen, want
from pictures import encoded
from PIL import Image
from videos import numbered, write

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import video, video_file
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits


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


def test_black_frames_stay_black(folder):
    write(folder / "black.mp4", [np.zeros((48, 64, 3), dtype=np.uint8)] * 4, codec="libx264")
    assert loaded(ref("black.mp4"), limits_in(folder)).frames.max() <= 2


def test_no_file_stays_open(folder):
    write(folder / "a.mp4", numbered(5), codec="libx264")
    video.load(ref("a.mp4"), limits_in(folder))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        video.load(ref("a.mp4"), limits_in(folder))
    assert len(os.listdir("/proc/self/fd")) == before
