"""Arrays of boxes, [N, 4] with left, top, right and bottom as fractions of the canvas: areas and what they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mmalign.formats.layout import Box


def as_edges(boxes: Iterable[Box]) -> np.ndarray:
    """Return boxes as float64 [N, 4] with left, top, right, bottom."""
    return np.array([box.edges() for box in boxes], dtype=np.float64).reshape(-1, 4)


def areas(edges: np.ndarray) -> np.ndarray:
    """Return the area of every box, [N]."""
    return (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])


def intersections(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the area that each box of `first` [N, 4] shares with each of `second` [M, 4], as [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.prod(np.clip(high - low, 0.0, None), axis=-1)


def ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return intersection over union of each box of `first` with each of `second`, [N, M]."""
    shared = intersections(first, second)
    return shared / (areas(first)[:, None] + areas(second)[None, :] - shared)


def alignment_lines(edges: np.ndarray) -> np.ndarray:
    """Return the six lines by which boxes may be aligned, [N, 6]: left, middle, right, top, middle, bottom."""
    left, top, right, bottom = edges.T
    return np.stack([left, (left + right) / 2, right, top, (top + bottom) / 2, bottom], axis=1)


def nearest_line(edges: np.ndarray, lines: Sequence[int] = range(6)) -> np.ndarray:
    """Return for every box how far its best aligned line is from the same line of any other box, [N].

    Args:
        lines: which of the six are looked at.

    A single box has no other: its distance is 0.
    """
    if len(edges) < 2:
        return np.zeros(len(edges))
    places = alignment_lines(edges)[:, list(lines)]
    apart = np.abs(places[:, None] - places[None]).min(axis=-1)
    np.fill_diagonal(apart, np.inf)
    return apart.min(axis=1)


def raster(edges: np.ndarray, rows: int, columns: int, *, rounding: str = "nearest") -> np.ndarray:
    """Return which cells of a grid over the canvas are covered by any box, bool [rows, columns]."""
    covered = np.zeros((rows, columns), dtype=bool)
    scale = np.array([columns, rows, columns, rows])
    cells = np.rint(edges * scale) if rounding == "nearest" else np.floor(edges * scale)
    for left, top, right, bottom in np.clip(cells, 0, scale).astype(int):
        covered[top:bottom, left:right] = True
    return covered
