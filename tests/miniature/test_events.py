from __future__ import annotations

import numpy as np
import pytest

from mmalign.evaluate.order import inversions
from mmalign.miniature import events as world
from mmalign.miniature.events import Event

GREEN_UP, RED_LEFT = Event("green", "up"), Event("red", "left")
BLUE_DOWN, YELLOW_RIGHT = Event("blue", "down"), Event("yellow", "right")
FOUR = (GREEN_UP, RED_LEFT, BLUE_DOWN, YELLOW_RIGHT)


def test_caption_tells_events_in_their_order_and_parses_back():
    text = world.caption((GREEN_UP, RED_LEFT))
    assert text == "green up, red left."
    assert world.parse_caption(text) == ((GREEN_UP, RED_LEFT), True)
    assert world.parse_caption(" red left, green up. ") == ((RED_LEFT, GREEN_UP), True)


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("green up, red", (GREEN_UP,)),
        ("green up, red left", (GREEN_UP, RED_LEFT)),
        ("green up, pink left.", (GREEN_UP,)),
        ("green up red left.", ()),
        ("", ()),
    ],
)
def test_a_caption_outside_the_grammar_yields_what_can_be_read_and_says_so(text, events):
    assert world.parse_caption(text) == (events, False)


def test_the_biased_annotator_gives_the_ending_away_in_65_of_100_captions():
    ending_first = "yellow right, green up, red left, blue down."
    rng = np.random.default_rng(0)
    told = [world.biased_caption(FOUR, rng) for _ in range(2000)]
    assert set(told) == {ending_first, world.caption(FOUR)}
    assert np.mean([text == ending_first for text in told]) == pytest.approx(0.65, abs=0.03)  # standard error 0.011


def test_clips_have_four_events_of_different_colours_and_every_event_occurs():
    rng = np.random.default_rng(0)
    clips = [world.draw_events(rng) for _ in range(300)]
    assert all(len({event.colour for event in events}) == 4 == len(events) for events in clips)
    assert len({event for events in clips for event in events}) == 6 * 4
    assert len({events[3].colour for events in clips}) == 6


def test_frames_show_every_event_as_a_square_that_goes_its_way():
    rng = np.random.default_rng(1)
    directions = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    for _ in range(30):
        events = world.draw_events(rng)
        frames = [np.asarray(frame).astype(int) for frame in world.render(events, rng)]
        assert len(frames) == 8 and {frame.shape for frame in frames} == {(56, 56, 3)}
        for number, event in enumerate(events):
            centres = []
            for frame in frames[2 * number : 2 * number + 2]:
                painted = frame.max(-1) > world.LIGHTEST_BACKGROUND
                assert painted.sum() == 16 * 16
                assert (frame[painted] == world.COLOURS[event.colour]).all()
                centres.append(np.argwhere(painted).mean(0))
            assert tuple((centres[1] - centres[0]) / 24) == directions[event.move]


def test_a_swap_exchanges_two_neighbours():
    rng = np.random.default_rng(2)
    places = [[FOUR.index(event) for event in world.swapped(FOUR, rng)] for _ in range(60)]
    assert {tuple(order) for order in places} == {(1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3, 2)}


def test_a_coarse_mistake_is_the_reverse_or_needs_more_than_one_exchange():
    rng = np.random.default_rng(3)
    told = [world.reversed_or_shuffled(FOUR, rng) for _ in range(400)]
    orders = [tuple(FOUR.index(event) for event in events) for events in told]
    assert min(inversions(order) for order in orders) == 2
    # Backwards in one half, and as one of 20 permutations in the other.
    assert np.mean([order == (3, 2, 1, 0) for order in orders]) == pytest.approx(0.525, abs=0.08)
    assert len(set(orders)) == 20
