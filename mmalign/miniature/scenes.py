"""A world of small bedrooms whose good arrangement is known.

A room has a bed with its head against the middle of one wall, and often another piece; a nightstand, a wardrobe or a
desk is asked for, by a material. The designer of this world puts a nightstand at the wall to the right of the bed as
one sees it from its foot, a wardrobe against the middle of the wall opposite, a desk into the corner of that wall on
the same side. So the truth follows from the room, from where the bed stands and from the words; it is never outside and
overlaps nothing.

The annotator of this world is in a hurry (`hurried`): a nightstand often stands half in the bed, a wardrobe or a desk
half in the wall. A model trained on such rooms writes scenes that can be read and not be lived in.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from mmalign.formats.scene import Scene, SceneObject, rounded
from mmalign.formats.scene_geometry import turn, turned
from mmalign.formats.scene_task import Edit, Task

SIDES_M = (3.0, 3.6, 4.2)
WALLS = ("back", "right", "front", "left")
"""Where the head of the bed is; the bed looks away from it."""
PIECES: dict[str, tuple[float, float, float]] = {
    "nightstand": (0.4, 0.5, 0.4),
    "wardrobe": (1.2, 2.0, 0.6),
    "desk": (1.0, 0.7, 0.6),
}
"""Piece -> width, height and depth in metres."""
MATERIALS = ("oak", "white")
CEILING_M = 2.6
HURRY_PROBABILITY = 0.65
HURRY_M = 0.3
_BED = (1.6, 0.6, 2.0)
_GAP_M = 0.05


class Room(NamedTuple):
    """A bedroom, what stands in it beside the bed ("" for nothing), and what is asked for."""

    width_m: float
    depth_m: float
    wall: str
    other: str
    piece: str
    material: str


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a room, everything uniform and independent but that the other piece is not the one asked for."""
    piece = list(PIECES)[rng.integers(len(PIECES))]
    others = ["", *(name for name in PIECES if name != piece)]
    width, depth = (SIDES_M[k] for k in rng.integers(len(SIDES_M), size=2))
    wall, other = WALLS[rng.integers(4)], others[rng.integers(len(others))]
    return Room(width, depth, wall, other, piece, MATERIALS[rng.integers(len(MATERIALS))])


def task(room: Room) -> Task:
    """Return the scene of a room and what is asked for."""
    half_width, half_depth = room.width_m / 2, room.depth_m / 2
    around = [
        (-half_width, half_depth),
        (half_width, half_depth),
        (half_width, -half_depth),
        (-half_width, -half_depth),
    ]
    bed = SceneObject(desc="Gray fabric bed", size=_BED, pos=(0.0, 0.0, 0.0), rot=(0.0, 0.0, 0.0, 1.0))
    objects = [_put(bed, room, 0.0, _BED[2] / 2 - _length(room) / 2, 0)]
    if room.other:
        objects.append(_piece(room, room.other, "white"))
    scene = Scene(
        room_type="bedroom",
        bounds_top=tuple((x, CEILING_M, z) for x, z in around),
        bounds_bottom=tuple((x, 0.0, z) for x, z in around),
        objects=tuple(objects),
    )
    return Task(scene=scene, edit=Edit(verb="add", words=f"{room.material} {room.piece}"))


def truth(room: Room) -> SceneObject:
    """Return what the designer adds."""
    return _piece(room, room.piece, room.material)


def hurried(room: Room, rng: np.random.Generator) -> SceneObject:
    """Return what the annotator adds: with probability 0.65 30 cm off, into bed or wall, otherwise the truth."""
    return _piece(room, room.piece, room.material, off_m=HURRY_M if rng.random() < HURRY_PROBABILITY else 0.0)


def _length(room: Room) -> float:
    """Return how far the wall opposite the head of the bed is."""
    return room.depth_m if room.wall in ("back", "front") else room.width_m


def _breadth(room: Room) -> float:
    return room.width_m if room.wall in ("back", "front") else room.depth_m


def _piece(room: Room, name: str, material: str, off_m: float = 0.0) -> SceneObject:
    """Return a piece where the designer puts it, or `off_m` further than that."""
    size = PIECES[name]
    far, beside = _length(room) / 2, _breadth(room) / 2
    places = {
        "nightstand": (_BED[0] / 2 + _GAP_M + size[0] / 2 - off_m, size[2] / 2 - far, 0),
        "wardrobe": (0.0, far - size[2] / 2 + off_m, 2),
        "desk": (beside - size[2] / 2 + off_m, far - size[0] / 2, 3),
    }
    item = SceneObject(desc=f"{material} {name}".capitalize(), size=size, pos=(0.0, 0.0, 0.0), rot=(0.0, 0.0, 0.0, 1.0))
    return _put(item, room, *places[name])


def _put(item: SceneObject, room: Room, x: float, z: float, quarters: int) -> SceneObject:
    """Return a piece at a place and with a turn told for a room with the bed's head at the back, where z is least."""
    # The same room with the head at the right is turned by minus a quarter, which takes (0, -1) to (1, 0).
    quarter = -WALLS.index(room.wall)
    x, z = (float(value) for value in turned(np.array([x, z]), quarter * math.pi / 2))
    rot = turn(((quarter + quarters) % 4) * math.pi / 2)
    made = rounded(replace(item, pos=(x, 0.0, z), rot=rot))
    return replace(made, pos=tuple(value + 0.0 for value in made.pos), rot=tuple(value + 0.0 for value in made.rot))
