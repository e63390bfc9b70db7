import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import ConfigError
from mmalign.modalities.sampling import Part, Sampling, Timeline, part_of, sharpness_windows, windows


def every(seconds: float, count: int, keyframes=()) -> Timeline:
    return Timeline(times_s=np.arange(count) * seconds, end_s=count * seconds, keyframes=keyframes)


def taken(timeline: Timeline, span_s=None, **sampling) -> list[int]:
    found = windows(timeline, part_of(timeline, span_s), Sampling(**sampling))
    assert all(window.stop == window.first + 1 for window in found)
    return [window.first for window in found]


def test_uniform_takes_the_middle_of_equal_parts():
    # Ten frames of a second; three parts of 3.33 s have their middles at 1.67, 5.0 and 8.33 s.
    assert taken(every(1.0, 10), policy="uniform", frames=3) == [1, 5, 8]
    assert taken(every(1.0, 10), policy="uniform", frames=1) == [5]
    assert taken(every(0.1, 4), policy="uniform", frames=4) == [0, 1, 2, 3]


def test_clips_with_fewer_frames_give_fewer():
    assert taken(every(0.1, 3), policy="uniform", frames=8) == [0, 1, 2]
    assert taken(every(0.1, 1), policy="uniform", frames=8) == [0]


def test_uniform_goes_by_time_when_frames_differ_in_length():
    # Frame 0 is shown for 9 s, frames 1 to 10 for 0.1 s each: middles of five parts of 2 s at 1, 3, 5, 7 and 9 s.
    times_s = np.concatenate([[0.0], 9.0 + 0.1 * np.arange(10)])
    assert taken(Timeline(times_s=times_s, end_s=10.0), policy="uniform", frames=5) == [0, 1]


def test_fps_takes_so_many_a_second_up_to_its_cap():
    # 30 frames a second for 4 s at 2 a second: 8 parts of 0.5 s, middles at 0.25, 0.75, ...
    clip = every(1 / 30, 120)
    assert taken(clip, policy="fps", fps=2.0, frames=32) == [7, 22, 37, 52, 67, 82, 97, 112]
    assert taken(clip, policy="fps", fps=2.0, frames=4) == [15, 45, 75, 105]
    assert taken(every(0.1, 2), policy="fps", fps=1.0, frames=32) == [1]
    # more than there are: every frame once
    assert taken(every(1.0, 5), policy="fps", fps=30.0, frames=64) == [0, 1, 2, 3, 4]


def test_keyframes_are_those_that_stand_alone():
    clip = every(0.1, 100, keyframes=(0, 12, 24, 36, 90))
    assert taken(clip, policy="keyframes", frames=8) == [0, 12, 24, 36, 90]
    # of five those at places floor(0.5 * 5 / 2) = 1 and floor(1.5 * 5 / 2) = 3
    assert taken(clip, policy="keyframes", frames=2) == [12, 36]
    assert taken(clip, span_s=(1.0, 3.0), policy="keyframes", frames=8) == [12, 24]
    assert taken(clip, span_s=(5.0, 6.0), policy="keyframes", frames=8) == [50]


def test_two_by_sharpness_are_looked_for_around_a_third_and_two_thirds():
    # 12 frames, interval 4: centres 4 and 8, windows [2, 6) and [6, 10).
    first, second = windows(every(0.1, 12), Part(0, 12, 0.0, 1.2), Sampling(policy="sharpness", frames=2))
    assert (first.first, first.stop, first.centre) == (2, 6, 4.0)
    assert (second.first, second.stop, second.centre) == (6, 10, 8.0)
    assert [first.nearness(index) for index in (2, 3, 4, 5)] == pytest.approx([0.0, 0.5**0.5, 1.0, 0.5**0.5])


def test_by_sharpness_a_short_clip_is_taken_whole():
    assert taken(every(0.1, 2), policy="sharpness", frames=2) == [0, 1]


@given(st.integers(0, 50), st.integers(2, 300), st.integers(1, 40))
def test_windows_of_sharpness_are_disjoint_and_hold_a_frame(first, count, frames):
    if count <= frames:
        return
    found = sharpness_windows(first, first + count, frames)
    assert len(found) == frames
    assert all(
        window.first < window.stop and first <= window.first and window.stop <= first + count for window in found
    )
    assert all(left.stop <= right.first for left, right in zip(found, found[1:], strict=False))
    assert all(0 <= window.nearness(index) <= 1 for window in found for index in range(window.first, window.stop))


@given(
    st.lists(st.floats(0.001, 5.0), min_size=1, max_size=60),
    st.sampled_from(["fps", "uniform", "keyframes", "sharpness"]),
    st.floats(0.1, 30.0),
    st.integers(1, 40),
    st.floats(0.0, 0.9),
    st.floats(0.05, 1.5),
)
def test_no_policy_takes_a_frame_twice_or_from_outside(lengths_s, policy, fps, frames, start, length):
    ends_s = np.cumsum(lengths_s)
    clip = Timeline(times_s=ends_s - lengths_s, end_s=float(ends_s[-1]), keyframes=tuple(range(0, len(ends_s), 7)))
    part = part_of(clip, (start * clip.end_s, (start + length) * clip.end_s))
    found = windows(clip, part, Sampling(policy=policy, fps=fps, frames=frames))
    assert 1 <= len(found) <= frames
    assert part.first <= found[0].first and found[-1].stop <= part.stop
    assert all(left.stop <= right.first for left, right in zip(found, found[1:], strict=False))


def test_a_span_holds_the_frames_that_are_seen_during_it():
    clip = every(1.0, 10)
    assert part_of(clip, None) == (0, 10, 0.0, 10.0)
    assert part_of(clip, (2.0, 5.0)) == (2, 5, 2.0, 5.0)
    assert part_of(clip, (2.5, 4.5)) == (2, 5, 2.5, 4.5)
    assert part_of(clip, (2.2, 2.4)) == (2, 3, 2.2, 2.4)
    assert part_of(clip, (8.0, 99.0)) == (8, 10, 8.0, 10.0)
    assert part_of(clip, (10.0, 12.0)) is None


def test_policies_and_numbers_are_checked():
    with pytest.raises(
        ConfigError, match="sampling 'random' is unknown; use one of fps, uniform, sharpness, keyframes"
    ):
        Sampling(policy="random")
    for wrong in ({"fps": 0.0}, {"frames": 0}, {"fps": float("nan")}):
        with pytest.raises(ConfigError, match="sampling needs fps > 0 and frames >= 1, got"):
            Sampling(**wrong)
