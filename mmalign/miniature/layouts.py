"""A world of small posters whose good layout is known.

A poster is a picture with a subject on one side, and a title, sometimes a body text, and a button to be placed. The
designer of this world keeps them off the subject, in one column on the other side, in line by the edge or the middle
that the brief asks for, none on another. So the truth follows from what the picture shows, from the words, which are as
wide as they are long, and from the alignment in the brief; there are 72 of them. All are whole bins of `GRID`.

The annotator of this world is in a hurry (`hurried`): the title often stands three bins off its column, and the button
on the end of the text above it. A model trained on such layouts places everything on the right side, and badly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mmalign.formats.layout import Brief, Element, Layout
from mmalign.formats.layout_task import Task
from mmalign.formats.layout_text import Form, Grid
from mmalign.formats.media import MediaRef

GRID = Grid(bins=32)
PICTURE_PX, CANVAS_PX = 84, 840
SIDES = ("left", "right", "top", "bottom")
ALIGNMENTS = ("left", "center", "right")
TITLES: dict[str, int] = {"Sale": 8, "Summer sale": 10, "Big summer sale": 12}
"""Words -> width in bins."""
BODY, BODY_WIDTH, BUTTON_WIDTH = "Three days only", 12, 6
BUTTON_COLOUR = (244, 162, 89)
HURRY_PROBABILITY = 0.65
_INDENT, _UP = 3, 2

# Where a column may be when the subject stands on a side: x, width, y in bins; heights of title, body, button; gap.
_COLUMNS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], int]] = {
    "left": ((17, 14, 7), (4, 7, 3), 2),
    "right": ((1, 14, 7), (4, 7, 3), 2),
    "top": ((3, 26, 18), (3, 4, 3), 1),
    "bottom": ((3, 26, 2), (3, 4, 3), 1),
}
_SUBJECT_MIDDLES = {"left": (0.26, 0.5), "right": (0.74, 0.5), "top": (0.5, 0.26), "bottom": (0.5, 0.74)}
SUBJECT_RADIUS = 0.19
_JITTER = 0.03
_SUBJECTS = ((231, 111, 81), (233, 196, 106), (42, 157, 143), (202, 103, 2))

Bins = tuple[int, int, int, int]


class Poster(NamedTuple):
    """A brief of this world and where the subject of its picture stands."""

    side: str
    title: str
    align: str
    has_body: bool


def draw_poster(rng: np.random.Generator) -> Poster:
    """Draw a poster, everything uniform and independent."""
    titles = list(TITLES)
    side, title, align = SIDES[rng.integers(4)], titles[rng.integers(3)], ALIGNMENTS[rng.integers(3)]
    return Poster(side, title, align, bool(rng.random() < 0.5))


def paint_picture(poster: Poster, rng: np.random.Generator) -> Image.Image:
    """Paint the picture of a poster: a round subject on one side of a dark ground."""
    top, bottom = rng.integers(20, 50, size=(2, 3))
    rows = np.linspace(top, bottom, PICTURE_PX)[:, None].repeat(PICTURE_PX, axis=1)
    picture = Image.fromarray(rows.round().astype(np.uint8))
    middle = np.array(_SUBJECT_MIDDLES[poster.side]) + rng.uniform(-_JITTER, _JITTER, size=2)
    radius, colour = SUBJECT_RADIUS * PICTURE_PX, _SUBJECTS[rng.integers(len(_SUBJECTS))]
    x, y = middle * PICTURE_PX
    ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(0.7))


def task(poster: Poster, picture: MediaRef, form: Form = "tokens") -> Task:
    """Return the brief of a poster: its picture as the background, then what is to be placed."""
    elements = [
        Element(kind="background", asset=picture),
        Element(kind="text", text=poster.title, text_align=poster.align, font="bold"),
    ]
    if poster.has_body:
        elements.append(Element(kind="text", text=BODY))
    elements.append(Element(kind="shape", category="rounded", colour=BUTTON_COLOUR))
    brief = Brief(id="", width_px=CANVAS_PX, height_px=CANVAS_PX, elements=tuple(elements))
    return Task(brief=brief, grid=GRID, form=form)


def truth(poster: Poster, asked: Task) -> Layout:
    """Return the designer's layout."""
    return _layout(_column(poster), asked)


def hurried(poster: Poster, asked: Task, rng: np.random.Generator) -> Layout:
    """Return the annotator's layout: with probability 0.65 title and button out of place, otherwise the truth."""
    bins = _column(poster)
    if rng.random() < HURRY_PROBABILITY:
        x, y, width, height = bins[0]
        inward = -1 if poster.align == "right" else 1
        bins[0] = (x + inward * _INDENT, y, width, height)
        x, y, width, height = bins[-1]
        gap = _COLUMNS[poster.side][2]
        bins[-1] = (x, y - gap - _UP, width, height)
    return _layout(bins, asked)


def subject_edges(poster: Poster) -> np.ndarray:
    """Return the box around the subject of a poster as far as the side tells it, [1, 4]: left, top, right, bottom."""
    x, y = _SUBJECT_MIDDLES[poster.side]
    return np.array([[x - SUBJECT_RADIUS, y - SUBJECT_RADIUS, x + SUBJECT_RADIUS, y + SUBJECT_RADIUS]])


def _column(poster: Poster) -> list[Bins]:
    """Return the boxes of title, body if there is one, and button, in bins."""
    (left, room, top), (title, body, button), gap = _COLUMNS[poster.side]
    rows = [(TITLES[poster.title], title)] + [(BODY_WIDTH, body)] * poster.has_body + [(BUTTON_WIDTH, button)]
    bins = []
    for width, height in rows:
        spare = {"left": 0, "center": (room - width) // 2, "right": room - width}[poster.align]
        bins.append((left + spare, top, width, height))
        top += height + gap
    return bins


def _layout(bins: list[Bins], asked: Task) -> Layout:
    whole = (0, 0, GRID.bins - 1, GRID.bins - 1)
    return Layout(brief=asked.brief, boxes=tuple(GRID.dequantise(one) for one in (whole, *bins)))
