"""Which cells of a grid of 5 cm an object fills, and which a room holds.

Without a model an object is its box, and a cell is filled when its middle lies in the box: exact volumes for boxes that
end on the grid. With a model (a `trimesh` mesh in the object's own frame) its surface is cut into cells and what it
encloses is filled; cells that the surface touches count, which adds up to half a cell on every side.

`compat="official"` fills all cells so, boxes and rooms too, and places them as ReSpace's released program does: each
is cut in its own frame and its cells are then moved to floor(pos / 5 cm), in a room whose first cell lies at minus half
its extent. That program has models for everything; boxes as meshes are ours.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from mmalign.errors import RowError
from mmalign.formats.compat import Compat
from mmalign.formats.scene import Corners, Scene, SceneObject
from mmalign.formats.scene_geometry import footprint_corners, turned, yaw

if TYPE_CHECKING:
    from trimesh import Trimesh

CELL_M = 0.05
Meshes = Mapping[str, "Trimesh"]
"""Id of an asset -> its model: metres, y up, standing on y = 0 around x = z = 0, not turned."""
_EPSILON = 1e-6


class Voxels(NamedTuple):
    """Filled cells: the cell of the first entry, and which are filled, [x, y, z]."""

    low: tuple[int, int, int]
    filled: np.ndarray

    @property
    def count(self) -> int:
        """Number of filled cells."""
        return int(np.count_nonzero(self.filled))

    def shared(self, other: Voxels) -> int:
        """Return how many cells both fill."""
        mine, theirs = [], []
        for first, second, length, width in zip(
            self.low, other.low, self.filled.shape, other.filled.shape, strict=True
        ):
            start, end = max(first, second), min(first + length, second + width)
            if start >= end:
                return 0
            mine.append(slice(start - first, end - first))
            theirs.append(slice(start - second, end - second))
        return int(np.count_nonzero(self.filled[tuple(mine)] & other.filled[tuple(theirs)]))


def object_voxels(item: SceneObject, meshes: Meshes | None = None, compat: Compat = "corrected") -> Voxels:
    """Return the cells that an object fills.

    Raises:
        RowError: the model of the object cannot be cut into cells.
    """
    mesh = (meshes or {}).get(item.asset) if item.asset is not None else None
    if compat == "official":
        return _anchored(_cut(_box_mesh(item.size) if mesh is None else mesh, item), item)
    return _box_voxels(item) if mesh is None else _placed(_cut(mesh, item), item)


def outside_count(scene: Scene, voxels: Voxels, compat: Compat = "corrected") -> int:
    """Return how many of an object's cells the room does not hold."""
    if compat == "official":
        return voxels.count - voxels.shared(_official_room(scene.bounds_bottom, scene.ceiling_y - scene.floor_y))
    width, height, depth = voxels.filled.shape
    x, y, z = (_middles(low, length) for low, length in zip(voxels.low, (width, height, depth), strict=True))
    floor = shapely.contains_xy(scene.floor, *np.meshgrid(x, z, indexing="ij"))
    within = (y >= scene.floor_y) & (y < scene.ceiling_y)
    return voxels.count - int(np.count_nonzero(voxels.filled & floor[:, None, :] & within[None, :, None]))


def _middles(low: int, length: int) -> np.ndarray:
    """Return the middles of cells; a hair further, so that what ends at a middle holds it on one side only."""
    return (np.arange(low, low + length) + 0.5) * CELL_M + _EPSILON


def _box_voxels(item: SceneObject) -> Voxels:
    corners = footprint_corners(item)
    bottom, top = item.pos[1], item.pos[1] + item.size[1]
    low = np.floor(np.array([corners[:, 0].min(), bottom, corners[:, 1].min()]) / CELL_M).astype(int)
    high = np.ceil(np.array([corners[:, 0].max(), top, corners[:, 1].max()]) / CELL_M).astype(int) + 1
    x, y, z = (_middles(first, last - first) for first, last in zip(low, high, strict=True))
    here = np.stack(np.meshgrid(x - item.pos[0], z - item.pos[2], indexing="ij"), axis=-1)
    own = turned(here, -yaw(item.rot))
    half = np.array([item.size[0], item.size[2]]) / 2
    floor = ((own >= -half) & (own < half)).all(axis=-1)
    filled = floor[:, None, :] & ((y >= bottom) & (y < top))[None, :, None]
    return Voxels((int(low[0]), int(low[1]), int(low[2])), filled)


def _cut(mesh: Trimesh, item: SceneObject) -> tuple[np.ndarray, np.ndarray]:
    """Return the filled cells of a turned model in its own frame [x, y, z], and the middle of the first in metres."""
    import trimesh

    try:
        matrix = trimesh.transformations.rotation_matrix(yaw(item.rot), [0, 1, 0])
        grid = mesh.copy().apply_transform(matrix).voxelized(CELL_M).fill()
        filled = np.asarray(grid.matrix, dtype=bool)
    except (ValueError, IndexError, ArithmeticError, MemoryError) as error:
        hint = f"it stands for {item.named()}: {error}"
        raise RowError(
            "model of an object cannot be cut into cells", field="jid", value=item.asset, hint=hint
        ) from error
    return filled, np.asarray(grid.transform[:3, 3])


def _placed(cut: tuple[np.ndarray, np.ndarray], item: SceneObject) -> Voxels:
    filled, first = cut
    low = np.floor((first + np.array(item.pos)) / CELL_M + _EPSILON).astype(int)
    return Voxels((int(low[0]), int(low[1]), int(low[2])), filled)


def _anchored(cut: tuple[np.ndarray, np.ndarray], item: SceneObject) -> Voxels:
    filled, _ = cut
    x, y, z = (math.floor(value / CELL_M) for value in item.pos)
    return Voxels((x - filled.shape[0] // 2, y, z - filled.shape[2] // 2), filled)


def _box_mesh(size: tuple[float, ...]) -> Trimesh:
    import trimesh

    box = trimesh.creation.box(extents=size)
    box.apply_translation([0, size[1] / 2, 0])
    return box


@functools.lru_cache(maxsize=64)
def _official_room(bounds_bottom: Corners, height_m: float) -> Voxels:
    """Return the cells of a room: its outline filled and drawn up, cut as any model."""
    import trimesh

    outline = shapely.Polygon([(x, z) for x, _, z in bounds_bottom])
    triangles = shapely.get_parts(shapely.constrained_delaunay_triangles(outline))
    points = np.concatenate([shapely.get_coordinates(triangle)[:3] for triangle in triangles])
    faces = np.arange(len(points)).reshape(-1, 3)
    vertices, index = np.unique(points.round(9), axis=0, return_inverse=True)
    solid = trimesh.creation.extrude_triangulation(vertices, index.reshape(-1)[faces], height_m)
    drawn_up = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=float)
    filled = np.asarray(solid.apply_transform(drawn_up).voxelized(CELL_M).fill().matrix, dtype=bool)
    sides = [
        max(corner[axis] for corner in bounds_bottom) - min(corner[axis] for corner in bounds_bottom) for axis in (0, 2)
    ]
    shifts = [int(math.ceil(side / CELL_M) / 2) for side in sides]
    return Voxels((-shifts[0], 0, -shifts[1]), filled)
