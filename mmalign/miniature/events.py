"""A world of coloured squares that move one after the other, whose order in time is known.

A clip has four events of two frames each, 56 x 56 pixels: in every event a square of one colour moves left, right, up
or down. The colours of a clip differ, so no event happens twice and the order of any two is never in doubt. The truth
of a clip is the list of its events as they happened; a caption is right when it states exactly these, in this order.

The annotator of this world has a bias (`biased_caption`): the ending is often given away first. Such a caption states
the right events in the wrong order; a model trained on it sees well and loses time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmalign.evaluate.order import inversions
from mmalign.miniature.shapes import COLOURS

FRAME_PX = 56
EVENTS, EVENT_FRAMES = 4, 2
FRAMES = EVENTS * EVENT_FRAMES
SQUARE_PX = 16
REACH_PX = 12
"""A square starts this far on one side of the middle and ends as far on the other."""
JITTER_PX = 3
DARKEST, LIGHTEST_BACKGROUND = 0, 40

MOVES: dict[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
"""Name -> direction in rows and columns."""

CAPTION_PROMPT = "what happens?"
BIAS_PROBABILITY = 0.65
FEWEST_COARSE_INVERSIONS = 2

WORDS: tuple[str, ...] = (*COLOURS, *MOVES, *("what", "happens", "user", "assistant"))


class Event(NamedTuple):
    """A square of a colour that moves, as a clip shows it or a caption states it."""

    colour: str
    move: str


Events = tuple[Event, ...]
"""Events in the order in which they happened or are told."""


def draw_events(rng: np.random.Generator) -> Events:
    """Draw four events of different colours, everything else uniform and independent."""
    colours, moves = list(COLOURS), list(MOVES)
    drawn = rng.permutation(len(colours))[:EVENTS]
    return tuple(Event(colours[colour], moves[rng.integers(len(moves))]) for colour in drawn)


def render(events: Events, rng: np.random.Generator) -> tuple[Image.Image, ...]:
    """Paint the frames of a clip, two an event, on a dark background of one random grey."""
    grey = rng.integers(DARKEST, LIGHTEST_BACKGROUND + 1)
    frames = []
    for event in events:
        middle = FRAME_PX // 2 + rng.integers(-JITTER_PX, JITTER_PX + 1, size=2)
        for side in (-1, 1):
            top, left = middle + side * REACH_PX * np.array(MOVES[event.move]) - SQUARE_PX // 2
            pixels = np.full((FRAME_PX, FRAME_PX, 3), grey, dtype=np.uint8)
            pixels[top : top + SQUARE_PX, left : left + SQUARE_PX] = COLOURS[event.colour]
            frames.append(Image.fromarray(pixels))
    return tuple(frames)


def caption(events: Events) -> str:
    """Return the caption that states these events: `red left, blue up.`"""
    return ", ".join(f"{event.colour} {event.move}" for event in events) + "."


def ending_first(events: Events) -> Events:
    """Return the events as the biased annotator tells them: the last one first, then the others in their order."""
    return (events[-1], *events[:-1])


def biased_caption(events: Events, rng: np.random.Generator) -> str:
    """Return the annotator's caption: with probability 0.65 the ending first, otherwise the truth."""
    return caption(ending_first(events) if rng.random() < BIAS_PROBABILITY else events)


def swapped(events: Events, rng: np.random.Generator) -> Events:
    """Return the events with two neighbours exchanged: the mistake that is hardest to notice."""
    first = rng.integers(len(events) - 1)
    order = list(range(len(events)))
    order[first], order[first + 1] = order[first + 1], order[first]
    return reordered(events, order)


def reversed_or_shuffled(events: Events, rng: np.random.Generator) -> Events:
    """Return the events backwards, or with equal probability in a random order that no single exchange repairs."""
    if rng.random() < 0.5:
        return events[::-1]
    while inversions(order := rng.permutation(len(events)).tolist()) < FEWEST_COARSE_INVERSIONS:
        pass
    return reordered(events, order)


def reordered(events: Events, order: Sequence[int]) -> Events:
    """Return the events at these positions."""
    return tuple(events[position] for position in order)


_STATEMENT = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(MOVES)})", flags=re.ASCII)


class ParsedCaption(NamedTuple):
    """What a caption states.

    Args:
        events: in the order stated, repeated where the caption repeats itself.
        well_formed: the whole caption follows the grammar; otherwise `events` holds the statements that do.
    """

    events: Events
    well_formed: bool


def parse_caption(text: str) -> ParsedCaption:
    """Read the events a caption states, in its order."""
    body = text.strip()
    clauses = body.removesuffix(".").split(", ")
    matches = [_STATEMENT.fullmatch(clause) for clause in clauses]
    events = tuple(Event(*match.groups()) for match in matches if match)
    return ParsedCaption(events, well_formed=body.endswith(".") and all(matches))
