"""A furnished room: a floor, a ceiling, and objects with a description, a size, a place and a turn.

This is the structured scene of ReSpace (arXiv:2506.02459): metres, y up, the middle of the floor's bounds at the
origin. `size` is that of the object before it is turned, along x, y and z; `pos` is the middle of its underside; `rot`
is a quaternion x, y, z, w, of which only turns about the vertical are real: none of the 3,805 objects of ReSpace's test
set tilts. Numbers stay as they were written, whole or not, so that what is read is written again character by
character.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import shapely

from mmalign.errors import RowError
from mmalign.formats.values import require_number, require_text

RoomType = Literal["bedroom", "livingroom", "other"]
ROOM_TYPES: tuple[RoomType, ...] = ("bedroom", "livingroom", "other")
Vector = tuple[float, ...]
Corners = tuple[Vector, ...]

MOST_OBJECTS, MOST_CORNERS = 1_000, 1_000
LARGEST_OBJECT_M = 20.0
"""ReSpace leaves out objects that are longer than this."""
LARGEST_ROOM_M = 100.0
FARTHEST_M = 1_000.0
QUATERNION_TOLERANCE = 0.01
_LEVEL_M = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneObject:
    """One piece of furniture.

    Args:
        desc: what it is, in words.
        size: width, height and depth in metres before it is turned, all larger than 0.
        pos: middle of its underside, x y z in metres.
        rot: unit quaternion x y z w of a turn about the vertical.
        asset: id of the model that stands for it (`jid` in 3D-FUTURE), where it is known.
    """

    desc: str
    size: Vector
    pos: Vector
    rot: Vector
    asset: str | None = None

    def __post_init__(self) -> None:
        require_text(self.desc, "desc")
        if not self.desc.strip():
            raise RowError("object has no description", field="desc", value=self.desc)
        for name, length in (("size", 3), ("pos", 3), ("rot", 4)):
            require_numbers(getattr(self, name), length, name)
        if min(self.size) <= 0:
            raise RowError("size of an object must be larger than 0", field="size", value=list(self.size))
        if max(self.size) > LARGEST_OBJECT_M:
            hint = f"at most {LARGEST_OBJECT_M:g} m a side; sizes are metres"
            raise RowError("object is far too large", field="size", value=list(self.size), hint=hint)
        if max(map(abs, self.pos)) > FARTHEST_M:
            hint = f"at most {FARTHEST_M:g} m from the origin; places are metres"
            raise RowError("object is far away", field="pos", value=list(self.pos), hint=hint)
        if abs(math.hypot(*self.rot) - 1) > QUATERNION_TOLERANCE:
            hint = "x, y, z, w with a sum of squares of 1; [0, 0, 0, 1] is no turn"
            raise RowError("quaternion is not of length 1", field="rot", value=list(self.rot), hint=hint)
        if max(abs(self.rot[0]), abs(self.rot[2])) > QUATERNION_TOLERANCE:
            hint = "only turns about the vertical, [0, y, 0, w], are known"
            raise RowError("object is tilted", field="rot", value=list(self.rot), hint=hint)
        if self.asset is not None:
            require_text(self.asset, "jid")

    def named(self) -> str:
        """Return how messages speak of the object."""
        return repr(self.desc if len(self.desc) <= 48 else f"{self.desc[:45]}...")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A room and what stands in it.

    Args:
        room_type: bedroom, livingroom or other.
        bounds_top: corners of the ceiling, x y z each, above those of the floor.
        bounds_bottom: corners of the floor around it in either sense; the last joins the first and does not repeat it.
        objects: in the order in which they were placed.
    """

    room_type: RoomType
    bounds_top: Corners
    bounds_bottom: Corners
    objects: tuple[SceneObject, ...] = ()

    def __post_init__(self) -> None:
        if self.room_type not in ROOM_TYPES:
            hint = f"use one of {', '.join(ROOM_TYPES)}"
            raise RowError("type of room is unknown", field="room_type", value=self.room_type, hint=hint)
        _require_floor(self.bounds_bottom)
        _require_ceiling(self.bounds_top, self.bounds_bottom)
        if len(self.objects) > MOST_OBJECTS:
            raise RowError("scene has too many objects", field="objects", value=len(self.objects))

    @property
    def floor(self) -> shapely.Polygon:
        """Outline of the floor seen from above, in x and z."""
        return shapely.Polygon([(x, z) for x, _, z in self.bounds_bottom])

    @property
    def floor_y(self) -> float:
        """Height of the floor."""
        return self.bounds_bottom[0][1]

    @property
    def ceiling_y(self) -> float:
        """Height of the ceiling; of its lowest corner where it is not level."""
        return min(corner[1] for corner in self.bounds_top)

    def with_objects(self, objects: Sequence[SceneObject]) -> Scene:
        """Return the same room with other objects."""
        return replace(self, objects=tuple(objects))

    def without(self, k: int) -> Scene:
        """Return the scene without object `k`."""
        return self.with_objects(self.objects[:k] + self.objects[k + 1 :])

    def added(self, item: SceneObject) -> Scene:
        """Return the scene with one more object."""
        return self.with_objects((*self.objects, item))

    def bare(self) -> Scene:
        """Return the scene without ids of assets: what a model is shown."""
        return self.with_objects([replace(item, asset=None) for item in self.objects])


