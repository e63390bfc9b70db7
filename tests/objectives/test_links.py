"""Links, comparisons and label targets by hand."""

from math import exp, log

import pytest
import torch

from mmalign.objectives import links
from mmalign.objectives.links import (
    ANCHORED_DOWN,
    ANCHORED_UP,
    BINARY,
    CONTRASTED,
    Both,
    Margin,
    Sides,
    hinge,
    log_ratio_modulated,
    logistic,
    rank_hinge,
    reverse_kl_to,
    scaled,
    sigmoid_linear,
    square,
    squares_around,
)
from mmalign.objectives.targets import smoothed, unbiased

MARGIN = torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def nls(x):
    return log(1 + exp(-x))


def test_links_of_a_margin():
    assert logistic(MARGIN).tolist() == pytest.approx([0.69314718, 0.12692801, 1.31326169])
    assert hinge(MARGIN).tolist() == [1.0, 0.0, 2.0]
    assert rank_hinge(MARGIN).tolist() == [0.0, 0.0, 1.0]
    assert square(0.5)(MARGIN).tolist() == [0.25, 2.25, 2.25]
    assert sigmoid_linear(MARGIN).tolist() == pytest.approx([0.5, sigmoid(-2), sigmoid(1)])
    assert scaled(hinge, 3.0)(MARGIN).tolist() == [3.0, 0.0, 6.0]


def test_reverse_kl_is_zero_where_the_policy_agrees_with_the_target():
    agreed = torch.tensor([log(0.9 / 0.1)], dtype=torch.float64)
    assert reverse_kl_to(0.1)(agreed).item() == pytest.approx(0.0, abs=1e-12)
    assert reverse_kl_to(0.1)(MARGIN)[0].item() == pytest.approx(0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1))


def test_discopop_is_half_logistic_half_exponential_at_zero_and_falls_to_the_logistic_below():
    link = log_ratio_modulated(0.05)
    assert link(MARGIN)[0].item() == pytest.approx(0.5 * log(2) + 0.5)
    assert link(torch.tensor(-4.0, dtype=torch.float64)).item() == pytest.approx(nls(-4.0), rel=1e-9)
    assert link(torch.tensor(4.0, dtype=torch.float64)).item() == pytest.approx(exp(-4.0), rel=1e-9)


BETTER, WORSE = torch.tensor(0.5, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
BY_HAND = [
    (Margin(logistic, 0.25), nls(1.25), nls(-1.25)),
    (BINARY, nls(0.5) + nls(1.0), nls(-1.0) + nls(-0.5)),
    (
        CONTRASTED,
        nls(0.5) + 0.5 * nls(-0.5) + 0.5 * nls(1.0),
        nls(-1.0) + 0.5 * nls(1.0) + 0.5 * nls(-0.5),
    ),
    (ANCHORED_UP, sigmoid(-0.5) + sigmoid(-1.0), sigmoid(1.0) + sigmoid(0.5)),
    (ANCHORED_DOWN, sigmoid(0.5) + sigmoid(-1.5), sigmoid(-1.0) + sigmoid(1.5)),
    (squares_around(2.0), 1.5**2 + 1.0**2, 3.0**2 + 2.5**2),
    (Both(Margin(hinge), Sides(hinge, logistic)), 0.0 + 0.5 + nls(-1.0), 2.5 + 2.0 + nls(0.5)),
]


@pytest.mark.parametrize(("comparison", "right", "wrong"), BY_HAND)
def test_a_comparison_knows_what_a_right_and_a_wrong_label_cost(comparison, right, wrong):
    assert comparison(BETTER, WORSE).item() == pytest.approx(right, rel=1e-12)
    assert comparison.flipped(BETTER, WORSE).item() == pytest.approx(wrong, rel=1e-12)


@pytest.mark.parametrize("at", [-1e4, 1e4])
@pytest.mark.parametrize("link", [reverse_kl_to(1e-3), log_ratio_modulated(0.05), links.LOGISTIC.link])
def test_links_stay_finite_at_extreme_margins_in_fp32(link, at):
    margin = torch.tensor(at, requires_grad=True)
    loss = link(margin)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(margin.grad)


def test_targets():
    assert smoothed(0.2) == pytest.approx(0.8)
    assert unbiased(0.2) == pytest.approx(0.8 / 0.6)
