"""Intervals by resampling: how far a mean, or a difference of means, may be from what another sample would show.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sections 13.3 and 16.2). Examples
are resampled, not answers: two systems judged on the same examples are compared example by example (`paired`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import DataError

_MOST_INDICES_HELD = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean (or a difference of means) with its percentile interval."""

    mean: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Tell whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean(values: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of `values` [N] with its interval.

    Args:
        values: one number per example.
        resamples: how often the N examples are drawn with replacement.
        level: share of the resampled means inside the interval.
        seed: same seed, same interval.

    Raises:
        DataError: no values, or one is not finite.
    """
    checked = _checked(values, "values")
    means = _resampled_means(checked, resamples, np.random.default_rng(seed))
    return _interval(checked.mean(), means, level)


def paired(
    before: ArrayLike, after: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return mean(after) - mean(before), both [N] on the same examples in the same order.

    Raises:
        DataError: the two differ in length, are empty, or a value is not finite.
    """
    first, second = _checked(before, "before"), _checked(after, "after")
    _require_same_examples(first, second)
    return mean(second - first, resamples=resamples, level=level, seed=seed)


def unpaired(
    before: ArrayLike, after: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return mean(after) - mean(before) for different examples, [N] and [M]; each side is resampled on its own.

    Raises:
        DataError: a side is empty or a value is not finite.
    """
    first, second = _checked(before, "before"), _checked(after, "after")
    rng = np.random.default_rng(seed)
    differences = -_resampled_means(first, resamples, rng)
    differences += _resampled_means(second, resamples, rng)
    return _interval(second.mean() - first.mean(), differences, level)


def ratio(
    values: ArrayLike, among: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return sum(values) / sum(among), both [N]: a share among some of the examples, with its interval.

    Resamples in which `among` adds up to zero have no ratio and are left out.

    Raises:
        DataError: the two differ in length, are empty, a value is not finite, or `among` is negative or all zero.
    """
    table = _ratio_table(values, among)
    resampled = _divided(_resampled_means(table, resamples, np.random.default_rng(seed)))
    return _interval(_divided(table.mean(axis=0)), resampled, level)


def paired_ratio(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return ratio(*after) - ratio(*before), all four [N] on the same examples in the same order.

    Raises:
        DataError: as `ratio` and `paired` do.
    """
    first, second = _ratio_table(*before), _ratio_table(*after)
    _require_same_examples(first, second)
    table = np.concatenate([first, second], axis=1)
    resampled = _resampled_means(table, resamples, np.random.default_rng(seed))
    differences = _divided(resampled[:, 2:]) - _divided(resampled[:, :2])
    means = table.mean(axis=0)
    return _interval(_divided(means[2:]) - _divided(means[:2]), differences, level)


def _ratio_table(values: ArrayLike, among: ArrayLike) -> np.ndarray:
    """Return [N, 2] with what is divided and what it is divided by."""
    above, below = _checked(values, "values"), _checked(among, "among")
    if len(above) != len(below):
        raise DataError(f"a ratio needs the same examples above and below, got {len(above)} and {len(below)}")
    if below.min() < 0 or not below.any():
        raise DataError("a ratio needs weights that are not negative and not all zero; there is nothing to divide by")
    return np.stack([above, below], axis=1)


def _require_same_examples(first: np.ndarray, second: np.ndarray) -> None:
    if len(first) != len(second):
        raise DataError(
            f"paired comparison needs the same examples on both sides, got {len(first)} and {len(second)}; "
            "use unpaired() for different examples"
        )


def _divided(means: np.ndarray) -> np.ndarray:
    """Return [..., 2] divided; NaN where there is nothing to divide by."""
    above, below = means[..., 0], means[..., 1]
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _checked(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise DataError(f"{name} must be one number per example, got shape {array.shape}; there must be at least one")
    if not np.isfinite(array).all():
        raise DataError(f"{name} holds {int((~np.isfinite(array)).sum())} value(s) that are not finite")
    return array


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return the means of `values` [N, ...] as [resamples, ...], as many at once as fit in bounded memory."""
    at_once = max(1, _MOST_INDICES_HELD // values.size)
    means = np.empty((resamples, *values.shape[1:]))
    for start in range(0, resamples, at_once):
        stop = min(start + at_once, resamples)
        drawn = rng.integers(0, len(values), size=(stop - start, len(values)))
        means[start:stop] = values[drawn].mean(axis=1)
    return means


def _interval(center: float, resampled: np.ndarray, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Interval(mean=float(center), low=float(low), high=float(high))
