"""What videos may cost, and what is taken of them: bounds hold for `check` and `load` alike, wherever frames are."""

import base64
import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import number_of, numbered, write

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import clip_cache, clips, decoder, frame_files, shots, video, video_source
from mmalign.modalities.disk_cache import DiskCache
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.table import limits_below
from mmalign.modalities.video import VideoLimits

ALL = Sampling(policy="uniform", frames=1000)


def ref(uri: str, **facts) -> MediaRef:
    return MediaRef(kind="video", uri=uri, **facts)


def limits_in(root, **values) -> VideoLimits:
    return VideoLimits(**{"root": root, "sampling": ALL, **values})


def folder_of(root: Path, name: str, count: int) -> MediaRef:
    (root / name).mkdir()
    for k, frame in enumerate(numbered(1) * count):
        Image.fromarray(frame).save(root / name / f"{k}.png")
    return ref(name)


def refused(reference: MediaRef, limits: VideoLimits, message: str) -> set[str]:
    """Return the reasons with which `check` and `load` refuse."""
    reasons = set()
    for verb in (video.check, video.load):
        with pytest.raises(RowError, match=message) as error:
            verb(reference, limits, field="videos[0]")
        assert error.value.field == "videos[0]"
        reasons.add(error.value.reason)
    return reasons


# ---- memory and time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_more_pixels_than_memory_are_refused_before_they_are_decoded(tmp_path, monkeypatch, kind):
    reference = folder_of(tmp_path, "clip", 4) if kind == "folder" else ref("a.mp4")
    write(tmp_path / "a.mp4", numbered(4))
    # 4096 times a frame of 480 x 640 at 3 bytes a pixel are 3.8 GB.
    bomb = dataclasses.replace(reference, frame_indices=(0,) * 4096)
    message = "4,096 frames of 640 x 480 are more than half of decode_memory_gb = 4; take fewer, or lower max_pixels"
    assert refused(bomb, limits_in(tmp_path, min_pixels=640 * 480), message) == {"video needs too much memory"}
    assert video.check(bomb, limits_in(tmp_path)).frames == 4096
    roomy = limits_in(tmp_path, min_pixels=640 * 480, decode_memory_bytes=8 * 10**9)
    assert video.check(bomb, roomy).frames == 4096


def test_folders_of_frames_have_the_time_limit_of_files(tmp_path, monkeypatch):
    reference = folder_of(tmp_path, "clip", 6)
    clock = iter(range(1000))
    monkeypatch.setattr(frame_files.time, "monotonic", lambda: float(next(clock)))  # a second between any two looks
    limits = limits_in(tmp_path, decode_timeout_s=4.0)
    message = "it took more than decode_timeout_s = 4"
    assert refused(reference, limits, message) == {"video takes too long to decode"}
    assert len(video.load(reference, limits_in(tmp_path, decode_timeout_s=40.0)).indices) == 6


def test_one_share_of_the_total_holds_for_whoever_asks():
    bounds = VideoLimits(max_total_pixels=5)
    assert clips.pixels_per_frame(8, bounds) == 1  # never none, which would be no bound
    assert clips.pixels_per_frame(2, bounds) == 2
    assert clips.pixels_per_frame(2, VideoLimits(max_pixels=9)) == 9
    assert clips.pixels_per_frame(2, VideoLimits(max_pixels=9, max_total_pixels=10)) == 5
    assert clips.pixels_per_frame(2, VideoLimits()) is None


# ---- where frames are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", ["http://127.0.0.1:9/b.png", "data:image/png;base64,AAAA"])
def test_listed_frames_are_files(tmp_path, frame):
    folder_of(tmp_path, "clip", 1)
    listed = MediaRef(kind="video", frames=("clip/0.png", frame))
    limits = limits_in(tmp_path, allow_http=True)
    assert refused(listed, limits, "list files below data.root") == {"video frame is not a path"}


def test_a_folder_has_no_digest(tmp_path):
    reference = dataclasses.replace(folder_of(tmp_path, "clip", 2), sha256="0" * 64)
    assert refused(reference, limits_in(tmp_path), "leave sha256 out") == {"video folder has no sha256"}


