"""TDPO by hand: the pair of test_values.py (R = +1 and -2), and how far whole predictions moved along its responses."""

from dataclasses import replace
from math import exp, log1p

import pytest
import torch
from objectives.batches import facts_of, logps_of, step_loss

from mmalign.objectives.compose import build

REFERENCE = logps_of([[(-7.0, 3), (-3.0, 5)]])
FACTS = facts_of([(0, 1)])
DIVERGENCES = torch.tensor([[[0.2, 0.0, 0.4, torch.nan, torch.nan], [0.1, 0.1, 0.1, 0.1, 0.6]]], dtype=torch.float64)
"""D = 0.6 of the better, 1.0 of the worse."""


def policy(**changes):
    given = logps_of([[(-6.0, 3), (-5.0, 5)]])
    return replace(given, dense={**given.dense, "reference_kl": DIVERGENCES}, **changes)


def nls(margin):
    return log1p(exp(-margin))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"name": "tdpo1", "beta": 0.5}, nls(0.5 * (3 - (1.0 - 0.6)))),
        ({"name": "tdpo2", "beta": 0.5, "kl_weight": 0.25}, nls(0.5 * (3 - 0.25 * (1.0 - 0.6)))),
        ({"name": "tdpo", "beta": 0.5, "alpha": 0.25}, nls(0.5 * (3 - 0.25 * (1.0 - 0.6)))),
        ({"name": "tdpo2", "beta": 0.5, "kl_weight": 0.0}, nls(0.5 * 3)),
    ],
)
def test_the_margin_is_lowered_by_how_much_further_the_worse_moved(spec, expected):
    assert step_loss(build([spec]), policy(), REFERENCE, FACTS).item() == pytest.approx(expected)


def gradient_of_divergences(name):
    moved = DIVERGENCES.nan_to_num(0.0).requires_grad_()
    given = replace(policy(), dense={"reference_kl": moved})
    step_loss(build([{"name": name, "beta": 0.5}]), given, REFERENCE, FACTS).backward()
    return moved.grad[0]


def test_tdpo1_pushes_the_better_away_and_the_worse_towards_the_reference():
    slope = 0.5 / (1 + exp(0.5 * 2.6))
    better, worse = gradient_of_divergences("tdpo1")
    assert better.tolist() == pytest.approx([-slope] * 3 + [0, 0])
    assert worse.tolist() == pytest.approx([slope] * 5)


def test_tdpo2_holds_the_better_and_pushes_the_worse_half_as_hard():
    slope = 0.5 / (1 + exp(0.5 * 2.8))
    better, worse = gradient_of_divergences("tdpo2")
    assert better.tolist() == [0] * 5
    assert worse.tolist() == pytest.approx([slope / 2] * 5)


def test_tokens_that_do_not_count_do_not_count_in_the_divergence_either():
    weights = torch.ones(1, 2, 5, dtype=torch.float64)
    weights[0, 1, 4] = 0
    masked = [replace(logps, token_weights=weights) for logps in (policy(), REFERENCE)]
    loss = step_loss(build([{"name": "tdpo1", "beta": 0.5}]), *masked, FACTS)
    assert loss.item() == pytest.approx(nls(0.5 * (1 - (-2 * 4 / 5) - (0.4 - 0.6))))
