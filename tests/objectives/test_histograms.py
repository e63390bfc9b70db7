"""How weights, targets and factors of beta are spread over pairs, by hand."""

from math import exp, log

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch, select, select_facts

from mmalign.objectives.comparison import pair_index
from mmalign.objectives.compose import build
from mmalign.objectives.histograms import HALF, HISTOGRAMS, TARGETS, WEIGHTS


def means_of(ratios):
    return {name: (ratio.total / ratio.count).item() for name, ratio in ratios.items()}


def spread(histogram, metrics):
    """Return the shares of a histogram's bins that hold anything, by label."""
    means = means_of({name: metrics[name] for name in histogram.bins})
    assert sum(means.values()) == pytest.approx(1)
    return {label: means[name] for name, label in zip(histogram.bins, histogram.labels, strict=True) if means[name] > 0}


def test_a_bin_holds_its_upper_end_and_every_group_counts_once():
    """A list of three has pairs of weight 0, 0.25 and 5; a pair beside it has 0.26, and a tied one is not compared."""
    pairs = pair_index(facts_of([(0, 1, 2), (0, 1), (0, 0)]), "all")
    found = WEIGHTS.of(torch.tensor([0.0, 0.25, 5.0, 0.26], dtype=torch.float64), pairs)
    third = pytest.approx(1 / 6)
    assert spread(WEIGHTS, found) == {"0": third, "0–0.25": third, "> 4": third, "0.25–0.5": 0.5}
    assert means_of(found)["weights/mean"] == pytest.approx((5.25 / 3 + 0.26) / 2)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["dpo"], []),
        (["cdpo"], []),
        (["simpo"], []),
        (["wpo"], ["weights"]),
        (["uni_dpo"], ["weights"]),
        (["crm"], ["weights"]),
        (["lcpo"], ["targets"]),
        (["cream"], ["targets"]),
        (["spa"], ["targets"]),
        (["mm_dpo"], ["beta_factors"]),
        (["da_dpo"], ["beta_factors"]),
        (["beta_dpo"], ["weights", "beta_factors"]),
        (["dama"], ["weights", "beta_factors"]),
        (["scir"], ["weights", "targets"]),
        (["dpo", "lcpo", "wpo"], ["weights", "targets"]),
    ],
    ids=lambda value: "+".join(value) or "none",
)
def test_what_is_found_pair_by_pair_is_logged(names, found):
    metrics = build([{"name": name} for name in names])(*random_batch()).metrics
    assert [one.name for one in HISTOGRAMS if one.mean in metrics] == found
    for one in HISTOGRAMS:
        assert {name for name in metrics if name.startswith(f"{one.name}/")} <= {one.mean, *one.bins}


def test_of_two_parts_that_weigh_the_first_is_shown():
    batch = random_batch()
    both = build([{"name": "uni_dpo"}, {"name": "wpo"}])(*batch).metrics
    alone = build([{"name": "uni_dpo"}])(*batch).metrics
    assert means_of(both)["weights/mean"] == means_of(alone)["weights/mean"]


def test_posteriors_of_labels_by_hand():
    """Reliability 3/4: q = 3 p / (3 p + 1 - p), with p = sigmoid(margin) the policy's own probability."""
    margins = (-log(3), -log(3) - 0.1, -log(3) - 2, -log(3) - 4)
    policy = logps_of([[(margin, 2), (0.0, 3)] for margin in margins])
    reference = logps_of([[(0.0, 2), (0.0, 3)]] * 4)
    objective = build([{"name": "lcpo", "beta": 1.0, "reliability": 0.75}])
    metrics = objective(policy, reference, facts_of([(0, 1)] * 4)).metrics
    q = [3 / (3 + exp(-margin)) for margin in margins]  # 0.5, 0.475, 0.119, 0.018
    assert spread(TARGETS, metrics) == {"0.45–0.55": 0.5, "0.05–0.25": 0.25, "≤ 0.05": 0.25}
    assert means_of(metrics)[TARGETS.mean] == pytest.approx(sum(q) / 4)
    assert means_of(metrics)[HALF] == 0.5


def test_factors_of_beta_by_hand_are_found_before_they_are_applied():
    """1 + 0.5 (1 - exp(-0.5 d)): gaps of 0 and 2 log 4 give 1 and 1.375."""
    policy, reference = (logps_of([[(total, 2), (-3.0, 3)]] * 2) for total in (-2.0, -1.0))
    facts = facts_of([(0, 1)] * 2, scores=[[1.0, 1.0], [2 * log(4), 0.0]])
    metrics = build([{"name": "mm_dpo"}])(policy, reference, facts).metrics
    assert means_of(metrics)["beta_factors/mean"] == pytest.approx(2.375 / 2)
    assert means_of(metrics)["beta_factors/up_to_1.25"] == 0.5
    assert means_of(metrics)["beta_factors/up_to_2"] == 0.5


def test_histograms_of_micro_batches_that_are_added_up_are_those_of_the_step():
    policy, reference, facts = random_batch(groups=7, responses=3)
    objective = build([{"name": "wpo"}])
    whole = objective(policy, reference, facts).metrics
    cuts = [slice(0, 2), slice(2, 7)]
    parts = [objective(select(policy, cut), select(reference, cut), select_facts(facts, cut)).metrics for cut in cuts]
    for name in (WEIGHTS.mean, *WEIGHTS.bins):
        assert sum(part[name].total for part in parts).item() == pytest.approx(whole[name].total.item())
        assert sum(part[name].count for part in parts).item() == whole[name].count.item()
