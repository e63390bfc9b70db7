"""Which frames of a video are taken, and how large they become."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modalities.clip_cases import limits_in, loaded, ref, want
from videos import numbered, write

from mmalign.modalities import clips, video
from mmalign.modalities.sampling import Sampling


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
