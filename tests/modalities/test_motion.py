"""Changing clips, and showing them to people."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from videos import number_of, numbered, write

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import motion, video
from mmalign.modalities.video import Clip, VideoLimits


def clip_of(count: int) -> Clip:
    return Clip(
        frames=np.stack(numbered(count)),
        indices=tuple(range(100, 100 + count)),
        timestamps_s=tuple(0.5 * k for k in range(count)),
        source_fps=2.0,
        source_frames=500,
        duration_s=0.5 * count,
        sha256="0" * 64,
    )


def order(clip: Clip) -> list[int]:
    numbers = [number_of(frame) for frame in clip.frames]
    assert [100 + number for number in numbers] == list(clip.indices)  # indices follow the frames
    return numbers


def test_reversal_by_value():
    assert order(video.perturb(clip_of(6), "reverse", seed=0, strength=1.0)) == [5, 4, 3, 2, 1, 0]
    assert order(video.perturb(clip_of(6), "reverse", seed=0, strength=0.5)) == [4, 5, 2, 3, 0, 1]  # three blocks
    assert order(video.perturb(clip_of(6), "reverse", seed=0, strength=0.1)) == [3, 4, 5, 0, 1, 2]  # at least two


def test_moments_stay_where_frames_move():
    for how in ("reverse", "shuffle", "freeze"):
        assert video.perturb(clip_of(6), how, seed=0).timestamps_s == clip_of(6).timestamps_s
    dropped = video.perturb(clip_of(6), "drop", seed=0, strength=0.5)
    assert dropped.timestamps_s == tuple(0.5 * k for k in order(dropped))


def test_shuffling_keeps_blocks_whole():
    numbers = order(video.perturb(clip_of(8), "shuffle", seed=1, strength=0.5))
    assert sorted(numbers) == list(range(8))
    assert all(numbers[k] + 1 == numbers[k + 1] and numbers[k] % 2 == 0 for k in range(0, 8, 2))


@given(st.integers(2, 28), st.integers(0, 10**6), st.floats(0.01, 1.0), st.sampled_from(list(motion.ORDERS)))
def test_no_change_in_time_leaves_a_clip_as_it_was(count, seed, strength, how):
    places = motion.order_of(count, how, seed, strength).tolist()
    assert places != list(range(count))
    assert places == motion.order_of(count, how, seed, strength).tolist()
    assert set(places) <= set(range(count)) and len(places) >= 1
    if how in ("reverse", "shuffle"):
        assert sorted(places) == list(range(count))
    if how == "drop":
        assert len(places) == count - max(1, min(count - 1, round(strength * count)))
    if how == "freeze":
        assert len(places) == count and count - len(set(places)) == max(2, min(count, round(strength * count))) - 1


def test_every_order_but_the_own_is_drawn_alike():
    drawn = [tuple(motion.order_of(3, "shuffle", seed, 1.0).tolist()) for seed in range(500)]
    counts = [drawn.count(each) for each in sorted(set(drawn))]
    assert len(counts) == 5  # 3! - 1
    assert min(counts) > 60  # 100 expected of each


def test_all_frames_lose_the_same_window():
    still = replace(clip_of(4), frames=np.stack([numbered(1)[0]] * 4))
    cut = video.perturb(still, "crop", seed=3, strength=0.75).frames
    assert cut.shape == (4, 24, 32, 3)
    assert all(np.array_equal(cut[0], frame) for frame in cut[1:])
    noisy = video.perturb(still, "noise", seed=3, strength=0.5).frames
    assert not np.array_equal(noisy[0], noisy[1])
    assert np.array_equal(noisy, video.perturb(still, "noise", seed=3, strength=0.5).frames)
    blank = video.perturb(still, "blank", seed=3, strength=1.0).frames
    assert np.ptp(blank, axis=(0, 1, 2)).tolist() == [0, 0, 0]
    assert blank.shape == still.frames.shape == video.perturb(still, "blur", seed=3).frames.shape


def test_unknown_changes_and_strengths_are_refused():
    with pytest.raises(ConfigError, match="video perturbation 'melt' is unknown; use one of reverse, shuffle, drop"):
        video.perturb(clip_of(3), "melt", seed=0)
    for how, strength in [("reverse", 0.0), ("drop", 1.5), ("crop", 1.0)]:
        with pytest.raises(ConfigError, match="must satisfy 0 < strength <= 1"):
            video.perturb(clip_of(3), how, seed=0, strength=strength)
    with pytest.raises(RowError, match="video has too few frames for a change in time"):
        video.perturb(clip_of(1), "shuffle", seed=0)


def picture_in(uri: str, format: str) -> Image.Image:
    head, _, payload = uri.partition(",")
    assert head == f"data:image/{format};base64"
    return Image.open(io.BytesIO(base64.b64decode(payload)))


def test_a_strip_shows_frames_side_by_side(tmp_path):
    write(tmp_path / "a.mp4", numbered(28), codec="libx264")
    strip = picture_in(video.render(MediaRef(kind="video", uri="a.mp4"), VideoLimits(root=tmp_path)), "jpeg")
    assert strip.format == "JPEG"
    # Two a second of 2.8 s are 6 frames, 64 x 48 each with the gap.
    assert strip.size == (6 * 64 - 2, 48)
    levels = np.asarray(strip).astype(int)[24, 10::64, 0][:6]
    # parts of 0.467 s: frames 2, 7, 11, 16, 21 and 25, of level 16 + 8 k
    assert levels == pytest.approx([16 + 8 * k for k in (2, 7, 11, 16, 21, 25)], abs=6)
    small = picture_in(video.render(MediaRef(kind="video", uri="a.mp4"), VideoLimits(root=tmp_path), 2_000), "jpeg")
    assert small.width * small.height <= 2_000


def test_any_codec_becomes_playable_without_one(tmp_path):
    write(tmp_path / "a.avi", numbered(28), codec="mpeg4")
    ref, limits = MediaRef(kind="video", uri="a.avi"), VideoLimits(root=tmp_path)
    film = picture_in(video.playable(ref, limits), "webp")
    assert (film.format, film.n_frames, film.size) == ("WEBP", 24, (64, 48))
    lengths_ms = []
    for k in range(24):
        film.seek(k)
        film.load()
        lengths_ms.append(film.info["duration"])
    assert sum(lengths_ms) == pytest.approx(2_800, abs=30)
    assert video.playable(ref, limits, max_bytes=500) is None
    assert picture_in(video.playable(ref, limits, max_pixels=800), "webp").size == (32, 24)