def test_a_file_that_is_not_the_one_listed_is_refused_by_check_too(tmp_path):
    write(tmp_path / "a.mp4", numbered(2))
    reference = ref("a.mp4", sha256="0" * 64)
    assert refused(reference, limits_in(tmp_path), "it changed") == {"video does not match its sha256"}


def test_limits_of_a_kind_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no kind of media 'vidoe'; there are image, video"):
        limits_below(tmp_path, own={"vidoe": {"max_pixels": 5}})


# ---- the time that frames stand for --------------------------------------------------------------------------------


def duration_s(reference: MediaRef, limits: VideoLimits) -> float:
    promised, clip = video.check(reference, limits), video.load(reference, limits)
    assert promised.duration_s == clip.duration_s
    return clip.duration_s


def test_frames_stand_for_the_time_they_lie_in(tmp_path):
    write(tmp_path / "a.mp4", numbered(28), codec="libx264", gop=6, options={"sc_threshold": "0"})  # 10 a second
    limits = limits_in(tmp_path)
    assert duration_s(ref("a.mp4"), limits) == pytest.approx(2.8)
    assert duration_s(ref("a.mp4", span_s=(0.5, 1.5)), limits) == pytest.approx(1.0)
    # Four frames 0.2 s apart are a video of 5 frames a second: 0.8 s.
    assert duration_s(ref("a.mp4", frame_indices=(4, 6, 8, 10)), limits) == pytest.approx(0.8)
    assert duration_s(ref("a.mp4", frame_indices=(10, 4)), limits) == pytest.approx(1.2)
    assert duration_s(ref("a.mp4", frame_indices=(3,)), limits) == pytest.approx(0.1)
    assert duration_s(ref("a.mp4", frame_indices=(3, 3)), limits) == pytest.approx(0.1)
    # Keyframes 0, 6, 12, 18, 24 are 0.6 s apart.
    keyframes = limits_in(tmp_path, sampling=Sampling(policy="keyframes", frames=32))
    assert duration_s(ref("a.mp4"), keyframes) == pytest.approx(3.0)
    # Six by sharpness have their centres 28 / 7 = 4 frames apart.
    sharpest = limits_in(tmp_path, sampling=Sampling(policy="sharpness", frames=6))
    assert duration_s(ref("a.mp4"), sharpest) == pytest.approx(2.4)


def test_the_size_in_the_file_is_told_beside_what_is_taken(tmp_path):
    write(tmp_path / "a.mp4", numbered(2), rotation=90)
    shape = video.check(ref("a.mp4"), limits_in(tmp_path, max_pixels=300))
    assert (shape.source_width, shape.source_height) == (48, 64)
    assert (shape.width, shape.height) == (15, 20)


def test_uniform_takes_middles_whatever_the_number_of_frames(tmp_path):
    # Frame 0 is shown for 9 s, frames 1 to 3 for 0.1 s: the middles of four parts of 2.325 s all show frame 0.
    write(tmp_path / "a.mp4", numbered(4), codec="libx264", times_s=[0.0, 9.0, 9.1, 9.2])
    limits = limits_in(tmp_path, sampling=Sampling(policy="uniform", frames=4))
    assert video.load(ref("a.mp4"), limits).indices == (0,)


def test_what_plays_has_24_frames_also_where_a_row_lists_more(tmp_path):
    write(tmp_path / "a.mp4", numbered(28), codec="libx264")
    uri = video.playable(ref("a.mp4", frame_indices=tuple(range(28)) * 3), limits_in(tmp_path), max_bytes=10**7)
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as moving:
        assert moving.n_frames <= 24  # the coder may join frames that are alike
    assert moving.n_frames > 12


# ---- what is kept --------------------------------------------------------------------------------------------------


