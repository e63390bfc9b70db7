"""The best assignment is the best of all assignments."""

from itertools import permutations

import numpy as np
import pytest

from mmalign.evaluate.assignment import best_assignment


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2), (4, 4), (5, 3), (3, 6)])
def test_no_other_assignment_has_a_larger_sum(shape):
    rng = np.random.default_rng(shape[0] * 10 + shape[1])
    for _ in range(30):
        values = rng.integers(-3, 6, size=shape) * rng.choice([1.0, 0.5])
        rows, columns = best_assignment(values)
        small = min(shape)
        assert len(rows) == len(columns) == len(set(rows)) == len(set(columns)) == small
        wide = values if shape[0] <= shape[1] else values.T
        best = max(sum(wide[k, chosen[k]] for k in range(small)) for chosen in permutations(range(max(shape)), small))
        assert values[rows, columns].sum() == pytest.approx(best)


def test_it_agrees_with_scipy_where_there_is_one():
    optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")
    values = np.random.default_rng(0).random((40, 60))
    rows, columns = best_assignment(values)
    assert values[rows, columns].sum() == pytest.approx(
        values[optimize.linear_sum_assignment(values, maximize=True)].sum()
    )
    assert (np.diff(rows) > 0).all()


def test_nothing_is_assigned_to_nothing():
    assert [len(one) for one in best_assignment(np.zeros((0, 3)))] == [0, 0]
