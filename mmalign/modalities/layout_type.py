"""Setting a text into a box: broken into lines at words, as large as fits."""

from __future__ import annotations

import re
from typing import Any

from PIL import Image, ImageDraw

from mmalign.formats.layout import Colour
from mmalign.modalities.layout_fonts import font

SMALLEST_PX = 5
_MOST_CHARACTERS = 2_000
# A word, or one letter of a script that is written without spaces.
_PIECES = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\s぀-ヿ㐀-鿿가-힯]+|\n|[^\S\n]+")


def set_text(
    text: str,
    size: tuple[int, int],
    face: str,
    colour: Colour,
    *,
    align: str = "center",
    largest_px: float | None = None,
) -> Image.Image:
    """Return a see-through RGBA picture of `size` with the text in it, in the middle from top to bottom.

    Args:
        text: lines that it has are kept.
        size: width and height in pixels.
        face: see `layout_fonts.typeface`.
        align: left, center or right.
        largest_px: bound on the size of the font; without it the box alone bounds it.

    A text that does not fit at 5 pixels is cut off by its box.
    """
    tile = Image.new("RGBA", size, (*colour, 0))
    text = text.strip()[:_MOST_CHARACTERS]
    if not text:
        return tile
    chosen, lines = _fitted(text, size, face, largest_px)
    draw, height = ImageDraw.Draw(tile), _line_height(chosen)
    top = (size[1] - height * len(lines)) / 2
    for number, line in enumerate(lines):
        spare = size[0] - draw.textlength(line, font=chosen)
        left = {"left": 0.0, "center": spare / 2, "right": spare}[align]
        draw.text((left, top + number * height), line, font=chosen, fill=(*colour, 255))
    return tile


def _fitted(text: str, size: tuple[int, int], face: str, largest_px: float | None) -> tuple[Any, list[str]]:
    """Return the largest font, and its lines, with which the text fits; the smallest where none does."""
    low, high = SMALLEST_PX, max(SMALLEST_PX, int(min(size[1], largest_px or size[1])))
    best = font(face, low), _lines(text, font(face, low), size[0])[0]
    while low <= high:
        middle = (low + high) // 2
        chosen = font(face, middle)
        lines, fits = _lines(text, chosen, size[0])
        if fits and _line_height(chosen) * len(lines) <= size[1]:
            best, low = (chosen, lines), middle + 1
        else:
            high = middle - 1
    return best


def _lines(text: str, chosen: Any, width_px: int) -> tuple[list[str], bool]:
    """Break a text into lines of at most `width_px`; also whether every word fits into one."""
    lines, fits = [""], True
    for piece in _PIECES.findall(text):
        if piece == "\n":
            lines.append("")
        elif piece.isspace():
            lines[-1] += " " if lines[-1] else ""
        elif not lines[-1] or chosen.getlength(lines[-1] + piece) <= width_px:
            lines[-1] += piece
            fits = fits and chosen.getlength(lines[-1].strip()) <= width_px
        else:
            lines.append(piece)
            fits = fits and chosen.getlength(piece) <= width_px
    return [line.strip() for line in lines], fits


def _line_height(chosen: Any) -> int:
    ascent, descent = chosen.getmetrics()
    return ascent + descent
