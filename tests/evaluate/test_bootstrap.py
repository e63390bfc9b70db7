from __future__ import annotations

import numpy as np
import pytest

from mmalign.errors import DataError
from mmalign.evaluate import bootstrap


def test_interval_of_a_share_matches_the_normal_approximation():
    # p = 0.5, N = 400: standard error sqrt(0.25 / 400) = 0.025, so 95% is 0.5 +- 0.049.
    interval = bootstrap.mean([0.0, 1.0] * 200)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.451, abs=0.004)
    assert interval.high == pytest.approx(0.549, abs=0.004)


def test_constant_values_have_an_interval_of_no_width():
    assert bootstrap.mean([0.25] * 7) == bootstrap.Interval(mean=0.25, low=0.25, high=0.25)


def test_paired_interval_does_not_see_what_both_sides_share():
    # Every example improves by exactly 0.1; how much examples differ from each other does not matter.
    before = np.linspace(0, 10, 101)
    interval = bootstrap.paired(before, before + 0.1)
    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)
    assert interval.excludes_zero()


def test_unpaired_interval_adds_both_variances():
    # Standard errors 0.025 and 0.05: together sqrt(0.025^2 + 0.05^2) = 0.0559, 95% is +- 0.1096.
    interval = bootstrap.unpaired([0.0, 1.0] * 200, [0.0, 1.0] * 50)
    assert interval.mean == 0.0
    assert interval.high == pytest.approx(0.1096, abs=0.008)
    assert interval.low == pytest.approx(-0.1096, abs=0.008)
    assert not interval.excludes_zero()


def test_same_seed_same_interval_and_memory_bound_changes_nothing(monkeypatch):
    values = np.random.default_rng(3).random(53)
    whole = bootstrap.mean(values, resamples=1000, seed=5)
    monkeypatch.setattr(bootstrap, "_MOST_INDICES_HELD", 53 * 7)
    assert bootstrap.mean(values, resamples=1000, seed=5) == whole
    assert bootstrap.mean(values, resamples=1000, seed=6) != whole


def test_level_widens_the_interval():
    values = [0.0, 1.0] * 50
    narrow, wide = bootstrap.mean(values, level=0.5), bootstrap.mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_impossible_values_are_refused():
    with pytest.raises(DataError, match="at least one"):
        bootstrap.mean([])
    with pytest.raises(DataError, match=r"values holds 1 value\(s\) that are not finite"):
        bootstrap.mean([0.0, float("nan")])
    with pytest.raises(DataError, match="got 2 and 3; use unpaired"):
        bootstrap.paired([0, 1], [0, 1, 1])


def test_a_ratio_is_the_share_among_the_examples_that_count():
    # Of 200 examples that count, 100: standard error sqrt(0.25 / 200) = 0.0354, so 95% is 0.5 +- 0.069.
    values, among = [0.0, 1.0, 0.0, 0.0] * 100, [1.0, 1.0, 0.0, 0.0] * 100
    interval = bootstrap.ratio(values, among)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.431, abs=0.005)
    assert interval.high == pytest.approx(0.569, abs=0.005)


def test_a_ratio_over_all_examples_is_their_mean():
    values = np.random.default_rng(3).random(53)
    over_all, mean = bootstrap.ratio(values, np.ones(53)), bootstrap.mean(values)
    assert [over_all.mean, over_all.low, over_all.high] == pytest.approx([mean.mean, mean.low, mean.high], abs=1e-12)


def test_paired_ratios_share_their_resamples():
    # The second ratio is the first one plus 0.25 in every resample, because both see the same examples.
    values, among = np.array([0.0, 0.5] * 30), np.ones(60)
    interval = bootstrap.paired_ratio((values, among), (values + 0.25, among))
    assert interval.low == pytest.approx(0.25) == interval.high


def test_resamples_without_anything_to_divide_by_are_left_out():
    # One of three examples counts; a resample misses it with probability (2/3)^3.
    assert bootstrap.ratio([1.0, 0, 0], [1.0, 0, 0]) == bootstrap.Interval(mean=1.0, low=1.0, high=1.0)


def test_impossible_ratios_are_refused():
    with pytest.raises(DataError, match="nothing to divide by"):
        bootstrap.ratio([0.0, 0.0], [0.0, 0.0])
    with pytest.raises(DataError, match="same examples above and below, got 2 and 3"):
        bootstrap.ratio([0.0, 0.0], [1.0, 1.0, 1.0])
    with pytest.raises(DataError, match="got 1 and 2; use unpaired"):
        bootstrap.paired_ratio(([1.0], [1.0]), ([1.0, 1.0], [1.0, 1.0]))
