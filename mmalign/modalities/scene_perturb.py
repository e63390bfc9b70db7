"""Scenes made worse, with a knob: the rejected side of preference rows whose better side is known.

Every change is of one object, is seeded, and grows with `strength` (0 < strength <= 1); of a move, strength is the
share of volume that is wrong afterwards. Places are rounded to centimetres, as the scenes are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import shapely
import shapely.ops

from mmalign.errors import ConfigError, RowError
from mmalign.formats.scene import Scene, SceneObject, rounded
from mmalign.formats.scene_geometry import turn, volume, yaw
from mmalign.formats.scene_json import OBJECT_KEYS, object_to_json
from mmalign.modalities.layout_perturb import first_share
from mmalign.modalities.scene_losses import box_outside_m3, box_shared_m3
from mmalign.modalities.scene_scores import same_words, similarity

LARGEST_SCALE = 2.5
LARGEST_TURN = math.pi / 2
MISSING_FIELD = "field"


def perturb(scene: Scene, how: str, *, seed: int, strength: float = 0.5, k: int = -1) -> Scene:
    """Return the scene with one object placed, sized or described worse.

    Args:
        how: "wall" moves the object through the nearest wall until this share of its volume is outside; "overlap"
            moves it onto another until it shares this share of the smaller one's volume, or as much as their shapes
            let it; "size" makes it up to 2.5 times larger or smaller along every side; "rotation" turns it by up to a
            quarter; "object" puts another object of the scene in its place, at 1 the one that is told least alike.
        seed: the same seed gives the same scene.
        strength: 0 < strength <= 1, at 1 as far as said above.
        k: position of the object, the last by default.

    Raises:
        ConfigError: unknown `how`, or strength out of range.
        RowError: the scene has too few objects.
    """
    if how not in PERTURBATIONS:
        raise ConfigError(f"scene perturbation {how!r} is unknown; use one of {', '.join(PERTURBATIONS)}")
    _require_strength(how, strength)
    change, needs = PERTURBATIONS[how]
    if len(scene.objects) < needs:
        count = len(scene.objects)
        hint = f"{how} needs {needs}"
        raise RowError("scene has too few objects to be made worse", field="objects", value=count, hint=hint)
    k %= len(scene.objects)
    worse = rounded(change(scene, k, np.random.default_rng(seed), strength))
    return scene.with_objects([*scene.objects[:k], worse, *scene.objects[k + 1 :]])


def without_fields(item: SceneObject, *, seed: int, strength: float = 0.5) -> dict[str, object]:
    """Return an object as JSON values that lack one to three of its keys; it cannot be read as an object any more.

    Args:
        item: the object.
        seed: the same seed leaves out the same keys.
        strength: 0 < strength <= 1, at 1 three keys are missing.

    Raises:
        ConfigError: strength out of range.
    """
    _require_strength(MISSING_FIELD, strength)
    count = max(1, round(3 * strength))
    lost = np.random.default_rng(seed).permutation(OBJECT_KEYS["corrected"])[:count]
    return {name: value for name, value in object_to_json(item).items() if name not in lost}


def _require_strength(how: str, strength: float) -> None:
    if not 0 < strength <= 1:
        raise ConfigError(f"strength of {how!r} must satisfy 0 < strength <= 1, got {strength}")


def _moved(item: SceneObject, step: np.ndarray) -> SceneObject:
    return replace(item, pos=tuple(float(value) for value in np.asarray(item.pos) + step))


def _wall(scene: Scene, k: int, rng: np.random.Generator, strength: float) -> SceneObject:
    item = scene.objects[k]
    middle = shapely.Point(item.pos[0], item.pos[2])
    wall = shapely.get_coordinates(shapely.ops.nearest_points(scene.floor.exterior, middle)[0])[0]
    way = wall - np.array([middle.x, middle.y])
    if not scene.floor.contains(middle):
        way = -way
    length = float(np.linalg.norm(way))
    angle = rng.uniform(0, 2 * math.pi)
    out = way / length if length > 1e-9 else np.array([math.cos(angle), math.sin(angle)])
    x0, z0, x1, z1 = scene.floor.bounds
    # So far away, nothing of it is left inside.
    step = np.array([out[0], 0.0, out[1]]) * (math.hypot(x1 - x0, z1 - z0) + math.hypot(*item.size))
    share = first_share(lambda part: box_outside_m3(scene, _moved(item, part * step)) / volume(item), strength - 1e-9)
    return _moved(item, share * step)


def _overlap(scene: Scene, k: int, rng: np.random.Generator, strength: float) -> SceneObject:
    item = scene.objects[k]
    others = [j for j in range(len(scene.objects)) if j != k]
    other = scene.objects[int(rng.choice(others))]
    smaller = min(volume(item), volume(other))
    step = np.asarray(other.pos, dtype=float) - np.asarray(item.pos, dtype=float)
    share = first_share(lambda part: box_shared_m3(_moved(item, part * step), other) / smaller, strength)
    return _moved(item, share * step)


def _size(scene: Scene, k: int, rng: np.random.Generator, strength: float) -> SceneObject:
    factor = 1 + (LARGEST_SCALE - 1) * strength
    factor = float(factor if rng.random() < 0.5 else 1 / factor)
    item = scene.objects[k]
    return replace(item, size=tuple(side * factor for side in item.size))


def _rotation(scene: Scene, k: int, rng: np.random.Generator, strength: float) -> SceneObject:
    side = 1 if rng.random() < 0.5 else -1
    item = scene.objects[k]
    return replace(item, rot=turn(yaw(item.rot) + side * strength * LARGEST_TURN))


def _object(scene: Scene, k: int, rng: np.random.Generator, strength: float) -> SceneObject:
    item = scene.objects[k]
    others = [other for j, other in enumerate(scene.objects) if j != k and other.desc != item.desc]
    if not others:
        raise RowError("scene has too few objects to be made worse", field="objects", hint="all are told alike")
    by_likeness = sorted(others, key=lambda other: -similarity(item.desc, other.desc, same_words))
    other = by_likeness[math.ceil(strength * len(by_likeness)) - 1]
    return replace(item, desc=other.desc, size=other.size, asset=other.asset)


PERTURBATIONS: dict[str, tuple[Callable[[Scene, int, np.random.Generator, float], SceneObject], int]] = {
    "wall": (_wall, 1),
    "overlap": (_overlap, 2),
    "size": (_size, 1),
    "rotation": (_rotation, 1),
    "object": (_object, 2),
}
"""Name -> what it does, and how many objects it needs. `MISSING_FIELD` is one more, of the text of an answer."""
