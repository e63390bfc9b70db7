"""Training rows out of furnished rooms: which object is taken out and asked for again, and rooms turned and shifted.

ReSpace's sampling (arXiv:2506.02459), fresh at every visit: with probability 0.1 an empty room and any object, with
0.1 all objects but one, shuffled, with 0.8 shuffled objects of which m ~ U{0..n-2} are left out and the last that is
kept is asked for. Its augmentation, with probability 0.85: the room turned by 0, 90, 180 or 270 degrees, the corners
told from another one on, places and sizes moved by up to 2 cm where footprints stay inside. In the released program
that augmentation never runs (it looks for a key that is not there); here it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmalign.errors import ConfigError, RowError
from mmalign.formats.scene import Scene, SceneObject, Vector, rounded
from mmalign.formats.scene_geometry import footprint, turn, turned, yaw
from mmalign.formats.scene_json import write_object
from mmalign.formats.scene_task import Edit, Task
from mmalign.formats.scene_words import short_phrase

EMPTY_PROBABILITY, ALL_BUT_ONE_PROBABILITY, AUGMENT_PROBABILITY = 0.1, 0.1, 0.85
LARGEST_JITTER_M = 0.02
_TRIES = 20
Phrases = Mapping[str, Sequence[str]]
"""Description, or id of an asset, of an object -> phrases that ask for it."""


def instruction(
    scene: Scene,
    rng: np.random.Generator,
    *,
    phrases: Phrases | None = None,
    fits: Callable[[str, str], bool] | None = None,
) -> tuple[Task, Scene]:
    """Return an `<add>` and the scene it should lead to, drawn from a furnished room.

    Args:
        scene: with one object or more.
        rng: decides.
        phrases: ways to ask for an object; without any, `short_phrase` of its description.
        fits: prompt, answer -> whether they are short enough; drawn again otherwise, up to 20 times.

    Raises:
        RowError: the scene has no objects, or nothing that fits was drawn.
    """
    if not scene.objects:
        raise RowError("scene has no objects to ask for", field="objects")
    for _ in range(_TRIES):
        kept, target = _drawn(scene, rng)
        edit = Edit(verb="add", words=_phrase(target, phrases or {}, rng))
        task = Task(scene=scene.with_objects(kept), edit=edit)
        if fits is None or fits(task.prompt()[0][-1].text, write_object(target)):
            return task, task.scene.added(target)
    raise RowError("no instruction of the scene is short enough", field="objects", value=len(scene.objects))


def _drawn(scene: Scene, rng: np.random.Generator) -> tuple[list[SceneObject], SceneObject]:
    shuffled = [scene.objects[k] for k in rng.permutation(len(scene.objects))]
    way = rng.random()
    if way < EMPTY_PROBABILITY:
        return [], shuffled[0]
    if way < EMPTY_PROBABILITY + ALL_BUT_ONE_PROBABILITY or len(shuffled) < 2:
        return shuffled[:-1], shuffled[-1]
    kept = shuffled[: len(shuffled) - int(rng.integers(len(shuffled) - 1))]
    return kept[:-1], kept[-1]


def _phrase(item: SceneObject, phrases: Phrases, rng: np.random.Generator) -> str:
    known = phrases.get(item.desc) or phrases.get(item.asset or "")
    return known[int(rng.integers(len(known)))] if known else short_phrase(item.desc)


def augment(scene: Scene, rng: np.random.Generator, probability: float = AUGMENT_PROBABILITY) -> Scene:
    """Return the scene turned, told from another corner on and jittered, or with 1 - `probability` as it is.

    Raises:
        ConfigError: `probability` is none.
    """
    if not 0 <= probability <= 1:
        raise ConfigError(f"probability of augmentation must lie between 0 and 1, got {probability}")
    if rng.random() >= probability:
        return scene
    made = quarter_turned(scene, int(rng.integers(4)))
    first = int(rng.integers(len(made.bounds_bottom)))
    made = replace(
        made,
        bounds_top=made.bounds_top[first:] + made.bounds_top[:first],
        bounds_bottom=made.bounds_bottom[first:] + made.bounds_bottom[:first],
    )
    return made.with_objects([_jittered(made, item, rng) for item in made.objects])


def quarter_turned(scene: Scene, quarters: int) -> Scene:
    """Return the scene turned about the vertical by so many quarters."""
    if quarters % 4 == 0:
        return scene
    angle = quarters % 4 * math.pi / 2

    def place(point: Vector) -> Vector:
        x, z = turned(np.array([point[0], point[2]], dtype=float), angle)
        return (round(float(x), 4) + 0.0, point[1], round(float(z), 4) + 0.0)

    objects = [
        replace(item, pos=place(item.pos), rot=tuple(round(part, 5) + 0.0 for part in turn(yaw(item.rot) + angle)))
        for item in scene.objects
    ]
    return replace(
        scene,
        bounds_top=tuple(map(place, scene.bounds_top)),
        bounds_bottom=tuple(map(place, scene.bounds_bottom)),
        objects=tuple(objects),
    )


def _jittered(scene: Scene, item: SceneObject, rng: np.random.Generator) -> SceneObject:
    shift, growth = rng.uniform(-LARGEST_JITTER_M, LARGEST_JITTER_M, size=(2, 2))
    width, height, depth = item.size
    x, y, z = item.pos
    size = (max(width + growth[0], 0.01), height, max(depth + growth[1], 0.01))
    moved = rounded(replace(item, pos=(float(x + shift[0]), y, float(z + shift[1])), size=tuple(map(float, size))))
    return moved if scene.floor.covers(footprint(moved)) else item
