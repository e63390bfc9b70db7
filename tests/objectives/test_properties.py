"""What holds for every preset whatever the numbers: invariances, exact gradients, reductions to one another."""

import itertools

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch, step_loss

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build
from mmalign.objectives.presets import PRESETS
from mmalign.pairs.ranking import PAIRINGS

PAIRWISE = [name for name in PRESETS if name != "sft"]


def _select(logps, groups):
    return GroupLogps(logps.token_logps[groups], logps.mask[groups])


def _facts_select(facts, groups):
    return GroupFacts(*(tensor[groups] for tensor in vars(facts).values()))


@pytest.mark.parametrize("name", PRESETS)
def test_the_order_of_groups_in_a_batch_does_not_matter(name):
    policy, reference, facts = random_batch(groups=7)
    shuffled = torch.tensor([3, 6, 0, 5, 1, 4, 2])
    objective = build([{"name": name}])
    before = step_loss(objective, policy, reference, facts)
    after = step_loss(
        objective, _select(policy, shuffled), _select(reference, shuffled), _facts_select(facts, shuffled)
    )
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_padding_of_tokens_and_of_responses_does_not_matter(name):
    policy, reference, facts = random_batch()

    def pad(logps):
        shape = (*logps.token_logps.shape[:1], 5, 29)
        wide = torch.full(shape, torch.nan, dtype=torch.float64)
        mask = torch.zeros(shape, dtype=torch.bool)
        wide[:, :2, :11], mask[:, :2, :11] = logps.token_logps, logps.mask
        return GroupLogps(wide, mask)

    objective = build([{"name": name}])
    before = step_loss(objective, policy, reference, facts)
    five_places = _facts_select(facts_of([(0, 1)] * 5 + [(0, 1, 2, 3, 4)]), slice(5))
    after = step_loss(objective, pad(policy), pad(reference), five_places)
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PRESETS)
def test_one_batch_of_eight_equals_eight_of_one_under_shared_totals(name):
    policy, reference, facts = random_batch(groups=8, responses=3)
    objective = build([{"name": name}])
    totals = {key: counts.sum() for key, counts in objective.counts(facts, policy.lengths()).items()}
    whole = objective(policy, reference, facts).loss(totals)
    parts = sum(
        objective(_select(policy, [b]), _select(reference, [b]), _facts_select(facts, [b])).loss(totals)
        for b in range(8)
    )
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PAIRWISE)
def test_exchanging_the_responses_flips_rewards_and_margin(name):
    policy, reference, facts = random_batch()
    swap = lambda logps: GroupLogps(logps.token_logps.flip(1), logps.mask.flip(1))  # noqa: E731
    objective = build([{"name": name}])
    straight = objective(policy, reference, facts)
    swapped = objective(swap(policy), swap(reference), facts)
    torch.testing.assert_close(swapped.rewards, straight.rewards.flip(1))
    margins = [output.metrics["rewards/margins"].total for output in (straight, swapped)]
    torch.testing.assert_close(margins[0], -margins[1])


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "hinge"])
def test_a_constant_added_to_both_log_ratios_cancels(name):
    policy = logps_of([[(-6.0, 3), (-5.0, 5)]])
    lifted = logps_of([[(-4.0, 3), (-3.0, 5)]])
    reference = logps_of([[(-7.0, 3), (-3.0, 5)]])
    objective, facts = build([{"name": name}]), facts_of([(0, 1)])
    torch.testing.assert_close(
        step_loss(objective, lifted, reference, facts), step_loss(objective, policy, reference, facts)
    )


@pytest.mark.parametrize("name", ["ipo", "simpo"])
def test_a_constant_added_to_every_token_cancels_in_scores_per_token(name):
    policy, reference, facts = random_batch()
    lifted = GroupLogps(policy.token_logps + 0.25, policy.mask)
    objective = build([{"name": name}])
    torch.testing.assert_close(
        step_loss(objective, lifted, reference, facts), step_loss(objective, policy, reference, facts)
    )


@pytest.mark.parametrize("pairing", PAIRINGS)
@pytest.mark.parametrize("name", PRESETS)
def test_gradient_agrees_with_finite_differences(name, pairing):
    policy, reference, facts = random_batch(groups=2, responses=3, longest=3)
    spec = {"name": name} if name == "sft" else {"name": name, "pairs": pairing}
    objective = build([spec])
    start = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda token_logps: step_loss(objective, GroupLogps(token_logps, policy.mask), reference, facts), (start,)
    )


@pytest.mark.parametrize("name", PRESETS)
def test_no_gradient_reaches_the_reference_or_the_padding(name):
    policy, reference, facts = random_batch()
    policy.token_logps.requires_grad_(True)
    reference.token_logps.requires_grad_(True)
    step_loss(build([{"name": name}]), policy, reference, facts).backward()
    assert reference.token_logps.grad is None
    assert torch.isfinite(policy.token_logps.grad).all()
    assert not policy.token_logps.grad[~policy.mask].any()


