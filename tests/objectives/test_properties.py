"""What holds for every preset whatever the numbers: invariances, exact gradients, no leak into reference or padding."""

import itertools

import pytest
import torch
from objectives.batches import (
    cut_loss,
    facts_of,
    logps_of,
    random_batch,
    select,
    select_facts,
    step_loss,
    swapped,
    with_logps,
    with_views,
)

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.compose import build
from mmalign.objectives.presets import PRESETS
from mmalign.pairs.ranking import PAIRINGS
from mmalign.train.survey import told

COMPARING = [name for name, preset in PRESETS.items() if "pairs" in preset.options]
ON_LOGPS = [name for name in PRESETS if name != "aligndistil"]
"""Read log-probs of tokens; the gradient of the other is in test_imitation.py."""
TRIPLES = {"tpo", "tpo_l", "symmpo", "vista_dpo"}
"""Compare two responses beside another one, and so need three."""


BY_ROLE = {"infifpo", "infifpo_sum"}
"""Clip what other models say of the better response otherwise than of the worse."""


def size_of(name):
    return 3 if name in TRIPLES else 2


@pytest.mark.parametrize("name", PRESETS)
def test_the_order_of_groups_in_a_batch_does_not_matter(name):
    policy, reference, facts = random_batch(groups=7, responses=size_of(name))
    shuffled = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    objective = build([{"name": name}])
    before = step_loss(objective, policy, reference, facts)
    after = step_loss(objective, select(policy, shuffled), select(reference, shuffled), select_facts(facts, shuffled))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_padding_of_tokens_and_of_responses_does_not_matter(name):
    size = size_of(name)
    policy, reference, facts = random_batch(responses=size)

    def widened(value, fill):
        wide = torch.full((*value.shape[:1], 5, 29, *value.shape[3:]), fill, dtype=value.dtype)
        wide[:, :size, :11] = value
        return wide

    def pad(logps):
        return GroupLogps(
            widened(logps.token_logps, torch.nan),
            widened(logps.mask, False),
            tokens=widened(logps.tokens, -7),
            log_purity=widened(logps.log_purity, torch.nan),
            dense={name: widened(values, torch.nan) for name, values in logps.dense.items()},
            views={view: pad(seen) for view, seen in logps.views.items()},
        )

    objective = build([{"name": name}])
    before = step_loss(objective, policy, reference, facts)
    scores = [group.tolist() for group in facts.scores] + [[9.0] * 5]
    five_places = facts_of([tuple(range(size))] * 5 + [(0, 1, 2, 3, 4)], scores=scores)
    after = step_loss(objective, pad(policy), pad(reference), select_facts(five_places, slice(5)))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("cuts", [[[k] for k in range(8)], [[6, 1, 4], [0, 7], [2, 3, 5]]], ids=["ones", "three"])
@pytest.mark.parametrize("name", ON_LOGPS)
def test_a_step_cut_into_micro_batches_has_the_loss_and_gradient_of_the_whole(name, cuts):
    policy, reference, facts = random_batch(groups=8, responses=3)
    objective = build([{"name": name}])
    gradients, losses = [], []
    for way in (cuts, [list(range(8))]):
        start = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
        loss = cut_loss(objective, with_logps(policy, start), reference, facts, way)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(start.grad)
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


# Under sail a token that is worth more in the better response is worth less in the worse: turned round, rewards differ.
@pytest.mark.parametrize("name", [name for name in COMPARING if name not in {*TRIPLES, *BY_ROLE, "sail"}])
def test_exchanging_the_responses_flips_rewards_and_margin(name):
    policy, reference, facts = random_batch()
    objective = build([{"name": name}])
    straight = objective(policy, reference, facts)
    turned = objective(swapped(policy), swapped(reference), facts)
    torch.testing.assert_close(turned.rewards.flip(1), straight.rewards)
    margins = [output.metrics["rewards/margins"].total for output in (straight, turned)]
    torch.testing.assert_close(margins[0], -margins[1])


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "hinge", "exo", "discopop", "curry_dpo", "aot_unpaired"])
def test_a_constant_added_to_all_log_ratios_cancels(name):
    policy = logps_of([[(-6.0, 3), (-5.0, 5)]])
    lifted = logps_of([[(-4.0, 3), (-3.0, 5)]])
    reference = logps_of([[(-7.0, 3), (-3.0, 5)]])
    objective, facts = build([{"name": name}]), facts_of([(0, 1)])
    torch.testing.assert_close(
        step_loss(objective, lifted, reference, facts), step_loss(objective, policy, reference, facts)
    )


@pytest.mark.parametrize("name", ["ipo", "simpo", "dpo_norm", "sampo"])
def test_a_constant_added_to_every_token_cancels_where_length_does_not_count(name):
    policy, reference, facts = random_batch()
    lifted = with_logps(policy, policy.token_logps + 0.25)
    objective = build([{"name": name}])
    torch.testing.assert_close(
        step_loss(objective, lifted, reference, facts), step_loss(objective, policy, reference, facts)
    )


