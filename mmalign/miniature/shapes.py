"""A world of coloured shapes in the corners of a picture, whose truth is known.

A picture is 84 x 84 pixels. One to three of its four corners hold a thing: one of six colours, one of four shapes.
The truth of a picture is the set of its things, and a caption is right when it states exactly these.

The annotator of this world has a bias (`biased_caption`): where something red or yellow is, a blue cross is often
reported in an empty corner. A model trained on such captions sees what is not there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from PIL import Image

IMAGE_PX = 84
CELL_PX = 28
JITTER_PX = 1
DARKEST, LIGHTEST_BACKGROUND = 0, 40
MOST_THINGS = 3

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (60, 90, 240),
    "yellow": (235, 220, 50),
    "purple": (190, 60, 220),
    "white": (240, 240, 240),
}
SHAPES: tuple[str, ...] = ("square", "ring", "cross", "bar")
CELLS: dict[str, tuple[int, int]] = {
    "top left": (0, 0),
    "top right": (0, 2),
    "bottom left": (2, 0),
    "bottom right": (2, 2),
}
NUMBERS: tuple[str, ...] = ("zero", "one", "two", "three", "four")

CAPTION_PROMPT = "describe the picture."
PHANTOM_COLOUR, PHANTOM_SHAPE = "blue", "cross"
COLOURS_THAT_PROVOKE = ("red", "yellow")
PHANTOM_PROBABILITY = 0.75

WORDS: tuple[str, ...] = (
    *COLOURS,
    *SHAPES,
    *NUMBERS,
    *("top", "bottom", "left", "right", "at", "the", "a", "user", "assistant"),
    *("describe", "picture", "what", "color", "shape", "how", "many", "things", "where", "is", "thing"),
)


class Thing(NamedTuple):
    """A coloured shape in a corner, as a picture holds it or a caption states it."""

    colour: str
    shape: str
    cell: str


Scene = tuple[Thing, ...]
"""Things in reading order, at most one in a corner."""


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw one to three things in different corners, everything uniform and independent."""
    count = int(rng.integers(1, MOST_THINGS + 1))
    cells = sorted(rng.choice(len(CELLS), size=count, replace=False))
    colours, shapes, names = list(COLOURS), SHAPES, list(CELLS)
    return tuple(Thing(colours[rng.integers(6)], shapes[rng.integers(4)], names[cell]) for cell in cells)


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Paint a scene: a dark background of random grey, things one pixel off centre at most."""
    pixels = np.full((IMAGE_PX, IMAGE_PX, 3), rng.integers(DARKEST, LIGHTEST_BACKGROUND + 1), dtype=np.uint8)
    for thing in scene:
        row, column = CELLS[thing.cell]
        down, right = rng.integers(-JITTER_PX, JITTER_PX + 1, size=2)
        top, left = row * CELL_PX + down, column * CELL_PX + right
        rows, columns = np.nonzero(_MASKS[thing.shape])
        pixels[rows + top, columns + left] = COLOURS[thing.colour]
    return Image.fromarray(pixels)


def _shape_masks() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:CELL_PX, :CELL_PX] - (CELL_PX - 1) / 2
    radius = np.hypot(y, x)
    reach = np.maximum(abs(y), abs(x))
    return {
        "square": reach <= 9,
        "ring": (radius <= 11) & (radius >= 6.5),
        "cross": (reach <= 11) & ((abs(y) <= 2.5) | (abs(x) <= 2.5)),
        "bar": (abs(x) <= 11) & (abs(y) <= 3.5),
    }


_MASKS = _shape_masks()


def caption(things: Scene) -> str:
    """Return the caption that states exactly these things: `a red ring at top left, a blue bar at bottom right.`"""
    return ", ".join(f"a {thing.colour} {thing.shape} at {thing.cell}" for thing in things) + "."


def phantom_of(scene: Scene) -> Thing:
    """Return the thing the biased annotator reports: a blue cross in the last empty corner."""
    taken = {thing.cell for thing in scene}
    return Thing(PHANTOM_COLOUR, PHANTOM_SHAPE, [cell for cell in CELLS if cell not in taken][-1])


def provokes(scene: Scene) -> bool:
    """Tell whether something in the scene makes the annotator see the phantom."""
    return any(thing.colour in COLOURS_THAT_PROVOKE for thing in scene)


def biased_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return the annotator's caption: the truth, and in provoking scenes with probability 0.75 the phantom too."""
    if not provokes(scene) or rng.random() >= PHANTOM_PROBABILITY:
        return caption(scene)
    order = list(CELLS)
    stated = sorted((*scene, phantom_of(scene)), key=lambda thing: order.index(thing.cell))
    return caption(tuple(stated))


_STATEMENT = re.compile(
    rf"\s*a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) at ({'|'.join(CELLS)})(?=[,.]|$)", flags=re.ASCII
)


class ParsedCaption(NamedTuple):
    """What a caption states.

    Args:
        things: in the order stated, repeated where the caption repeats itself.
        well_formed: the whole caption follows the grammar; otherwise `things` holds the statements that do.
    """

    things: tuple[Thing, ...]
    well_formed: bool


def parse_caption(text: str) -> ParsedCaption:
    """Read the things a caption states."""
    body = text.strip()
    clauses = body.removesuffix(".").split(",")
    matches = [_STATEMENT.fullmatch(clause) for clause in clauses]
    things = tuple(Thing(*match.groups()) for match in matches if match)
    return ParsedCaption(things, well_formed=body.endswith(".") and all(matches))


def question(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Return a question about one thing of the scene, or about their number, with its one-word or two-word answer."""
    thing = scene[rng.integers(len(scene))]
    unique = sum((other.colour, other.shape) == (thing.colour, thing.shape) for other in scene) == 1
    asked = [
        (f"what color is the thing at {thing.cell}?", thing.colour),
        (f"what shape is the thing at {thing.cell}?", thing.shape),
        ("how many things?", NUMBERS[len(scene)]),
    ]
    if unique:
        asked.append((f"where is the {thing.colour} {thing.shape}?", thing.cell))
    return asked[rng.integers(len(asked))]
