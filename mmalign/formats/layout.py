"""A graphic layout: a canvas, elements with their content, and a box for each.

What a designer is given (`Brief`) and where things go (`boxes`) are kept apart: a model gets the one and answers with
the other, and every answer to a brief is a layout of the same elements. Boxes are fractions of the canvas, x to the
right and y down from the top left corner. They may reach beyond the canvas, as those of real templates do; that is
kept, and counted by `overflowing`.

The task is that of AesthetiQ (arXiv:2503.00591): element contents and canvas in, all boxes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.values import require_number, require_position, require_text

ElementKind = Literal["background", "image", "shape", "text"]
ELEMENT_KINDS: tuple[ElementKind, ...] = ("background", "image", "shape", "text")
TEXT_ALIGNMENTS = ("left", "center", "right")
Colour = tuple[int, int, int]

LARGEST_CANVAS_PX = 100_000
MOST_ELEMENTS = 1_000
FARTHEST = 10.0
"""Boxes are refused that are larger than this many canvases, or begin as far away: something is wrong with them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Left, top, width and height as fractions of the canvas; the width and height of a box are not zero."""

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        for name in ("x", "y", "width", "height"):
            require_number(getattr(self, name), name)
        if self.width <= 0 or self.height <= 0:
            raise RowError("box is empty", value=self.values(), hint="width and height must be larger than 0")
        if max(map(abs, self.values())) > FARTHEST:
            hint = f"it is more than {FARTHEST:g} canvases large or away; boxes are fractions of the canvas"
            raise RowError("box is far larger than its canvas", value=self.values(), hint=hint)

    @property
    def right(self) -> float:
        """Right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Lower edge."""
        return self.y + self.height

    @property
    def centre(self) -> tuple[float, float]:
        """Middle, as (x, y)."""
        return self.x + self.width / 2, self.y + self.height / 2

    def values(self) -> tuple[float, float, float, float]:
        """Return (x, y, width, height)."""
        return self.x, self.y, self.width, self.height

    def edges(self) -> tuple[float, float, float, float]:
        """Return (left, top, right, bottom)."""
        return self.x, self.y, self.right, self.bottom

    def overflow(self) -> float:
        """Return how far the box reaches beyond the canvas at its worst side, 0 when it lies inside."""
        return max(0.0, -self.x, -self.y, self.right - 1, self.bottom - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Element:
    """What is to be placed.

    Args:
        kind: a background lies below everything and overlaps nothing.
        category: a finer name ("title", "logo", "rounded"), as the source has it.
        z: place in the order of painting, smallest first; equal ones in the order of the elements.
        angle_deg: rotation around the middle of the box, clockwise.
        opacity: 0 (not there) to 1.
        text: words to set, where the element is a text.
        font: name of a typeface, as the source has it.
        font_size_px: at the canvas's size; a text is never set larger.
        colour: of text or shape, red, green and blue from 0 to 255.
        text_align: left, center or right.
        asset: picture of the element; it is stretched to the box. A text may have one, which is then shown for it.
    """

    kind: ElementKind
    category: str = ""
    z: int = 0
    angle_deg: float = 0.0
    opacity: float = 1.0
    text: str | None = None
    font: str | None = None
    font_size_px: float | None = None
    colour: Colour | None = None
    text_align: str | None = None
    asset: MediaRef | None = None

    def __post_init__(self) -> None:
        if self.kind not in ELEMENT_KINDS:
            hint = f"use one of {', '.join(ELEMENT_KINDS)}"
            raise RowError("kind of element is unknown", field="type", value=self.kind, hint=hint)
        require_text(self.category, "category")
        if isinstance(self.z, bool) or not isinstance(self.z, int):
            raise RowError("place in the order of painting is no whole number", field="z", value=self.z)
        require_number(self.angle_deg, "angle")
        require_number(self.opacity, "opacity")
        if not 0 <= self.opacity <= 1:
            raise RowError("opacity must lie between 0 and 1", field="opacity", value=self.opacity)
        for name in ("text", "font"):
            if getattr(self, name) is not None:
                require_text(getattr(self, name), name)
        if self.font_size_px is not None:
            require_number(self.font_size_px, "font_size")
            if self.font_size_px <= 0:
                raise RowError("size of the font must be positive", field="font_size", value=self.font_size_px)
        if self.text_align is not None and self.text_align not in TEXT_ALIGNMENTS:
            hint = f"use one of {', '.join(TEXT_ALIGNMENTS)}"
            raise RowError("alignment of text is unknown", field="text_align", value=self.text_align, hint=hint)
        if self.colour is not None:
            _require_colour(self.colour)

    def named(self) -> str:
        """Return how messages speak of the element: its kind, and its text or category."""
        said = f" {self.text[:30]!r}" if self.text else f" {self.category}" if self.category else ""
        return f"{self.kind}{said}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Brief:
    """What a designer is given: the size of the canvas, and elements in the order in which boxes are told."""

    id: str
    width_px: int
    height_px: int
    elements: tuple[Element, ...]

    def __post_init__(self) -> None:
        require_text(self.id, "id")
        for name in ("width_px", "height_px"):
            side = getattr(self, name)
            require_position(side, f"canvas.{name}")
            if not 0 < side <= LARGEST_CANVAS_PX:
                hint = f"1 to {LARGEST_CANVAS_PX:,} pixels"
                raise RowError("side of the canvas is out of bounds", field=f"canvas.{name}", value=side, hint=hint)
        if not 0 < len(self.elements) <= MOST_ELEMENTS:
            hint = f"1 to {MOST_ELEMENTS:,} of them"
            raise RowError("layout has no elements, or too many", field="elements", value=len(self.elements), hint=hint)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A brief and one box for every element of it, in the same order."""

    brief: Brief
    boxes: tuple[Box, ...]

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.brief.elements):
            hint = f"the brief has {len(self.brief.elements)} elements"
            raise RowError("layout needs one box for every element", field="boxes", value=len(self.boxes), hint=hint)

    def with_boxes(self, boxes: Sequence[Box]) -> Layout:
        """Return the same elements elsewhere."""
        return replace(self, boxes=tuple(boxes))

    def painting_order(self) -> list[int]:
        """Return the positions of the elements, what is painted first at the front."""
        elements = self.brief.elements
        return sorted(range(len(elements)), key=lambda k: (elements[k].z, k))

    def placed(self) -> list[int]:
        """Return the positions of all elements that are no background: what metrics and perturbations look at."""
        return [k for k, element in enumerate(self.brief.elements) if element.kind != "background"]

    def overflowing(self, tolerance: float = 1e-6) -> tuple[int, ...]:
        """Return the positions of the elements that reach beyond the canvas by more than `tolerance` of its side."""
        return tuple(k for k, box in enumerate(self.boxes) if box.overflow() > tolerance)


def _require_colour(colour: Colour) -> None:
    if not isinstance(colour, tuple) or len(colour) != 3:
        raise RowError("colour must be red, green and blue", field="color", value=colour)
    for channel in colour:
        require_position(channel, "color")
        if channel > 255:
            raise RowError("colour must lie between 0 and 255", field="color", value=colour)