def rounded(item: SceneObject) -> SceneObject:
    """Return the object as ReSpace writes it: centimetres, and a turn to five digits."""
    size = tuple(max(round(side, 2), 0.01) for side in item.size)
    pos, rot = tuple(round(value, 2) for value in item.pos), tuple(round(value, 5) for value in item.rot)
    return replace(item, size=size, pos=pos, rot=rot)


def require_numbers(values: object, length: int, field: str) -> None:
    """Refuse what is not so many finite numbers.

    Raises:
        RowError: naming `field`.
    """
    if not isinstance(values, tuple) or len(values) != length:
        raise RowError(f"must be {length} numbers", field=field, value=values)
    for value in values:
        require_number(value, field)


def _require_floor(corners: Corners) -> None:
    field = "bounds_bottom"
    for k, corner in enumerate(corners):
        require_numbers(corner, 3, f"{field}[{k}]")
    if not 3 <= len(corners) <= MOST_CORNERS:
        hint = f"a room has 3 to {MOST_CORNERS:,} corners"
        raise RowError("floor is open: too few corners, or too many", field=field, value=len(corners), hint=hint)
    if any(abs(corner[1] - corners[0][1]) > _LEVEL_M for corner in corners):
        raise RowError("floor is not level", field=field, value=[corner[1] for corner in corners])
    seen: set[tuple[float, float]] = set()
    for k, (x, _, z) in enumerate(corners):
        if (x, z) in seen:
            hint = "the last corner joins the first without repeating it"
            raise RowError("corner of the floor stands twice", field=f"{field}[{k}]", value=[x, z], hint=hint)
        seen.add((x, z))
    for axis in (0, 2):
        span = max(corner[axis] for corner in corners) - min(corner[axis] for corner in corners)
        if span > LARGEST_ROOM_M:
            raise RowError("room is far too large", field=field, value=span, hint=f"at most {LARGEST_ROOM_M:g} m")
    ring = shapely.LinearRing([(x, z) for x, _, z in corners])
    if not ring.is_simple:
        raise RowError("floor crosses itself", field=field, value=[[x, z] for x, _, z in corners])
    if shapely.Polygon(ring).area <= 1e-6:
        raise RowError("floor has no area", field=field, value=[[x, z] for x, _, z in corners])


def _require_ceiling(top: Corners, bottom: Corners) -> None:
    field = "bounds_top"
    if len(top) != len(bottom):
        hint = f"the floor has {len(bottom)} corners"
        raise RowError("ceiling has not as many corners as the floor", field=field, value=len(top), hint=hint)
    for k, (upper, lower) in enumerate(zip(top, bottom, strict=True)):
        require_numbers(upper, 3, f"{field}[{k}]")
        if abs(upper[0] - lower[0]) > _LEVEL_M or abs(upper[2] - lower[2]) > _LEVEL_M:
            hint = f"it stands above {list(lower)} of the floor, in the same order"
            raise RowError("ceiling is not above the floor", field=f"{field}[{k}]", value=list(upper), hint=hint)
        if not 0 < upper[1] - lower[1] <= LARGEST_ROOM_M:
            hint = f"0 to {LARGEST_ROOM_M:g} m above the floor"
            raise RowError("height of the room is out of bounds", field=f"{field}[{k}]", value=upper[1], hint=hint)
