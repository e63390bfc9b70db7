import os

import numpy as np
import pytest
from PIL import Image
from videos import number_of, numbered

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import frame_files, video
from mmalign.modalities.frame_files import natural_order
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits

EIGHT = Sampling(policy="uniform", frames=8)


def limits_in(root, **values) -> VideoLimits:
    return VideoLimits(**{"root": root, "sampling": EIGHT, **values})


def folder_of(root, names, count=None) -> MediaRef:
    (root / "clip").mkdir()
    for name, frame in zip(names, numbered(count or len(names)), strict=True):
        Image.fromarray(frame).save(root / "clip" / name)
    return MediaRef(kind="video", uri="clip")


def test_a_folder_is_a_video_of_its_pictures_in_natural_order(tmp_path):
    ref = folder_of(tmp_path, [f"frame{k}.png" for k in range(12)])
    (tmp_path / "clip" / "notes.txt").write_text("not a frame")
    (tmp_path / "clip" / ".hidden.png").write_text("not a frame either")
    clip = video.load(ref, limits_in(tmp_path, sampling=Sampling(policy="uniform", frames=20)))
    assert [number_of(frame) for frame in clip.frames] == list(range(12)) == list(clip.indices)
    assert clip.timestamps_s == tuple(float(k) for k in range(12))
    assert (clip.source_fps, clip.source_frames, clip.duration_s) == (1.0, 12, 12.0)
    shape = video.check(ref, limits_in(tmp_path))
    # eight parts of 1.5 s: middles at 0.75, 2.25, ...
    assert (shape.frames, shape.height, shape.width) == (8, 48, 64)
    assert video.load(ref, limits_in(tmp_path)).indices == (0, 2, 3, 5, 6, 8, 9, 11)


def test_a_list_of_frames_is_taken_as_listed(tmp_path):
    folder_of(tmp_path, ["c.png", "a.png", "b.png"])
    ref = MediaRef(kind="video", frames=("clip/c.png", "clip/a.png", "clip/b.png", "clip/c.png"))
    assert [number_of(frame) for frame in video.load(ref, limits_in(tmp_path)).frames] == [0, 1, 2, 0]


def test_spans_and_indices_choose_among_frames(tmp_path):
    folder_of(tmp_path, [f"{k}.png" for k in range(6)])
    span = MediaRef(kind="video", uri="clip", span_s=(2.0, 5.0))
    assert video.load(span, limits_in(tmp_path)).indices == (2, 3, 4)
    listed = MediaRef(kind="video", uri="clip", frame_indices=(5, 0))
    assert [number_of(frame) for frame in video.load(listed, limits_in(tmp_path)).frames] == [5, 0]


def test_names_sort_as_people_count():
    names = ["f10.png", "f9.png", "f09.png", "g1.png", "f1b2.png", "1.png", "f.png"]
    assert sorted(names, key=natural_order) == ["1.png", "f1b2.png", "f09.png", "f9.png", "f10.png", "f.png", "g1.png"]


def test_frames_shrink_as_those_of_files(tmp_path):
    ref = folder_of(tmp_path, [f"{k}.png" for k in range(4)])
    limits = limits_in(tmp_path, max_total_pixels=4 * 12)
    assert video.load(ref, limits).frames.shape == (4, 3, 4, 3)
    assert (video.check(ref, limits).height, video.check(ref, limits).width) == (3, 4)


def test_the_digest_is_of_the_frames_that_are_taken(tmp_path):
    ref = folder_of(tmp_path, [f"{k}.png" for k in range(20)])
    before = video.load(ref, limits_in(tmp_path)).sha256
    Image.fromarray(numbered(1)[0]).save(tmp_path / "clip" / "0.png")  # never taken: the first middle is at 1.25 s
    assert video.load(ref, limits_in(tmp_path)).sha256 == before
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(tmp_path / "clip" / "1.png")
    assert video.load(ref, limits_in(tmp_path)).sha256 != before


def test_bad_folders_are_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").touch()
    ref = folder_of(tmp_path, ["a.png", "b.png"])
    Image.new("RGB", (8, 8)).save(tmp_path / "clip" / "c.png")
    outside = tmp_path / "root" / "link"
    outside.parent.mkdir()
    outside.symlink_to(tmp_path / "clip")
    rules = [
        ("empty", tmp_path, "video folder holds no pictures .*frames are files that end in .jpg"),
        ("clip", tmp_path, "video has frames of several sizes .*frame 2 is 8 x 8, the first 64 x 48"),
        ("link", tmp_path / "root", "video path leaves the data root"),
        ("nowhere", tmp_path, "video is missing"),
    ]
    for uri, root, message in rules:
        for verb in (video.check, video.load):
            with pytest.raises(RowError, match=message):
                verb(MediaRef(kind="video", uri=uri), limits_in(root))
    monkeypatch.setattr(frame_files, "_MOST_ENTRIES", 2)
    with pytest.raises(RowError, match="video folder holds too many files .*at most 2 are looked at"):
        video.check(ref, limits_in(tmp_path))


def test_a_frame_may_not_leave_the_root(tmp_path):
    ref = folder_of(tmp_path, ["a.png", "b.png"])
    os.symlink("/etc/passwd", tmp_path / "clip" / "c.png")
    for bad in (ref, MediaRef(kind="video", frames=("clip/a.png", "../b.png"))):
        for verb in (video.check, video.load):
            with pytest.raises(RowError, match="image path leaves the data root"):
                verb(bad, limits_in(tmp_path))


def test_broken_and_missing_frames_are_refused(tmp_path):
    ref = folder_of(tmp_path, ["a.png", "b.png"])
    whole = (tmp_path / "clip" / "b.png").read_bytes()
    (tmp_path / "clip" / "b.png").write_bytes(whole[: len(whole) // 2])
    gone = MediaRef(kind="video", frames=("clip/a.png", "clip/gone.png"))
    for bad, reason in ((ref, "image is truncated or broken"), (gone, "image is missing")):
        for verb in (video.check, video.load):
            with pytest.raises(RowError) as error:
                verb(bad, limits_in(tmp_path), field="videos[0]")
            assert (error.value.reason, error.value.field) == (reason, "videos[0]")
