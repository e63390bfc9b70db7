"""Where the boxes of a scene lie: turns, footprints seen from above, and corners.

A turn of θ about the vertical takes (x, z) to (x cos θ + z sin θ, -x sin θ + z cos θ), as the quaternion does with a
model's points. ReSpace's released program turns footprints the other way, which shows with oblique turns only;
`compat="official"` does the same.
"""

from __future__ import annotations

import math

import numpy as np
import shapely

from mmalign.formats.compat import Compat
from mmalign.formats.scene import SceneObject, Vector


def yaw(rot: Vector) -> float:
    """Return the angle of a turn about the vertical, in radians, of a quaternion x y z w."""
    x, y, z, w = rot
    return math.atan2(2 * (w * y + x * z), 1 - 2 * (y * y + z * z))


def turn(angle: float) -> tuple[float, float, float, float]:
    """Return the quaternion x y z w of a turn about the vertical."""
    return (0.0, math.sin(angle / 2), 0.0, math.cos(angle / 2))


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Return points [N, 2] (x, z) after a turn about the vertical through the origin."""
    sine, cosine = math.sin(angle), math.cos(angle)
    x, z = points[..., 0], points[..., 1]
    return np.stack([x * cosine + z * sine, -x * sine + z * cosine], axis=-1)


def footprint_corners(item: SceneObject, compat: Compat = "corrected") -> np.ndarray:
    """Return the corners of an object seen from above, [4, 2]: x and z in metres."""
    half_width, half_depth = item.size[0] / 2, item.size[2] / 2
    around = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (half_width, half_depth)
    angle = yaw(item.rot) if compat == "corrected" else -yaw(item.rot)
    return turned(around, angle) + (item.pos[0], item.pos[2])


def footprint(item: SceneObject, compat: Compat = "corrected") -> shapely.Polygon:
    """Return the outline of an object seen from above."""
    return shapely.Polygon(footprint_corners(item, compat))


def height_shared(first: SceneObject, second: SceneObject) -> float:
    """Return for how many metres of height both objects are there."""
    tops = min(first.pos[1] + first.size[1], second.pos[1] + second.size[1])
    return max(0.0, tops - max(first.pos[1], second.pos[1]))


def volume(item: SceneObject) -> float:
    """Return the volume of an object's box in cubic metres."""
    return math.prod(item.size)