def test_the_same_pictures_among_others_are_another_clip(tmp_path):
    clip_cache.opened.cache_clear()
    limits = limits_in(tmp_path, cache_dir=str(tmp_path / "cache"), sampling=Sampling(policy="uniform", frames=2))
    four, forty = folder_of(tmp_path, "four", 4), folder_of(tmp_path, "forty", 40)
    again = MediaRef(kind="video", frames=("four/0.png",) * 40)
    for reference, indices in ((four, (1, 3)), (forty, (10, 30)), (again, (10, 30)), (four, (1, 3))):
        clip, promised = video.load(reference, limits), video.check(reference, limits)
        assert clip.indices == indices
        assert (clip.timestamps_s, clip.source_frames) == (promised.timestamps_s, promised.source_frames)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2  # the last two hold the same at the same times


def test_a_file_is_asked_for_its_shape_once(tmp_path, monkeypatch):
    asked, honest = [], decoder.ask
    monkeypatch.setattr(decoder, "ask", lambda verb, *how, **more: asked.append(verb) or honest(verb, *how, **more))
    monkeypatch.setattr(video_source, "_MOST_SHAPES", 2)
    monkeypatch.setattr(video_source, "_shapes", {})
    write(tmp_path / "a.mp4", numbered(5))
    content = MediaRef(kind="video", content=(tmp_path / "a.mp4").read_bytes())
    for _ in range(3):
        assert video.check(ref("a.mp4"), limits_in(tmp_path)) == video.check(content, limits_in(tmp_path))
    assert asked == ["shape", "shape"]
    assert video.check(ref("a.mp4", frame_indices=(1,)), limits_in(tmp_path)).frames == 1
    write(tmp_path / "a.mp4", numbered(6))
    assert video.check(ref("a.mp4"), limits_in(tmp_path)).frames == 6
    assert asked == ["shape"] * 4
    assert len(video_source._shapes) <= 2


def test_an_entry_whose_time_cannot_be_set_is_still_read(tmp_path, monkeypatch, caplog):
    cache = DiskCache(tmp_path, version="1", max_bytes=1000, name="frame cache")
    cache.put("k", 4, lambda path: path.write_text("kept"))

    def refuse(path):
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "utime", refuse)
    assert [cache.get("k", Path.read_text) for _ in range(2)] == ["kept", "kept"]
    assert (cache.hits, caplog.text) == (2, "")


# ---- animations and shots ------------------------------------------------------------------------------------------


def test_the_picture_for_programs_that_know_no_animation_is_no_frame(tmp_path):
    hidden, *frames = (Image.fromarray(frame) for frame in numbered(5))
    how = {"save_all": True, "append_images": frames, "duration": [100, 200, 300, 400], "default_image": True}
    hidden.save(tmp_path / "a.png", **how)
    clip = video.load(ref("a.png"), limits_in(tmp_path))
    assert [number_of(frame) for frame in clip.frames] == [1, 2, 3, 4]
    assert clip.timestamps_s == pytest.approx([0.0, 0.1, 0.3, 0.6])


def test_cuts_are_found_across_the_blocks_they_are_looked_for_in(monkeypatch):
    generator = np.random.default_rng(0)
    colours = generator.integers(0, 256, (5, 1, 1, 3), dtype=np.uint8)
    frames = np.concatenate([np.broadcast_to(colour, (k + 7, 27, 48, 3)) for k, colour in enumerate(colours)])
    whole, kept = shots.hard_cuts(frames), shots.cleaned([shots.Shot(0, len(frames))], frames, 10.0)
    # Shots of 7, 8, 9, 10 and 11 frames.
    assert np.flatnonzero(whole).tolist() == [6, 14, 23, 33]
    for block in (1, 2, 6, 7, 44, 45):
        monkeypatch.setattr(shots, "_BLOCK_FRAMES", block)
        assert np.array_equal(shots.hard_cuts(frames), whole)
        assert shots.cleaned([shots.Shot(0, len(frames))], frames, 10.0) == kept == [shots.Shot(0, 45)]


def test_looking_for_cuts_needs_little_memory_beside_the_frames():
    import tracemalloc

    frames = np.zeros((4000, 27, 48, 3), dtype=np.uint8)  # 15.6 MB
    tracemalloc.start()
    shots.hard_cuts(frames)
    shots.cleaned([shots.Shot(0, len(frames))], frames, 10.0)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < frames.nbytes
