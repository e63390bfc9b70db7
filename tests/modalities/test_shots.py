import io

import numpy as np
import pytest
from videos import write

from mmalign.formats.media import MediaRef
from mmalign.modalities import shots
from mmalign.modalities.shots import Shot
from mmalign.modalities.video import VideoLimits


def scene(seed: int, frames: int, speed: float = 1.0, width: int = 96, height: int = 54) -> list[np.ndarray]:
    """A textured ground in a colour of its own, and a bright square that crosses it."""
    generator = np.random.default_rng(seed)
    tint = generator.integers(30, 200, 3)
    coarse = generator.integers(-25, 26, (6, 8, 1))
    ground = np.clip(tint + np.kron(coarse, np.ones((height // 6, width // 8, 1), dtype=int)), 0, 255)
    made = []
    for k in range(frames):
        frame = ground.astype(np.uint8).copy()
        left = int(5 + speed * k) % (width - 20)
        frame[15:35, left : left + 20] = 255 - tint
        made.append(frame)
    return made


def test_hard_cuts_of_a_written_video_are_found_to_the_frame(tmp_path):
    lengths = [20, 13, 30, 9, 25]
    frames = [frame for seed, length in enumerate(lengths) for frame in scene(seed, length)]
    write(tmp_path / "cuts.mp4", frames, codec="libx264", fps=25)
    found = shots.detect(MediaRef(kind="video", uri="cuts.mp4"), VideoLimits(root=tmp_path))
    ends = np.cumsum(lengths)
    assert found == [Shot(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True)]


def test_fast_motion_light_changes_and_flicker_are_no_cuts():
    fast = np.stack(scene(3, 60, speed=11.0))
    assert shots.hard_cuts(fast).sum() == 0
    brighter = np.stack([np.clip(scene(4, 1)[0].astype(int) + 2 * k, 0, 255).astype(np.uint8) for k in range(40)])
    assert shots.hard_cuts(brighter).sum() == 0
    flicker = np.stack([scene(5, 1)[0] if k % 2 else 255 - scene(5, 1)[0] for k in range(40)])
    assert shots.hard_cuts(flicker).sum() == 0


def test_a_cut_between_mirrored_pictures_is_found_though_colours_stay():
    one = np.zeros((27, 48, 3), dtype=np.uint8)
    one[:, :24] = 200
    frames = np.stack([one] * 10 + [one[:, ::-1]] * 10)
    assert np.flatnonzero(shots.hard_cuts(frames)).tolist() == [9]


@pytest.mark.parametrize("count", [0, 1])
def test_what_is_too_short_has_no_cut(count):
    assert shots.hard_cuts(np.zeros((count, 27, 48, 3), dtype=np.uint8)).tolist() == [0.0] * count


def test_shots_lie_between_transitions():
    # A cut after frame 2; a transition over frames 6 to 8; the last frame in a transition.
    probabilities = np.array([0, 0, 0.9, 0.1, 0, 0, 0.6, 0.9, 0.7, 0.2, 0, 0, 0.8])
    assert shots.between_transitions(probabilities) == [(0, 3), (3, 7), (9, 13)]
    assert shots.between_transitions(np.zeros(5)) == [(0, 5)]
    assert shots.between_transitions(np.ones(5)) == [(0, 1)]
    assert shots.between_transitions(np.zeros(0)) == []


def test_windows_cover_every_frame_once():
    seen = []

    def first_value(frames):
        seen.append((int(frames[0, 0, 0, 0]), len(frames)))
        return frames[:, 0, 0, 0].astype(float)

    for count, windows in [
        (250, [(0, 250)]),
        # length 100, overlap 20: the tail of 10 behind frame 260 joins; one of 30 is a window of its own
        (100, [(0, 100)]),
        (119, [(0, 119)]),
        (130, [(0, 100), (80, 50)]),
        (190, [(0, 100), (80, 110)]),
    ]:
        seen.clear()
        frames = np.zeros((count, 1, 1, 3), dtype=np.uint8)
        frames[:, 0, 0, 0] = np.arange(count)
        length, overlap = (1000, 400) if count == 250 else (100, 20)
        found = shots.over_windows(frames, first_value, length=length, overlap=overlap)
        assert found.tolist() == list(range(count))
        assert seen == windows


def test_a_plugged_detector_decides():
    def every_tenth(frames):
        assert frames.shape[1:] == (27, 48, 3) and frames.dtype == np.uint8
        return np.array([1.0 if k % 10 == 9 else 0.0 for k in range(len(frames))])

    content = write(io.BytesIO(), scene(0, 30), format="mp4", codec="libx264").getvalue()
    found = shots.detect(MediaRef(kind="video", content=content), VideoLimits(), detector=every_tenth)
    assert found == [(0, 10), (10, 20), (20, 30)]


def test_short_dark_and_plain_shots_are_dropped():
    frames = np.zeros((60, 4, 4, 3), dtype=np.uint8)
    frames[:40, 0, 0] = 200
    frames[50:, 0, 0] = 9
    every = [Shot(0, 7), Shot(7, 40), Shot(40, 50), Shot(50, 60)]
    assert shots.cleaned(every, frames, fps=10.0) == [Shot(7, 40)]
    # at 60 frames a second 0.2 s are 12 frames
    assert shots.cleaned([Shot(0, 11), Shot(11, 40)], frames, fps=60.0) == [Shot(11, 40)]
    assert shots.cleaned([Shot(50, 60)], frames, fps=10.0, least_range=9) == [Shot(50, 60)]


def test_cuts_of_real_videos(shared_data):
    limits = VideoLimits(root=shared_data / "video")
    # As seen: one shot, a cut before frame 47 (and a jump within the same picture at 153, which is none), one shot.
    ends = {"baby_reading.mp4": [243], "cooking.avi": [47, 270], "flipping_a_pancake.mkv": [310]}
    for name, stops in ends.items():
        assert [shot.stop for shot in shots.detect(MediaRef(kind="video", uri=name), limits)] == stops
