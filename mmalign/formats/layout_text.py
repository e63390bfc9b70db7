"""Layouts as what a language model writes: position tokens, or JSON on a grid. Both have exact inverses.

A grid cuts the range of a coordinate into K bins. With v a fraction of the canvas's side, B(v) = min(K - 1,
floor(clip(v, 0, 1) K)), and back (B + 1/2) / K: AesthetiQ (arXiv:2503.00591) as its method section is told by others;
its K is not known here. Departures: with an overflow o, positions range from -o to 1 + o and sizes from 0 to 1 + 2 o,
so that elements beyond the canvas keep their place, and `beyond` tells which ones the grid cuts; a size is at least 1,
so that 0 can mean nothing but an empty box, which is refused.

    tokens  <pos_8><pos_12><pos_112><pos_30>...             four an element, x y width height, in the order of the brief
    json    [{"idx":0,"bbox":[8,12,112,30]},...]            in any order when read
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mmalign.errors import ConfigError, RowError
from mmalign.formats.layout import Box, Brief, Layout
from mmalign.formats.layout_json import in_order, located
from mmalign.formats.values import require_number

Form = Literal["tokens", "json"]
FORMS: tuple[Form, ...] = ("tokens", "json")
MOST_BINS = 10_000
_TOKEN = re.compile(r"<pos_(\d{1,6})>")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How coordinates become whole numbers.

    Args:
        bins: K, the number of whole numbers.
        overflow: how far beyond the canvas positions are told apart, as a share of its side.
    """

    bins: int = 128
    overflow: float = 0.0

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= MOST_BINS or not 0 <= self.overflow <= 1:
            raise ConfigError(
                f"a grid needs 2 to {MOST_BINS:,} bins and an overflow between 0 and 1, got {self.bins} and "
                f"{self.overflow}"
            )

    @property
    def span(self) -> float:
        """Length of the range that the bins cover, in canvas sides."""
        return 1 + 2 * self.overflow

    def quantise(self, box: Box) -> tuple[int, int, int, int]:
        """Return x, y, width and height as bins."""
        x, y = (self._bin(value + self.overflow) for value in (box.x, box.y))
        width, height = (max(1, self._bin(value)) for value in (box.width, box.height))
        return x, y, width, height

    def dequantise(self, bins: Sequence[int]) -> Box:
        """Return the box in the middle of its bins; `quantise` gives the same bins again."""
        x, y, width, height = ((one + 0.5) / self.bins * self.span for one in bins)
        return Box(x=x - self.overflow, y=y - self.overflow, width=width, height=height)

    def snapped(self, layout: Layout) -> Layout:
        """Return the layout as it comes back from its text."""
        return layout.with_boxes([self.dequantise(self.quantise(box)) for box in layout.boxes])

    def beyond(self, layout: Layout) -> tuple[int, ...]:
        """Return the positions of the elements that the grid cannot tell: their place or size is cut off."""
        low, high = -self.overflow, 1 + self.overflow
        return tuple(
            k
            for k, box in enumerate(layout.boxes)
            if not (low <= box.x <= high and low <= box.y <= high and max(box.width, box.height) <= self.span)
        )

    def _bin(self, value: float) -> int:
        return min(self.bins - 1, max(0, math.floor(value / self.span * self.bins)))


def position_token(number: int) -> str:
    """Return the token of a bin."""
    return f"<pos_{number}>"


def write(layout: Layout, grid: Grid, form: Form) -> str:
    """Return the boxes of a layout as text; `read` gives `grid.snapped(layout)` back."""
    bins = [grid.quantise(box) for box in layout.boxes]
    if form == "tokens":
        return "".join(position_token(number) for box in bins for number in box)
    entries = [{"idx": k, "bbox": list(box)} for k, box in enumerate(bins)]
    return json.dumps(entries, separators=(",", ":"))


def read(text: str, brief: Brief, grid: Grid, form: Form) -> Layout:
    """Return the layout that an answer to a brief describes.

    Raises:
        RowError: it is no such answer, or an element of the brief is missing, stands twice, does not exist, or has no
            box that can be: not finite, off the grid, empty. The message names the element.
    """
    rows = _READERS[form](text.strip(), brief)
    boxes = []
    for k, bins in enumerate(rows):
        try:
            boxes.append(grid.dequantise([_bin_of(value, place, grid) for place, value in enumerate(bins)]))
        except RowError as error:
            raise located(error, f"elements[{k}].bbox", brief.elements[k]) from error
    return Layout(brief=brief, boxes=tuple(boxes))


def _read_tokens(text: str, brief: Brief) -> list[list[Any]]:
    numbers, end = [], 0
    for match in _TOKEN.finditer(text):
        if text[end : match.start()].strip():
            break
        numbers.append(int(match[1]))
        end = match.end()
    if text[end:].strip():
        hint = "an answer is position tokens like <pos_12> and nothing else"
        raise RowError("answer holds something that is no position", field="answer", value=text[end:], hint=hint)
    count, told = len(brief.elements), len(numbers) / 4
    if told > count:
        hint = f"there are elements 0 to {count - 1}"
        raise RowError("element does not exist", field=f"elements[{count}]", value=numbers[4 * count :], hint=hint)
    if told < count:
        k = len(numbers) // 4
        hint = f"it is {brief.elements[k].named()}; {count - k} of {count} elements are not told"
        if told > k:
            rest = numbers[4 * k :]
            raise RowError("box is not four numbers", field=f"elements[{k}].bbox", value=rest, hint=hint)
        raise RowError("element is missing", field=f"elements[{k}]", value=k, hint=hint)
    return [numbers[4 * k : 4 * k + 4] for k in range(count)]


def _read_json(text: str, brief: Brief) -> list[list[Any]]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError("answer is not JSON", field="answer", value=text, hint=str(error)) from error
    if not isinstance(entries, list):
        hint = 'write [{"idx": 0, "bbox": [x, y, width, height]}, ...]'
        raise RowError("answer is no list of elements", field="answer", value=entries, hint=hint)
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"idx", "bbox"}:
            raise RowError("element is not an idx and a bbox", field="answer", value=entry)
    names = [element.named() for element in brief.elements]
    numbered = [(entry["idx"], entry["bbox"]) for entry in entries]
    rows = in_order(numbered, len(brief.elements), "elements", names)
    for k, bins in enumerate(rows):
        if not isinstance(bins, list) or len(bins) != 4:
            raise RowError("box is not four numbers", field=f"elements[{k}].bbox", value=bins, hint=f"it is {names[k]}")
    return rows


_READERS: dict[str, Callable[[str, Brief], list[list[Any]]]] = {"tokens": _read_tokens, "json": _read_json}


def _bin_of(value: Any, place: int, grid: Grid) -> int:
    """Return one whole number of a box, `place` of x, y, width, height."""
    require_number(value, "bbox")
    if value != int(value):
        raise RowError("position is no whole number", value=value, hint=f"the grid has bins 0 to {grid.bins - 1}")
    if place >= 2 and value <= 0:
        raise RowError("box is empty", value=value, hint="width and height are at least 1 bin")
    if not 0 <= value < grid.bins:
        raise RowError("position is off the grid", value=value, hint=f"the grid has bins 0 to {grid.bins - 1}")
    return int(value)
