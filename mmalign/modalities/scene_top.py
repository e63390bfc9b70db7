"""A room seen from above with its objects numbered, and both views of it as one sheet with a key.

What lies outside the room, and what two objects share, is red. The side of an object that faces away from its back (z
in its own frame, as the models of 3D-FUTURE are built) has a thick edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from PIL import Image, ImageDraw

from mmalign.formats.scene import Scene
from mmalign.formats.scene_geometry import footprint, footprint_corners, height_shared
from mmalign.formats.scene_words import short_phrase
from mmalign.modalities.layout_fonts import font, typeface
from mmalign.modalities.scene_colours import Colour, colour_of
from mmalign.modalities.scene_perspective import (
    BACKGROUND,
    FLOOR,
    FLOOR_SEAM,
    camera_for,
    paint_perspective,
)

SUPERSAMPLING = 3
INK: Colour = (52, 54, 58)
TROUBLE: Colour = (206, 52, 44)
_MARGIN = 0.07
_PLANK_M = 0.18
_KEY_LINE_PX = 17


class _Plan:
    """Metres in x and z -> pixels: the room and its objects fit, z towards the reader."""

    def __init__(self, scene: Scene, size: tuple[int, int]) -> None:
        corners = [np.array([[x, z] for x, _, z in scene.bounds_bottom], dtype=float)]
        corners += [footprint_corners(item) for item in scene.objects]
        points = np.concatenate(corners)
        # An object far away must not shrink the room to a dot.
        room = np.array(scene.floor.bounds).reshape(2, 2)
        span = room[1] - room[0]
        low = np.maximum(points.min(axis=0), room[0] - span / 2)
        high = np.minimum(points.max(axis=0), room[1] + span / 2)
        self.px_per_m = float((np.array(size) * (1 - 2 * _MARGIN) / (high - low)).min())
        self._middle, self._half = (low + high) / 2, np.array(size) / 2

    def at(self, points: object) -> list[tuple[float, float]]:
        """Return pixels of points in metres."""
        placed = (np.asarray(points, dtype=float) - self._middle) * self.px_per_m + self._half
        return [(float(x), float(y)) for x, y in placed]


def paint_top(scene: Scene, size: tuple[int, int] = (420, 420), *, is_numbered: bool = True) -> Image.Image:
    """Return the picture of a scene from above, width and height in pixels.

    Args:
        scene: to be drawn.
        size: of the picture.
        is_numbered: whether objects have numbers and a line shows a metre; models need neither.
    """
    large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    picture = Image.new("RGB", large, BACKGROUND)
    plan, draw = _Plan(scene, large), ImageDraw.Draw(picture)
    _draw_floor(scene, plan, picture)
    for k in sorted(range(len(scene.objects)), key=lambda k: scene.objects[k].pos[1] + scene.objects[k].size[1]):
        item = scene.objects[k]
        corners = plan.at(footprint_corners(item))
        _draw_shadow(picture, corners, 0.03 * plan.px_per_m)
        draw.polygon(corners, fill=colour_of(item.desc), outline=INK, width=SUPERSAMPLING)
        draw.line(corners[2:4], fill=INK, width=3 * SUPERSAMPLING)
    outline = plan.at([[x, z] for x, _, z in scene.bounds_bottom])
    draw.line([*outline, outline[0], outline[1]], fill=INK, width=4 * SUPERSAMPLING, joint="curve")
    for area in _troubles(scene):
        _hatch(picture, [plan.at(np.array(part.exterior.coords)) for part in _parts(area)])
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    if is_numbered:
        _draw_metre(draw, plan.px_per_m / SUPERSAMPLING, size)
        middles = plan.at([[item.pos[0], item.pos[2]] for item in scene.objects] or np.zeros((0, 2)))
        for k, (x, y) in enumerate(middles):
            _badge(draw, (x / SUPERSAMPLING, y / SUPERSAMPLING), k + 1)
    return picture


def paint_sheet(scene: Scene, max_pixels: int = 400_000, marked: Sequence[int] = ()) -> Image.Image:
    """Return both views side by side, and what the numbers stand for below.

    Args:
        scene: to be drawn.
        max_pixels: bound on width x height.
        marked: positions of objects whose line in the key is bold: what an answer added.
    """
    columns = 2
    lines = -(-max(1, len(scene.objects)) // columns)
    width = 860
    views_px, key_px = 340, lines * _KEY_LINE_PX + 18
    sheet = Image.new("RGB", (width, views_px + key_px), BACKGROUND)
    sheet.paste(paint_top(scene, (360, views_px)), (0, 0))
    size = (width - 360, views_px)
    view = paint_perspective(scene, size)
    draw = ImageDraw.Draw(view)
    camera = camera_for(scene, size)
    tops = np.array([[i.pos[0], i.pos[1] + i.size[1], i.pos[2]] for i in scene.objects]).reshape(-1, 3)
    for k, (x, y) in enumerate(camera.seen_at(tops)):
        _badge(draw, (float(x), float(y)), k + 1)
    sheet.paste(view, (360, 0))
    _draw_key(ImageDraw.Draw(sheet), scene, (14, views_px + 6), (width - 28) // columns, lines, marked)
    share = (max_pixels / (sheet.width * sheet.height)) ** 0.5
    if share < 1:
        smaller = (max(1, int(sheet.width * share)), max(1, int(sheet.height * share)))
        sheet = sheet.resize(smaller, Image.Resampling.LANCZOS)
    return sheet


def _draw_floor(scene: Scene, plan: _Plan, picture: Image.Image) -> None:
    mask = Image.new("L", picture.size, 0)
    outline = plan.at([[x, z] for x, _, z in scene.bounds_bottom])
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    floor = Image.new("RGB", picture.size, FLOOR)
    draw = ImageDraw.Draw(floor)
    x0, z0, x1, z1 = scene.floor.bounds
    for x in np.arange(x0, x1, max(_PLANK_M, (x1 - x0) / 200)):
        draw.line(plan.at([[x, z0], [x, z1]]), fill=FLOOR_SEAM, width=1)
    picture.paste(floor, mask=mask)


def _draw_shadow(picture: Image.Image, corners: list[tuple[float, float]], shift_px: float) -> None:
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).polygon([(x + shift_px, y + shift_px) for x, y in corners], fill=60)
    picture.paste((60, 50, 40), (0, 0, *picture.size), mask)


def _troubles(scene: Scene) -> list[shapely.Geometry]:
    """Return what lies outside the room and what objects share, seen from above."""
    outlines = [footprint(item) for item in scene.objects]
    found = [outline.difference(scene.floor) for outline in outlines]
    for first, item in enumerate(scene.objects):
        for second in range(first + 1, len(outlines)):
            if height_shared(item, scene.objects[second]) > 0.005:
                found.append(outlines[first].intersection(outlines[second]))
    return [area for area in found if area.area > 1e-3]


def _parts(area: shapely.Geometry) -> list[shapely.Polygon]:
    return [part for part in shapely.get_parts(area) if isinstance(part, shapely.Polygon)]


def _hatch(picture: Image.Image, outlines: list[list[tuple[float, float]]]) -> None:
    mask = Image.new("L", picture.size, 0)
    draw = ImageDraw.Draw(mask)
    for outline in outlines:
        draw.polygon(outline, fill=90)
    lines = Image.new("L", picture.size, 0)
    stroke = ImageDraw.Draw(lines)
    width, height = picture.size
    for start in range(-height, width, 7 * SUPERSAMPLING):
        stroke.line((start, height, start + height, 0), fill=255, width=2 * SUPERSAMPLING)
    hatched = np.where(np.asarray(mask) > 0, np.maximum(np.asarray(mask), np.asarray(lines)), 0).astype(np.uint8)
    picture.paste(TROUBLE, (0, 0, *picture.size), Image.fromarray(hatched))
    for outline in outlines:
        ImageDraw.Draw(picture).line(outline, fill=TROUBLE, width=2 * SUPERSAMPLING)


def _badge(draw: ImageDraw.ImageDraw, middle: tuple[float, float], number: int) -> None:
    x, y = middle
    face = font(typeface("bold"), 11)
    half = 8 if number < 10 else 10
    draw.rounded_rectangle((x - half, y - 8, x + half, y + 8), radius=8, fill=(255, 255, 255), outline=INK)
    draw.text((x, y), str(number), fill=INK, font=face, anchor="mm")


def _draw_metre(draw: ImageDraw.ImageDraw, px_per_m: float, size: tuple[int, int]) -> None:
    x, y = 12, size[1] - 10
    draw.line((x, y, x + px_per_m, y), fill=INK, width=2)
    for end in (x, x + px_per_m):
        draw.line((end, y - 3, end, y + 3), fill=INK, width=2)
    draw.text((x + px_per_m + 6, y), "1 m", fill=INK, font=font(typeface(None), 11), anchor="lm")


def _draw_key(
    draw: ImageDraw.ImageDraw,
    scene: Scene,
    corner: tuple[int, int],
    width_px: int,
    lines: int,
    marked: Sequence[int],
) -> None:
    for k, item in enumerate(scene.objects):
        x, y = corner[0] + (k // lines) * width_px, corner[1] + (k % lines) * _KEY_LINE_PX + _KEY_LINE_PX // 2
        draw.rectangle((x, y - 5, x + 10, y + 5), fill=colour_of(item.desc), outline=INK)
        sides = " x ".join(f"{side:.2f}" for side in item.size)
        said = f"{k + 1}  {short_phrase(item.desc)[:44]}  ({sides} m)" + ("  - new" if k in marked else "")
        draw.text((x + 17, y), said, fill=INK, font=font(typeface("bold" if k in marked else None), 12), anchor="lm")
