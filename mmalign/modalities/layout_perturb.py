"""Layouts made worse, with a knob: the rejected side of preference rows whose better side is known.

Every change leaves backgrounds where they are, is seeded, and grows with `strength` (0 < strength <= 1): a small one is
hard to tell from the layout it was made of, 1 is plain to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mmalign.errors import ConfigError, RowError
from mmalign.formats import boxes as geometry
from mmalign.formats.layout import Box, Layout

FARTHEST_JITTER, FARTHEST_STEP, LARGEST_SCALE = 0.3, 0.12, 2.5
_STEPS = 40
Boxes = list[Box]


def perturb(layout: Layout, how: str, *, seed: int, strength: float = 0.5) -> Layout:
    """Return the layout with some of its boxes elsewhere.

    Args:
        how: "jitter" moves every element by up to 0.3 of the canvas each way; "swap" exchanges the middles of up to
            all elements, two by two; "overlap" moves an element onto another until it covers this share of the smaller
            one, or as much as their shapes let it; "misalign" moves elements off their common lines by different steps
            of up to 0.12; "scale" makes an element up to 2.5 times larger or smaller; "out" moves an element until this
            share of it lies beyond the canvas.
        seed: the same seed gives the same layout.
        strength: 0 < strength <= 1, at 1 as far as said above.

    Raises:
        ConfigError: unknown `how`, or strength out of range.
        RowError: the layout has too few elements that are no background.
    """
    if how not in PERTURBATIONS:
        raise ConfigError(f"layout perturbation {how!r} is unknown; use one of {', '.join(PERTURBATIONS)}")
    if not 0 < strength <= 1:
        raise ConfigError(f"strength of {how!r} must satisfy 0 < strength <= 1, got {strength}")
    change, needs = PERTURBATIONS[how]
    placed = layout.placed()
    if len(placed) < needs:
        hint = f"{how} needs {needs} elements that are no background"
        raise RowError("layout has too few elements to be made worse", field="elements", value=len(placed), hint=hint)
    boxes = list(layout.boxes)
    change(boxes, placed, np.random.default_rng(seed), strength)
    return layout.with_boxes(boxes)


def _moved(box: Box, across: float, down: float) -> Box:
    return replace(box, x=float(box.x + across), y=float(box.y + down))


def _jitter(boxes: Boxes, placed: list[int], rng: np.random.Generator, strength: float) -> None:
    for k in placed:
        boxes[k] = _moved(boxes[k], *rng.uniform(-1, 1, size=2) * FARTHEST_JITTER * strength)


def _swap(boxes: Boxes, placed: list[int], rng: np.random.Generator, strength: float) -> None:
    shuffled = rng.permutation(placed)
    pairs = max(1, round(strength * (len(placed) // 2)))
    for first, second in zip(shuffled[:pairs], shuffled[pairs : 2 * pairs], strict=True):
        across, down = (b - a for a, b in zip(boxes[first].centre, boxes[second].centre, strict=True))
        boxes[first], boxes[second] = _moved(boxes[first], across, down), _moved(boxes[second], -across, -down)


def _overlap(boxes: Boxes, placed: list[int], rng: np.random.Generator, strength: float) -> None:
    mover, target = rng.choice(placed, size=2, replace=False)
    start = boxes[mover]
    across, down = (b - a for a, b in zip(start.centre, boxes[target].centre, strict=True))
    share = first_share(lambda part: _covered(_moved(start, part * across, part * down), boxes[target]), strength)
    boxes[mover] = _moved(start, share * across, share * down)


def _covered(box: Box, other: Box) -> float:
    """Return the share of the smaller box that lies on the other."""
    first, second = geometry.as_edges([box]), geometry.as_edges([other])
    return float(geometry.intersections(first, second)[0, 0] / min(geometry.areas(first)[0], geometry.areas(second)[0]))


def _misalign(boxes: Boxes, placed: list[int], rng: np.random.Generator, strength: float) -> None:
    """Move elements by steps of different lengths, so that no line that two shared is shared afterwards."""
    lengths = rng.permutation(np.linspace(0.4, 1.0, len(placed))) * FARTHEST_STEP * strength
    for number, k in enumerate(rng.permutation(placed)):
        side = 1 if number % 2 else -1
        boxes[k] = _moved(boxes[k], side * lengths[number], rng.choice([-1, 1]) * lengths[-1 - number] / 2)


def _scale(boxes: Boxes, placed: list[int], rng: np.random.Generator, strength: float) -> None:
    k = int(rng.choice(placed))
    factor = 1 + (LARGEST_SCALE - 1) * strength
    factor = float(factor if rng.random() < 0.5 else 1 / factor)
    (x, y), box = boxes[k].centre, boxes[k]
    width, height = box.width * factor, box.height * factor
    boxes[k] = Box(x=x - width / 2, y=y - height / 2, width=width, height=height)


def _out(boxes: Boxes, placed: list[int], rng: np.random.Generator, strength: float) -> None:
    """Push an element over the edge that is nearest to its middle."""
    k = int(rng.choice(placed))
    box = boxes[k]
    (x, y), canvas = box.centre, Box(x=0, y=0, width=1, height=1)
    ways = [
        (x, (-x - box.width, 0)),
        (1 - x, (1 - x + box.width, 0)),
        (y, (0, -y - box.height)),
        (1 - y, (0, 1 - y + box.height)),
    ]
    _, (across, down) = min(ways)

    def outside(part: float) -> float:
        shifted = geometry.as_edges([_moved(box, part * across, part * down)])
        inside = geometry.intersections(shifted, geometry.as_edges([canvas]))[0, 0]
        return float(1 - inside / geometry.areas(shifted)[0])

    share = first_share(outside, strength)
    boxes[k] = _moved(box, share * across, share * down)


def first_share(reached: Callable[[float], float], goal: float) -> float:
    """Return about the smallest share of a way (0 to 1) at which `reached`, which grows along it, is `goal`."""
    if reached(0.0) >= goal:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) >= goal else (middle, high)
    return high


PERTURBATIONS: dict[str, tuple[Callable[[Boxes, list[int], np.random.Generator, float], None], int]] = {
    "jitter": (_jitter, 1),
    "swap": (_swap, 2),
    "overlap": (_overlap, 2),
    "misalign": (_misalign, 2),
    "scale": (_scale, 1),
    "out": (_out, 1),
}
"""Name -> what it does, and how many elements it needs."""
