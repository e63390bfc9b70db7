"""Seeded changes that hide what a clip shows: in time by moving blocks of frames, in space as pictures are changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from mmalign.errors import ConfigError, RowError
from mmalign.modalities.pixels import PERTURBATIONS


def _blocks(count: int, strength: float) -> list[np.ndarray]:
    """Cut frames 0..count-1 into round(strength * count) blocks of nearly equal length, at least 2."""
    return np.array_split(np.arange(count), max(2, min(count, round(strength * count))))


def _reverse(count: int, generator: np.random.Generator, strength: float) -> np.ndarray:
    """Show the blocks last to first, each forwards in itself; at strength 1 the clip runs backwards."""
    return np.concatenate(_blocks(count, strength)[::-1])


def _shuffle(count: int, generator: np.random.Generator, strength: float) -> np.ndarray:
    """Show the blocks in another order, drawn evenly from all orders but their own."""
    blocks = _blocks(count, strength)
    order = np.arange(len(blocks))
    while np.array_equal(order, np.arange(len(blocks))):
        order = generator.permutation(len(blocks))
    return np.concatenate([blocks[place] for place in order])


def _drop(count: int, generator: np.random.Generator, strength: float) -> np.ndarray:
    """Leave out round(strength * count) frames, at least 1, and keep at least 1."""
    gone = max(1, min(count - 1, round(strength * count)))
    return np.sort(generator.choice(count, count - gone, replace=False))


def _freeze(count: int, generator: np.random.Generator, strength: float) -> np.ndarray:
    """Hold one frame for round(strength * count) frames from it on, at least 2."""
    held = max(2, min(count, round(strength * count)))
    start = int(generator.integers(0, count - held + 1))
    order = np.arange(count)
    order[start : start + held] = start
    return order


ORDERS: dict[str, Callable[[int, np.random.Generator, float], np.ndarray]] = {
    "reverse": _reverse,
    "shuffle": _shuffle,
    "drop": _drop,
    "freeze": _freeze,
}
"""Which frames are shown where: number of frames, generator, strength -> places of the clip, int [F'].

F' is F except for "drop". No order is the clip's own.
"""


def require_known(how: str, strength: float) -> None:
    """Refuse perturbations that do not exist and strengths out of range.

    Raises:
        ConfigError: unknown `how` or strength out of range.
    """
    known = (*ORDERS, *PERTURBATIONS)
    if how not in known:
        raise ConfigError(f"video perturbation {how!r} is unknown; use one of {', '.join(known)}")
    if not 0 < strength <= 1 or (how == "crop" and strength == 1):
        raise ConfigError(f"strength of {how!r} must satisfy 0 < strength <= 1 (< 1 for 'crop'), got {strength}")


def order_of(count: int, how: str, seed: int, strength: float) -> np.ndarray:
    """Return the places of the frames that are shown, in the order in which they are shown.

    Raises:
        RowError: one frame has no order.
    """
    if count < 2:
        raise RowError("video has too few frames for a change in time", value=count, hint="it needs at least 2")
    return ORDERS[how](count, np.random.default_rng(seed), strength)


def changed(frames: np.ndarray, how: str, seed: int, strength: float) -> np.ndarray:
    """Return all frames changed as pictures are: the same window of each is cut, each gets chances of its own.

    Args:
        frames: uint8 [F, H, W, 3].
        how: of `pixels.PERTURBATIONS`.
    """
    one_for_all = how not in ("noise", "static")
    generators = (np.random.default_rng([seed, 0 if one_for_all else place]) for place in range(len(frames)))
    return np.stack(
        [
            np.asarray(PERTURBATIONS[how](Image.fromarray(frame), generator, strength))
            for frame, generator in zip(frames, generators, strict=True)
        ]
    )
