"""How badly a scene is placed: volumes outside the room and volumes that two objects share, in cubic metres.

    OOB = Σ_i v³ (|V_i| - |V_i ∩ V_room|)    out of bounds
    MBL = Σ_{i<j} v³ |V_i ∩ V_j|             shared, "mesh-based loss"
    PBL = OOB + MBL                          placement-based loss; a scene is valid when it is at most 0.1

These are ReSpace's (arXiv:2506.02459), with V the filled cells of `scene_voxels`, v = 5 cm. Boxes are looked at first:
where the boxes alone say that nothing is wrong, no cell is looked at. `compat="official"` turns the footprints of this
first look the other way, as the released program does (it misses overlaps of obliquely turned objects, and finds some
that are none), cuts and places cells as it does, and takes what cannot be cut into cells for faultless.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmalign.errors import RowError
from mmalign.formats.compat import Compat, require_compat
from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_geometry import footprint, height_shared, volume
from mmalign.modalities.scene_voxels import CELL_M, Meshes, Voxels, object_voxels, outside_count

VALID_PBL_M3 = 0.1
_GATE_M3 = 1e-7
_CELL_M3 = CELL_M**3


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Losses of a scene in m³: outside the room by object [N], and shared by pairs [N, N], zero but for i < j."""

    outside: np.ndarray
    shared: np.ndarray

    @property
    def oob_m3(self) -> float:
        """Volume outside the room."""
        return float(self.outside.sum())

    @property
    def mbl_m3(self) -> float:
        """Volume that pairs of objects share."""
        return float(self.shared.sum())

    @property
    def pbl_m3(self) -> float:
        """Placement-based loss."""
        return self.oob_m3 + self.mbl_m3

    @property
    def is_valid(self) -> bool:
        """Whether the scene is valid by ReSpace's rule."""
        return self.pbl_m3 <= VALID_PBL_M3

    def share_of(self, k: int) -> float:
        """Return what object `k` is charged with: its own part outside, and what it shares with later objects."""
        return float(self.outside[k] + self.shared[k].sum())


@dataclass(frozen=True, kw_only=True)
class Change:
    """Losses after an edit minus losses before it, in m³."""

    oob_m3: float
    mbl_m3: float
    pbl_m3: float


def placement(scene: Scene, meshes: Meshes | None = None, compat: Compat = "corrected") -> Placement:
    """Return the losses of a scene.

    Args:
        scene: of N objects.
        meshes: models by the id of their asset; objects without one are their boxes.
        compat: see the module.

    Raises:
        ConfigError: `compat` is unknown.
        RowError: a model cannot be cut into cells ("corrected").
    """
    require_compat(compat)
    count = len(scene.objects)
    outside, shared = np.zeros(count), np.zeros((count, count))
    cells: dict[int, Voxels | None] = {}

    def cells_of(k: int) -> Voxels | None:
        if k not in cells:
            cells[k] = _cells(scene.objects[k], meshes, compat)
        return cells[k]

    for k, item in enumerate(scene.objects):
        if box_outside_m3(scene, item, compat) > _GATE_M3 and (voxels := cells_of(k)) is not None:
            outside[k] = outside_count(scene, voxels, compat) * _CELL_M3
    for first, second in _near(scene, compat):
        one, other = cells_of(first), cells_of(second)
        if one is not None and other is not None:
            shared[first, second] = one.shared(other) * _CELL_M3
    return Placement(outside=outside, shared=shared)


def change(before: Scene, after: Scene, meshes: Meshes | None = None, compat: Compat = "corrected") -> Change:
    """Return what an edit does to the losses.

    Raises:
        RowError: as `placement`.
    """
    first, second = placement(before, meshes, compat), placement(after, meshes, compat)
    return Change(
        oob_m3=second.oob_m3 - first.oob_m3,
        mbl_m3=second.mbl_m3 - first.mbl_m3,
        pbl_m3=second.pbl_m3 - first.pbl_m3,
    )


def _cells(item: SceneObject, meshes: Meshes | None, compat: Compat) -> Voxels | None:
    try:
        return object_voxels(item, meshes, compat)
    except RowError:
        if compat == "official":
            return None
        raise


def box_outside_m3(scene: Scene, item: SceneObject, compat: Compat = "corrected") -> float:
    """Return the volume of an object's box outside the room."""
    bottom, top = item.pos[1], item.pos[1] + item.size[1]
    inside_m = max(0.0, min(top, scene.ceiling_y) - max(bottom, scene.floor_y))
    return volume(item) - footprint(item, compat).intersection(scene.floor).area * inside_m


def box_shared_m3(first: SceneObject, second: SceneObject, compat: Compat = "corrected") -> float:
    """Return the volume that the boxes of two objects share."""
    height_m = height_shared(first, second)
    return height_m and footprint(first, compat).intersection(footprint(second, compat)).area * height_m


def _near(scene: Scene, compat: Compat) -> list[tuple[int, int]]:
    """Return the pairs of objects whose boxes share volume."""
    objects = scene.objects
    return [
        (first, second)
        for first in range(len(objects))
        for second in range(first + 1, len(objects))
        if box_shared_m3(objects[first], objects[second], compat) > _GATE_M3
    ]
