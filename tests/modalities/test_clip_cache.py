import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from videos import numbered, write

from mmalign.formats.media import MediaRef
from mmalign.modalities import clip_cache, clips, decoder, video
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits

REF = MediaRef(kind="video", uri="a.mp4")


@pytest.fixture
def folder(tmp_path):
    clip_cache.opened.cache_clear()
    write(tmp_path / "a.mp4", numbered(8), codec="libx264")
    return tmp_path


def limits_in(folder, **values) -> VideoLimits:
    return VideoLimits(root=folder, cache_dir=str(folder / "cache"), **values)


def kept(folder) -> list:
    return sorted((folder / "cache").rglob("*.safetensors"))


@pytest.fixture
def decodings(monkeypatch):
    seen = []
    honest = decoder.take
    monkeypatch.setattr(decoder, "take", lambda *asked: seen.append(asked) or honest(*asked))
    return seen


def test_the_second_time_nothing_is_decoded(folder, decodings):
    first, second = video.load(REF, limits_in(folder)), video.load(REF, limits_in(folder))
    assert len(decodings) == 1 == len(kept(folder))
    assert np.array_equal(first.frames, second.frames)
    for fact in ("indices", "timestamps_s", "source_fps", "source_frames", "duration_s", "sha256"):
        assert getattr(first, fact) == getattr(second, fact)
    assert second.frames.dtype == np.uint8 and second.frames.flags.writeable


def test_what_changes_the_pixels_changes_the_key(folder, decodings):
    video.load(REF, limits_in(folder))
    video.load(REF, limits_in(folder, max_pixels=500))
    video.load(REF, limits_in(folder), 600)
    video.load(REF, limits_in(folder, sampling=Sampling(frames=1)))
    video.load(MediaRef(kind="video", uri="a.mp4", span_s=(0.0, 0.4)), limits_in(folder))
    video.load(MediaRef(kind="video", uri="a.mp4", frame_indices=(1,)), limits_in(folder))
    write(folder / "a.mp4", numbered(7), codec="libx264")
    video.load(REF, limits_in(folder))
    assert len(decodings) == 7 == len(kept(folder))
    write(folder / "b.mp4", numbered(7), codec="libx264")  # the same bytes under another name
    video.load(MediaRef(kind="video", uri="b.mp4"), limits_in(folder))
    assert len(decodings) == 7


def test_folders_of_frames_are_kept_too(folder, monkeypatch):
    from PIL import Image

    (folder / "clip").mkdir()
    for k, frame in enumerate(numbered(3)):
        Image.fromarray(frame).save(folder / "clip" / f"{k}.png")
    ref = MediaRef(kind="video", uri="clip")
    first = video.load(ref, limits_in(folder))
    monkeypatch.setattr(clips, "take", None)
    assert np.array_equal(video.load(ref, limits_in(folder)).frames, first.frames)


@pytest.mark.parametrize("content", [b"", b"not safetensors", "other"])
def test_a_broken_file_is_decoded_again(folder, decodings, content, caplog):
    first = video.load(REF, limits_in(folder))
    [path] = kept(folder)
    if content == "other":
        save_file({"frames": np.zeros(3)}, path)
    else:
        path.write_bytes(content)
    assert np.array_equal(video.load(REF, limits_in(folder)).frames, first.frames)
    assert "frame cache" in caplog.text and "is unreadable" in caplog.text
    assert len(decodings) == 2
    assert load_file(path)["frames"].shape == first.frames.shape


def test_the_directory_keeps_its_cap(folder):
    clip_bytes = video.load(REF, VideoLimits(root=folder)).frames.nbytes
    for k in range(1, 7):
        ref = MediaRef(kind="video", uri="a.mp4", span_s=(0.0, 0.1 * k))
        video.load(ref, limits_in(folder, cache_max_bytes=3 * clip_bytes))
        assert sum(path.stat().st_size for path in kept(folder)) <= 3 * clip_bytes


def test_a_disk_that_cannot_be_written_costs_one_warning(folder, caplog):
    (folder / "cache").write_text("a file stands where the directory should be")
    for frames in (1, 2):
        assert len(video.load(REF, limits_in(folder, sampling=Sampling(frames=frames))).indices) == frames
    assert caplog.text.count("going on without storing more") == 1


def test_the_caches_need_no_torch():
    program = "import sys; sys.modules['torch'] = None; import mmalign.modalities.clip_cache"
    subprocess.run([sys.executable, "-c", program], check=True)