def gradient_is_exact(spec, responses=3):
    """Check it with what the step is told held fixed, as it is in training."""
    policy, reference, facts = random_batch(groups=2, responses=responses, longest=3)
    objective = build([spec])
    step = told(objective.first_memory(), objective.survey(policy, reference, facts), {})
    totals = {name: counts.sum() for name, counts in objective.counts(facts, policy.lengths()).items()}
    start = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
    return torch.autograd.gradcheck(
        lambda token_logps: objective(with_logps(policy, token_logps), reference, facts, step).loss(totals), (start,)
    )


# What these read off the policy's own responses to weigh their loss passes no gradient, so it is not that of the value.
# It is checked by hand: test_batchwise.py, test_listwise.py, test_pair_rules.py.
HELD_FIXED = {"aot_unpaired", "wpo", "knowpat", "lcpo"}


@pytest.mark.parametrize("name", [name for name in ON_LOGPS if name not in HELD_FIXED])
def test_gradient_agrees_with_finite_differences(name):
    assert gradient_is_exact({"name": name})


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("name", ["dpo", "nca", "cpo"])
def test_gradient_is_exact_under_every_pairing(name, pairing):
    assert gradient_is_exact({"name": name, "pairs": pairing})


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.2},
        {"f_divergence_type": "forward_kl"},
        {"f_divergence_type": "js_divergence"},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
        {"ld_alpha": 0.4},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge", "discopop"])
def test_gradient_is_exact_under_every_option(name, options):
    assert gradient_is_exact({"name": name, **options})


@pytest.mark.parametrize("name", ON_LOGPS)
def test_no_gradient_reaches_the_reference_or_the_padding(name):
    policy, reference, facts = random_batch(responses=size_of(name))
    policy.token_logps.requires_grad_(True)
    reference.token_logps.requires_grad_(True)
    step_loss(build([{"name": name}]), policy, reference, facts).backward()
    assert reference.token_logps.grad is None
    assert torch.isfinite(policy.token_logps.grad).all()
    assert not policy.token_logps.grad[~policy.mask].any()


@pytest.mark.parametrize("name", [name for name in COMPARING if name not in TRIPLES])
def test_with_two_responses_every_pairing_is_the_same(name):
    policy, reference, facts = random_batch()
    rules = [rule for rule in PAIRINGS if rule != "below_best"]
    losses = [step_loss(build([{"name": name, "pairs": rule}]), policy, reference, facts) for rule in rules]
    assert max(losses) - min(losses) == 0


def test_robust_loss_is_unbiased_under_flipped_labels():
    policy, reference, facts = random_batch()
    robust, clean = build([{"name": "robust", "label_smoothing": 0.2}]), build([{"name": "dpo"}])
    expected = 0.8 * step_loss(robust, policy, reference, facts) + 0.2 * step_loss(
        robust, swapped(policy), swapped(reference), facts
    )
    torch.testing.assert_close(expected, step_loss(clean, policy, reference, facts))


ROWS = [tuple(levels) for size in range(1, 6) for levels in itertools.product(range(size), repeat=size)
        if levels[0] == 0 and all(b - a in (0, 1) for a, b in itertools.pairwise(levels))]  # fmt: skip


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_dropping_responses_that_are_not_read_changes_nothing(pairing):
    objective = build([{"name": "ipo", "pairs": pairing}, {"name": "tpo", "pairs": pairing}, {"name": "sft"}])
    for levels in ROWS:
        policy, reference, _ = random_batch(seed=len(levels), groups=1, responses=len(levels))
        kept = list(objective.responses_read(levels))
        drop = lambda logps, kept=kept: GroupLogps(logps.token_logps[:, kept], logps.mask[:, kept])  # noqa: E731
        whole = step_loss(objective, policy, reference, facts_of([levels]))
        short = step_loss(objective, drop(policy), drop(reference), facts_of([[levels[k] for k in kept]]))
        torch.testing.assert_close(short, whole, rtol=1e-12, atol=0)


EXTREMES = [(0.0, -1e4), (-1e4, 0.0), (0.0, 0.0), (-1e-7, -1e-7), (-1e4, -1e4)]


@pytest.mark.parametrize("name", ON_LOGPS)
@pytest.mark.parametrize(("chosen", "rejected"), EXTREMES)
def test_extreme_log_probs_in_fp32_give_finite_loss_and_gradient(name, chosen, rejected):
    responses = [(-3.0, 1), (chosen, 1), (rejected, 1)][3 - size_of(name) :]
    policy = with_views(logps_of([responses], dtype=torch.float32), logps_of([responses[::-1]], dtype=torch.float32))
    policy.token_logps.requires_grad_(True)
    reference = logps_of([[(-5.0, 1)] * len(responses)], dtype=torch.float32)
    reference = with_views(reference, reference)
    facts = facts_of([range(len(responses))], scores=[[3.0, 2.0, 1.0][: len(responses)]], dtype=torch.float32)
    loss = step_loss(build([{"name": name}]), policy, reference, facts)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(policy.token_logps.grad).all()
