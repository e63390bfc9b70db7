"""A room seen from above one of its corners: rays through every pixel, boxes for objects, one light with soft contact.

Walls that would stand before the room are left out, and all are cut off a little above the furniture. No graphics
hardware and no display is needed; two pictures of the same scene are the same to the last pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import shapely
from PIL import Image

from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_geometry import yaw
from mmalign.modalities.scene_colours import Colour, colour_of

SUPERSAMPLING = 2
BACKGROUND: Colour = (246, 246, 244)
FLOOR: Colour = (226, 209, 183)
FLOOR_SEAM: Colour = (204, 184, 155)
WALL: Colour = (248, 245, 240)
_PLANK_M = 0.18
_LIGHT = np.array([0.35, 0.85, 0.25]) / math.hypot(0.35, 0.85, 0.25)
_AMBIENT, _SUN = 0.77, 0.30
_LOWEST_WALL_M, _ABOVE_M = 1.2, 0.3
_CONTACT_M, _CONTACT = 0.14, 0.30
_FIELD_OF_VIEW = math.radians(34)
_PITCH, _YAW = math.radians(40), math.radians(32)
_FAR = 1e6
# Faces are told apart by numbers: 0 nothing, 1 the floor, then walls, then the faces of objects.
_FIRST_WALL, _FIRST_OBJECT, _FACES = 10, 10_000, 10


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where a picture is taken from: eye, and unit vectors to the right, up and forward; focal length in pixels."""

    eye: np.ndarray
    right: np.ndarray
    up: np.ndarray
    forward: np.ndarray
    focal_px: float
    size: tuple[int, int]

    def rays(self) -> np.ndarray:
        """Return the direction through the middle of every pixel, [height, width, 3], not of length 1."""
        width, height = self.size
        x = (np.arange(width) + 0.5 - width / 2) / self.focal_px
        y = (height / 2 - np.arange(height) - 0.5) / self.focal_px
        return (self.forward + x[None, :, None] * self.right + y[:, None, None] * self.up).astype(np.float64)

    def seen_at(self, points: np.ndarray) -> np.ndarray:
        """Return where points [N, 3] are seen, [N, 2] in pixels."""
        away = np.asarray(points) - self.eye
        depth = np.maximum(away @ self.forward, 1e-6)
        width, height = self.size
        x, y = away @ self.right / depth, away @ self.up / depth
        return np.stack([width / 2 + x * self.focal_px, height / 2 - y * self.focal_px], axis=-1)


class _Seen(NamedTuple):
    """What rays have met so far: how far away, which face, its normal and its colour, [height, width, ...]."""

    camera: Camera
    rays: np.ndarray
    depth: np.ndarray
    surface: np.ndarray
    normal: np.ndarray
    colour: np.ndarray


def camera_for(scene: Scene, size: tuple[int, int]) -> Camera:
    """Return the camera that sees the whole room in a picture of this width and height."""
    forward = np.array([-math.cos(_PITCH) * math.sin(_YAW), -math.sin(_PITCH), -math.cos(_PITCH) * math.cos(_YAW)])
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    corners = np.array([(x, y, z) for x, _, z in scene.bounds_bottom for y in (scene.floor_y, wall_top_y(scene))])
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    focal_px = min(size) / 2 / math.tan(_FIELD_OF_VIEW / 2)
    around = corners - middle
    half = np.array(size) / 2 * 0.95
    # The eye goes back along its direction until every corner lies inside the picture.
    sides = np.maximum(np.abs(around @ right) / half[0], np.abs(around @ up) / half[1])
    distance = float((sides * focal_px - around @ forward).max())
    first = Camera(eye=middle - distance * forward, right=right, up=up, forward=forward, focal_px=focal_px, size=size)
    seen = first.seen_at(corners)
    shift = (seen.min(axis=0) + seen.max(axis=0)) / 2 - np.array(size) / 2
    moved = distance / focal_px * (shift[0] * right - shift[1] * up)
    return Camera(eye=first.eye + moved, right=right, up=up, forward=forward, focal_px=focal_px, size=size)


