"""Who goes with whom: the one-to-one assignment of rows to columns with the largest sum.

The method of shortest augmenting paths with potentials (Jonker and Volgenant, A shortest augmenting path algorithm for
dense and sparse linear assignment problems, 1987), O(n^2 m). SciPy has a faster one; it is no dependency of ours.
"""

from __future__ import annotations

import numpy as np


def best_assignment(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns, each used at most once, as many as the smaller side has, with the largest sum.

    Args:
        values: finite, [N, M].

    Returns:
        Two index arrays of min(N, M), the rows in order.
    """
    values = np.asarray(values, dtype=np.float64)
    if 0 in values.shape:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    if values.shape[0] > values.shape[1]:
        columns, rows = best_assignment(values.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    row_of = _row_of_each_column(-values)
    columns = np.flatnonzero(row_of >= 0)
    order = np.argsort(row_of[columns])
    return row_of[columns][order], columns[order]


def _row_of_each_column(costs: np.ndarray) -> np.ndarray:
    """Return the row that each column is given in the cheapest assignment, -1 for none; at most as many rows."""
    count, width = costs.shape
    row_potential, column_potential = np.zeros(count), np.zeros(width)
    row_of = np.full(width, -1)
    for start in range(count):
        reached, came_from = np.full(width, np.inf), np.full(width, -1)
        done, row, at, least = np.zeros(width, dtype=bool), start, -1, 0.0
        while row >= 0:
            through = least + costs[row] - row_potential[row] - column_potential
            nearer = ~done & (through < reached)
            reached[nearer], came_from[nearer] = through[nearer], at
            at = int(np.argmin(np.where(done, np.inf, reached)))
            least, done[at] = reached[at], True
            row = row_of[at]
        _move_potentials(start, least, done, reached, row_of, row_potential, column_potential)
        while at >= 0:
            before = came_from[at]
            row_of[at] = row_of[before] if before >= 0 else start
            at = before
    return row_of


def _move_potentials(
    start: int,
    least: float,
    done: np.ndarray,
    reached: np.ndarray,
    row_of: np.ndarray,
    row_potential: np.ndarray,
    column_potential: np.ndarray,
) -> None:
    """Keep reduced costs at or above zero after a shortest path of length `least` from row `start` was found."""
    row_potential[start] += least
    inner = np.flatnonzero(done & (row_of >= 0))
    row_potential[row_of[inner]] += least - reached[inner]
    column_potential[done] -= least - reached[done]
