"""Layouts as pictures: the one renderer for people, CLIP, judges and the readability score.

Elements are painted in their order onto white at twice the size, then halved, which smooths every edge. A picture is
stretched to its box, a shape filled with its colour, a text set as large as fits (or its own picture stretched, where
the source has one). What has no picture is shown as a crossed tile with its name, so that it is missed by nobody.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from PIL import Image, ImageDraw

from mmalign.errors import RowError
from mmalign.formats.layout import Box, Colour, Element, Layout
from mmalign.modalities import image
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.layout_fonts import typeface
from mmalign.modalities.layout_type import set_text

PIXELS = 262_144
"""A layout is drawn with this area unless another is asked for: 512 by 512."""
MOST_PIXELS = 4_194_304
MOST_DECODED_PIXELS = 500_000_000
"""Pictures of one layout that have more pixels together are refused: they would be decoded for many seconds."""
_FINER = 2
_WHITE: Colour = (255, 255, 255)
_SHAPE, _TILE, _LINE, _INK = (168, 172, 180), (226, 229, 234), (168, 176, 188), (92, 100, 114)
_DARK, _LIGHT = (28, 30, 36), (250, 250, 250)
_ROUNDING = 0.28
_BLEED = 0.05
"""A background that ends this near the edge of the canvas, as one told on a grid does, is painted up to the edge."""


def paint(layout: Layout, limits: ImageLimits, pixels: int = PIXELS, *, without: Collection[str] = ()) -> Image.Image:
    """Return a layout as an RGB picture.

    Args:
        layout: what to paint; what lies beyond the canvas is cut off.
        limits: where pictures of elements may come from.
        pixels: area of the picture, whatever the size of the canvas; its sides keep their ratio.
        without: kinds of elements to leave out.

    Raises:
        RowError: the picture of an element cannot be read (`field` names it), or all of them are too large together.
    """
    _require_bounded(layout, limits)
    width, height = size_of(layout, pixels)
    canvas = Image.new("RGB", (width * _FINER, height * _FINER), _WHITE)
    px_of_canvas = canvas.width / layout.brief.width_px
    for k in layout.painting_order():
        element, box = layout.brief.elements[k], layout.boxes[k]
        box = _bled(box) if element.kind == "background" else box
        if element.kind not in without and element.opacity > 0:
            _paint_element(canvas, element, box, k, limits, px_of_canvas)
    return canvas.reduce(_FINER)


def _bled(box: Box) -> Box:
    left, top, right, bottom = box.edges()
    left, top = (0.0 if 0 < edge < _BLEED else edge for edge in (left, top))
    right, bottom = (1.0 if 0 < 1 - edge < _BLEED else edge for edge in (right, bottom))
    return Box(x=left, y=top, width=right - left, height=bottom - top)


def _require_bounded(layout: Layout, limits: ImageLimits) -> None:
    total = 0
    for k, element in enumerate(layout.brief.elements):
        if element.asset is not None:
            width, height = image.check(element.asset, limits, field=f"elements[{k}].asset")
            total += width * height
    if total > MOST_DECODED_PIXELS:
        hint = f"at most {MOST_DECODED_PIXELS:,} are decoded; make them smaller"
        raise RowError("pictures of the layout have too many pixels together", field="elements", value=total, hint=hint)


def size_of(layout: Layout, pixels: int = PIXELS) -> tuple[int, int]:
    """Return width and height of the picture of a layout."""
    brief = layout.brief
    scale = math.sqrt(min(pixels, MOST_PIXELS) / (brief.width_px * brief.height_px))
    sides = (max(1, round(brief.width_px * scale)), max(1, round(brief.height_px * scale)))
    # Canvases of one by ten thousand would be as long as a picture has pixels.
    return min(sides[0], pixels), min(sides[1], pixels)


def _paint_element(
    canvas: Image.Image, element: Element, box: Box, k: int, limits: ImageLimits, px_of_canvas: float
) -> None:
    """Paint one element: its tile, turned around the middle of its box, onto the part of the canvas that it meets."""
    width, height = box.width * canvas.width, box.height * canvas.height
    middle = tuple(share * side for share, side in zip(box.centre, canvas.size, strict=True))
    region = _region(middle, (width, height), element.angle_deg, canvas.size)
    if region is None:
        return
    tile = _tile(element, _tile_size(width, height, canvas.size), k, limits, px_of_canvas, canvas.crop(region))
    turned = _placed(tile, region, middle, (width, height), element.angle_deg)
    if element.opacity < 1:
        turned.putalpha(turned.getchannel("A").point(lambda alpha: round(alpha * element.opacity)))
    canvas.paste(turned.convert("RGB"), region[:2], turned.getchannel("A"))


def _region(
    middle: tuple[float, ...], size: tuple[float, float], angle_deg: float, canvas: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """Return the pixels of the canvas that a turned box may meet, None when there are none."""
    cosine, sine = (abs(turn(math.radians(angle_deg))) for turn in (math.cos, math.sin))
    reach = (size[0] * cosine + size[1] * sine) / 2, (size[0] * sine + size[1] * cosine) / 2
    low = [max(0, math.floor(at - by)) for at, by in zip(middle, reach, strict=True)]
    high = [min(side, math.ceil(at + by)) for at, by, side in zip(middle, reach, canvas, strict=True)]
    return (*low, *high) if low[0] < high[0] and low[1] < high[1] else None


def _tile_size(width: float, height: float, canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the size in which an element is drawn: its own, as far as it is not far larger than the canvas."""
    longest = 2 * max(canvas)
    shrink = min(1.0, longest / max(width, height))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def _placed(
    tile: Image.Image,
    region: tuple[int, int, int, int],
    middle: tuple[float, ...],
    size: tuple[float, float],
    angle_deg: float,
) -> Image.Image:
    """Return the tile as it lies in `region`, see-through around it."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    across, down = tile.width / size[0], tile.height / size[1]
    left, top = region[0] - middle[0], region[1] - middle[1]
    from_region_to_tile = (
        across * cosine,
        across * sine,
        across * (cosine * left + sine * top) + tile.width / 2,
        -down * sine,
        down * cosine,
        down * (-sine * left + cosine * top) + tile.height / 2,
    )
    size_px = region[2] - region[0], region[3] - region[1]
    return tile.transform(size_px, Image.Transform.AFFINE, from_region_to_tile, Image.Resampling.BICUBIC)


def _tile(
    element: Element, size: tuple[int, int], k: int, limits: ImageLimits, px_of_canvas: float, beneath: Image.Image
) -> Image.Image:
    """Return an element on its own, upright, as RGBA."""
    if element.asset is not None:
        field = f"elements[{k}].asset"
        content = image.read_bytes(element.asset, limits, field=field)
        bound = max(1, size[0] * size[1])
        picture = image.decode(content, element.asset, limits, 4 * bound, field=field, transparent=True)
        return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    if element.kind == "text":
        colour = element.colour or _ink_on(beneath)
        largest = element.font_size_px * px_of_canvas if element.font_size_px else None
        how = {"align": element.text_align or "center", "largest_px": largest}
        return set_text(element.text or "", size, typeface(element.font), colour, **how)
    if element.kind == "image":
        return _crossed(size, element.category or "image")
    colour = element.colour or (_WHITE if element.kind == "background" else _SHAPE)
    return _shape(size, element.category.lower(), colour)


def _shape(size: tuple[int, int], category: str, colour: Colour) -> Image.Image:
    tile = Image.new("RGBA", size, (*colour, 0))
    draw, whole = ImageDraw.Draw(tile), (0, 0, size[0] - 1, size[1] - 1)
    if "ellipse" in category or "circle" in category:
        draw.ellipse(whole, fill=(*colour, 255))
    elif "round" in category or "button" in category:
        draw.rounded_rectangle(whole, radius=_ROUNDING * min(size), fill=(*colour, 255))
    else:
        draw.rectangle(whole, fill=(*colour, 255))
    return tile


def _crossed(size: tuple[int, int], name: str) -> Image.Image:
    """Return a tile that stands for a picture that is not there."""
    tile = Image.new("RGBA", size, (*_TILE, 255))
    draw, right, bottom = ImageDraw.Draw(tile), size[0] - 1, size[1] - 1
    thickness = max(1, min(size) // 60)
    draw.line((0, 0, right, bottom), fill=_LINE, width=thickness)
    draw.line((0, bottom, right, 0), fill=_LINE, width=thickness)
    draw.rectangle((0, 0, right, bottom), outline=_LINE, width=thickness)
    inner = max(1, size[0] * 6 // 10), max(1, min(size[1] * 3 // 10, 48))
    label = set_text(name, inner, typeface(None), _INK)
    place = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    draw.rectangle((*place, place[0] + inner[0], place[1] + inner[1]), fill=(*_TILE, 255))
    tile.alpha_composite(label, place)
    return tile


def _ink_on(beneath: Image.Image) -> Colour:
    """Return dark or light, whichever stands out: the colour of a text that has none."""
    grey = beneath.convert("L").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return _DARK if grey > 128 else _LIGHT