def wall_top_y(scene: Scene) -> float:
    """Return the height at which walls are cut off."""
    tallest = max((item.pos[1] + item.size[1] for item in scene.objects), default=scene.floor_y)
    return min(scene.ceiling_y, max(scene.floor_y + _LOWEST_WALL_M, tallest + _ABOVE_M))


def paint_perspective(scene: Scene, size: tuple[int, int] = (560, 420)) -> Image.Image:
    """Return the picture of a scene, width and height in pixels."""
    camera = camera_for(scene, (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    rays = camera.rays()
    shape = rays.shape[:2]
    depth, surface = np.full(shape, _FAR), np.zeros(shape, dtype=np.int32)
    normal, colour = np.zeros((*shape, 3)), np.tile(np.array(BACKGROUND, dtype=float), (*shape, 1))
    seen = _Seen(camera, rays, depth, surface, normal, colour)
    _see_floor(scene, seen)
    _see_walls(scene, seen)
    for k, item in enumerate(scene.objects):
        _see_box(item, _FIRST_OBJECT + _FACES * k, seen)
    points = camera.eye + rays * np.where(depth < _FAR, depth, 0)[..., None]
    light = _light(scene, points, normal, surface)
    shaded = np.where((surface > 0)[..., None], colour * light[..., None], colour)
    shaded = np.where(_edges(surface)[..., None], shaded * 0.72, shaded)
    picture = Image.fromarray(np.clip(np.rint(shaded), 0, 255).astype(np.uint8))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _see_floor(scene: Scene, seen: _Seen) -> None:
    camera, rays, depth, surface, normal, colour = seen
    with np.errstate(divide="ignore", invalid="ignore"):
        along = (scene.floor_y - camera.eye[1]) / rays[..., 1]
    x, z = camera.eye[0] + along * rays[..., 0], camera.eye[2] + along * rays[..., 2]
    floor = scene.floor
    shapely.prepare(floor)
    hit = (along > 0) & np.isfinite(along)
    hit[hit] = shapely.contains_xy(floor, x[hit], z[hit])
    depth[hit], surface[hit], normal[hit] = along[hit], 1, (0, 1, 0)
    row = np.floor(x[hit] / _PLANK_M)
    seam_m = 0.006
    at_seam = (x[hit] % _PLANK_M < seam_m) | ((z[hit] + 0.37 * row) % 1.2 < seam_m)
    tone = 1 + 0.025 * np.sin(row * 12.9898 + np.floor((z[hit] + 0.37 * row) / 1.2) * 78.233)
    colour[hit] = np.where(at_seam[:, None], np.array(FLOOR_SEAM), np.array(FLOOR) * tone[:, None])


def _see_walls(scene: Scene, seen: _Seen) -> None:
    camera, rays, depth, surface, normal, colour = seen
    corners = [np.array([corner[0], corner[2]], dtype=float) for corner in scene.bounds_bottom]
    turn = 1.0 if shapely.LinearRing(corners).is_ccw else -1.0
    for k, (start, end) in enumerate(zip(corners, corners[1:] + corners[:1], strict=True)):
        way = end - start
        inward = turn * np.array([-way[1], way[0]]) / np.linalg.norm(way)
        if (camera.eye[[0, 2]] - start) @ inward <= 0:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            along = ((start - camera.eye[[0, 2]]) @ inward) / (rays[..., [0, 2]] @ inward)
            place = camera.eye + along[..., None] * rays
        share = (place[..., [0, 2]] - start) @ way / (way @ way)
        y = place[..., 1]
        hit = (along > 0) & (along < depth) & (share >= 0) & (share <= 1)
        hit &= (y >= scene.floor_y) & (y <= wall_top_y(scene))
        depth[hit], surface[hit], normal[hit] = along[hit], _FIRST_WALL + k, (inward[0], 0, inward[1])
        is_skirting = y[hit] - scene.floor_y < 0.08
        colour[hit] = np.where(is_skirting[:, None], np.array((250, 249, 246)), np.array(WALL))


def _see_box(item: SceneObject, number: int, seen: _Seen) -> None:
    camera, rays, depth, surface, normal, colour = seen
    low, high, axes = _frame(item)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (high - low) + low
    around = camera.seen_at(corners @ axes + _origin(item))
    width, height = camera.size
    x0, y0 = (int(v) for v in np.clip(np.floor(around.min(axis=0)), 0, (width, height)))
    x1, y1 = (int(v) for v in np.clip(np.ceil(around.max(axis=0)) + 1, 0, (width, height)))
    if x0 >= x1 or y0 >= y1:
        return
    here = (slice(y0, y1), slice(x0, x1))
    near, far, axis, side = _slab((camera.eye - _origin(item)) @ axes.T, rays[here] @ axes.T, low, high)
    hit = (near < far) & (near > 0) & (near < depth[here])
    depth[here][hit] = near[hit]
    surface[here][hit] = number + (axis * 2 + (side > 0))[hit]
    normal[here][hit] = axes[axis[hit]] * side[hit][:, None]
    colour[here][hit] = colour_of(item.desc)


def _frame(item: SceneObject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the corners of an object in its own frame, and the axes of that frame as rows."""
    sine, cosine = math.sin(yaw(item.rot)), math.cos(yaw(item.rot))
    axes = np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    width, height, depth = item.size
    return np.array([-width / 2, 0, -depth / 2]), np.array([width / 2, height, depth / 2]), axes


def _origin(item: SceneObject) -> np.ndarray:
    return np.array(item.pos, dtype=float)


def _slab(
    start: np.ndarray, rays: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return where rays enter and leave a box, and the axis and side (-1, 1) of the face that they enter by."""
    safe = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    first, second = (low - start) / safe, (high - start) / safe
    entries = np.minimum(first, second)
    axis = entries.argmax(axis=-1)
    side = -np.sign(np.take_along_axis(rays, axis[..., None], axis=-1))[..., 0]
    return entries.max(axis=-1), np.maximum(first, second).min(axis=-1), axis, side


def _light(scene: Scene, points: np.ndarray, normal: np.ndarray, surface: np.ndarray) -> np.ndarray:
    """Return how bright surfaces are: ambient, sun where no object stands before it, darker where objects touch."""
    seen = surface > 0
    here, facing = points[seen], normal[seen]
    sun = np.clip(facing @ _LIGHT, 0, None)
    contact = np.ones(len(here))
    is_flat = surface[seen] < _FIRST_OBJECT
    for item in scene.objects:
        low, high, axes = _frame(item)
        reach = 3 * (float(np.linalg.norm(high - low)) + _CONTACT_M)
        close = np.flatnonzero(np.abs(here - _origin(item)).max(axis=-1) < reach)
        own = (here[close] - _origin(item)) @ axes.T
        near, far, _, _ = _slab(own + facing[close] @ axes.T * 1e-3, (_LIGHT @ axes.T)[None], low, high)
        sun[close] *= 1 - 0.75 * ((near < far) & (far > 0))
        beyond = np.linalg.norm(np.maximum(np.maximum(low - own, own - high), 0), axis=-1)
        contact[close] *= 1 - is_flat[close] * _CONTACT * np.exp(-beyond / _CONTACT_M)
    light = np.ones(surface.shape)
    light[seen] = (_AMBIENT + _SUN * sun) * np.maximum(contact, 0.55)
    return light


def _edges(surface: np.ndarray) -> np.ndarray:
    """Return where one face ends and another begins, [height, width]."""
    edge = np.zeros(surface.shape, dtype=bool)
    edge[:, 1:] |= surface[:, 1:] != surface[:, :-1]
    edge[1:] |= surface[1:] != surface[:-1]
    return edge