SAME = [
    ("smoothing 0 of cdpo is dpo", {"name": "cdpo", "label_smoothing": 0.0}, {"name": "dpo"}),
    ("smoothing 0 of robust is dpo", {"name": "robust", "label_smoothing": 0.0}, {"name": "dpo"}),
]


@pytest.mark.parametrize(("left", "right"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_presets_reduce_to_one_another(left, right):
    policy, reference, facts = random_batch(responses=3)
    losses = [step_loss(build([spec]), policy, reference, facts) for spec in (left, right)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


def _blind(logps):
    """A reference that knows nothing: log-prob 0 everywhere, which leaves scores as they are."""
    return GroupLogps(torch.zeros_like(logps.token_logps), logps.mask)


def test_cpo_without_likelihood_is_dpo_against_a_reference_of_zeros():
    policy, _, facts = random_batch(responses=3)
    cpo = step_loss(build([{"name": "cpo", "alpha": 0.0, "beta": 0.3}]), policy, None, facts)
    dpo = step_loss(build([{"name": "dpo", "beta": 0.3}]), policy, _blind(policy), facts)
    torch.testing.assert_close(cpo, dpo, rtol=1e-12, atol=0)


def test_cpo_is_its_pairwise_part_and_sft():
    policy, _, facts = random_batch(responses=3)
    whole = step_loss(build([{"name": "cpo", "alpha": 0.7}]), policy, None, facts)
    parts = step_loss(build([{"name": "cpo", "alpha": 0.0}, {"name": "sft", "weight": 0.7}]), policy, None, facts)
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=0)


def test_simpo_without_gamma_on_equal_lengths_is_cpo_with_beta_per_token():
    policy = logps_of([[(-6.0, 4), (-5.0, 4)]])
    facts = facts_of([(0, 1)])
    simpo = step_loss(build([{"name": "simpo", "gamma": 0.0, "beta": 2.0}]), policy, None, facts)
    cpo = step_loss(build([{"name": "cpo", "alpha": 0.0, "beta": 0.5}]), policy, None, facts)
    torch.testing.assert_close(simpo, cpo, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PAIRWISE)
def test_with_two_responses_every_pairing_is_the_same(name):
    policy, reference, facts = random_batch()
    losses = [step_loss(build([{"name": name, "pairs": rule}]), policy, reference, facts) for rule in PAIRINGS]
    assert max(losses) - min(losses) == 0


def test_robust_loss_is_unbiased_under_flipped_labels():
    policy, reference, facts = random_batch()
    swap = lambda logps: GroupLogps(logps.token_logps.flip(1), logps.mask.flip(1))  # noqa: E731
    robust, clean = build([{"name": "robust", "label_smoothing": 0.2}]), build([{"name": "dpo"}])
    expected = 0.8 * step_loss(robust, policy, reference, facts) + 0.2 * step_loss(
        robust, swap(policy), swap(reference), facts
    )
    torch.testing.assert_close(expected, step_loss(clean, policy, reference, facts))


ROWS = [tuple(levels) for size in range(1, 6) for levels in itertools.product(range(size), repeat=size)
        if levels[0] == 0 and all(b - a in (0, 1) for a, b in itertools.pairwise(levels))]  # fmt: skip


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_dropping_responses_that_are_not_read_changes_nothing(pairing):
    objective = build([{"name": "ipo", "pairs": pairing}, {"name": "sft"}])
    for levels in ROWS:
        policy, reference, _ = random_batch(seed=len(levels), groups=1, responses=len(levels))
        kept = list(objective.responses_read(levels))
        drop = lambda logps, kept=kept: GroupLogps(logps.token_logps[:, kept], logps.mask[:, kept])  # noqa: E731
        whole = step_loss(objective, policy, reference, facts_of([levels]))
        short = step_loss(objective, drop(policy), drop(reference), facts_of([[levels[k] for k in kept]]))
        torch.testing.assert_close(short, whole, rtol=1e-12, atol=0)


EXTREMES = [(0.0, -1e4), (-1e4, 0.0), (0.0, 0.0), (-1e-7, -1e-7), (-1e4, -1e4)]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(("chosen", "rejected"), EXTREMES)
def test_extreme_log_probs_in_fp32_give_finite_loss_and_gradient(name, chosen, rejected):
    policy = logps_of([[(chosen, 1), (rejected, 1)]], dtype=torch.float32)
    policy.token_logps.requires_grad_(True)
    reference = logps_of([[(-5.0, 1), (-5.0, 1)]], dtype=torch.float32)
    loss = step_loss(build([{"name": name}]), policy, reference, facts_of([(0, 1)], dtype=torch.float32))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(policy.token_logps.grad).all()
