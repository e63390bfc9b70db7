from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mmalign.formats import store
from mmalign.miniature import event_rows
from mmalign.miniature import events as world
from mmalign.modalities import video
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def reel(root):
    return event_rows.draw_reel("held_out", 40, root, seed=5)


def frames_of(ref, root) -> list[np.ndarray]:
    """Frames as Pillow reads them."""
    with Image.open(root / ref.uri) as clip:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(clip)]


def test_clips_are_files_below_the_root_and_the_same_seed_draws_them_again(reel, root, tmp_path):
    assert reel.refs[7].uri == "videos/held_out/00007.gif"
    again = event_rows.draw_reel("held_out", 40, tmp_path, seed=5)
    assert again == reel
    assert (tmp_path / reel.refs[7].uri).read_bytes() == (root / reel.refs[7].uri).read_bytes()
    assert event_rows.draw_reel("held_out", 40, tmp_path, seed=6).truths != reel.truths


def test_a_clip_is_read_as_it_was_painted_two_frames_a_second(tmp_path):
    reel = event_rows.draw_reel("one", 1, tmp_path, seed=9)
    rng = np.random.default_rng(9)
    painted = world.render(world.draw_events(rng), rng)
    clip = video.load(reel.refs[0], VideoLimits(root=tmp_path, sampling=Sampling(policy="uniform", frames=8)))
    assert np.array_equal(clip.frames, np.stack([np.asarray(frame) for frame in painted]))
    assert clip.timestamps_s == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)


def test_rows_may_carry_their_clips(reel, root):
    inline = event_rows.draw_inline_reel("held_out", 40, seed=5)
    assert inline.truths == reel.truths
    assert inline.refs[7].content == (root / reel.refs[7].uri).read_bytes()


def test_true_demonstrations_are_captions_of_what_happens(reel):
    rows = list(event_rows.demonstrations(reel, biased=False, seed=1))
    assert [row.chosen.text for row in rows] == [world.caption(truth) for truth in reel.truths]
    assert rows[3].id == "held_out:3" and rows[3].media == (reel.refs[3],)
    assert rows == list(event_rows.prompts(reel))


def test_biased_demonstrations_state_the_events_and_often_another_order(reel):
    rows = list(event_rows.demonstrations(reel, biased=True, seed=1))
    told = [world.parse_caption(row.chosen.text).events for row in rows]
    assert [sorted(events) for events in told] == [sorted(truth) for truth in reel.truths]
    wrong = [events != truth for events, truth in zip(told, reel.truths, strict=True)]
    # The ending comes first in 65 of 100 captions: 26 of 40, standard error 3.
    assert 17 <= sum(wrong) <= 35
    assert {row.chosen.annotator for row in rows} == {"annotator"}


@pytest.mark.parametrize(
    ("mistake", "difficulties"), [("fine", {5}), ("coarse", {0, 1, 2, 3, 4}), ("mixed", {0, 1, 2, 3, 4, 5})]
)
def test_comparisons_put_the_truth_before_the_same_events_in_a_wrong_order(reel, root, mistake, difficulties):
    rows = list(event_rows.comparisons(reel, mistake, seed=2))
    assert [row.chosen.text for row in rows] == [world.caption(truth) for truth in reel.truths]
    for row, truth in zip(rows, reel.truths, strict=True):
        told = world.parse_caption(row.rejected.text).events
        assert told != truth and sorted(told) == sorted(truth)
    # Of the six pairs of events, those that the wrong caption leaves in their order.
    assert {round(row.difficulty * 6, 9) for row in rows} <= difficulties
    assert len({row.difficulty for row in rows}) >= min(3, len(difficulties))
    store.write_jsonl(root / "rows.jsonl", rows)
    assert list(store.read_jsonl(root / "rows.jsonl")) == rows


def test_shuffled_clips_show_their_events_in_the_order_that_is_said(reel, root):
    shuffled, shown = event_rows.with_shuffled_events(reel, root, seed=3)
    assert shuffled.truths == reel.truths
    for ref, truth, seen, original in zip(shuffled.refs, reel.truths, shown, reel.refs, strict=True):
        assert seen != truth and sorted(seen) == sorted(truth)
        before, after = frames_of(original, root), frames_of(ref, root)
        assert len(after) == 8
        for number, event in enumerate(seen):
            place = truth.index(event)
            for frame in range(2):
                assert np.array_equal(after[2 * number + frame], before[2 * place + frame])


def test_blank_clips_show_nothing_for_as_long(reel, root):
    blank = event_rows.with_blank_frames(reel, root)
    assert blank.truths == reel.truths and len(blank.refs) == len(reel.refs)
    frames = np.stack(frames_of(blank.refs[0], root))
    assert len(frames) == 8
    assert set(frames.ravel()) == {20, 21}
