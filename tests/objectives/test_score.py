"""Scores by hand, and the logarithm that ORPO stands on."""

from math import exp, expm1, log, log1p

import pytest
import torch
from objectives.batches import logps_of

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.divergences import shape_of
from mmalign.objectives.score import Score, inverse_power, log1mexp, log_odds, sequence_mean, sequence_sum

POLICY = logps_of([[(-6.0, 3), (-5.0, 5)]])
REFERENCE = logps_of([[(-7.0, 3), (-3.0, 5)]])


def test_sums_means_and_odds_of_a_response():
    assert sequence_sum(POLICY).tolist() == [[pytest.approx(-6), pytest.approx(-5)]]
    assert sequence_mean(POLICY).tolist() == [[pytest.approx(-2), pytest.approx(-1)]]
    assert log_odds(POLICY)[0, 0].item() == pytest.approx(-2 - log(1 - 2.718281828459045**-2))


def test_a_score_scales_the_difference_to_the_reference():
    score = Score(of=sequence_sum, scale=0.5, reference=True)
    assert score(POLICY, REFERENCE).tolist() == [[pytest.approx(0.5), pytest.approx(-1.0)]]


def test_token_weights_reach_every_score():
    weighted = GroupLogps(POLICY.token_logps, POLICY.mask, torch.full(POLICY.mask.shape, 2.0))
    assert sequence_sum(weighted)[0, 0].item() == pytest.approx(-12)
    assert sequence_mean(weighted)[0, 0].item() == pytest.approx(-4)


@pytest.mark.parametrize("x", [-1e-7, -1e-3, -0.5, -0.693, -0.7, -3.0, -30.0, -80.0])
def test_log1mexp_in_fp32_agrees_with_fp64(x):
    exact = log(-expm1(x)) if x > -1 else log1p(-exp(x))
    assert log1mexp(torch.tensor(x)).item() == pytest.approx(exact, rel=2e-6, abs=1e-38)


def test_certain_response_has_large_finite_odds():
    odds = log_odds(logps_of([[(0.0, 3)]], dtype=torch.float32))
    assert 15 < odds.item() < 17


def test_a_score_per_token_divides_what_was_shaped():
    score = Score(of=sequence_sum, scale=2.0, reference=True, shape=shape_of("forward_kl", 0.0), per_token=True)
    values = score(POLICY, REFERENCE)
    assert values.tolist() == [[pytest.approx(2 * (1 - exp(-1)) / 3), pytest.approx(2 * (1 - exp(2)) / 5)]]


def test_divergences_by_hand_at_a_log_ratio_of_one():
    ratio = torch.tensor([1.0], dtype=torch.float64)
    assert shape_of("reverse_kl", 0.5)(ratio).item() == 1
    assert shape_of("forward_kl", 0.5)(ratio).item() == pytest.approx(1 - exp(-1))
    assert shape_of("js_divergence", 0.5)(ratio).item() == pytest.approx(log(2) - log(1 + exp(-1)))
    assert shape_of("alpha_divergence", 0.5)(ratio).item() == pytest.approx((exp(-0.5) - 1) / -0.5)
    assert shape_of("alpha_divergence", 1.0)(ratio).item() == 1


def test_inverse_power_of_the_mean_probability():
    assert inverse_power(0.5)(POLICY)[0, 0].item() == pytest.approx((1 - exp(1.0)) / 0.5)
    assert inverse_power(-1.0)(POLICY)[0, 1].item() == pytest.approx(exp(-1) - 1)
    assert inverse_power(0.0)(POLICY).tolist() == sequence_mean(POLICY).tolist()
