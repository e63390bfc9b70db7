"""Forty papers are a dozen ideas: under these settings one preset is another, in loss and in gradient."""

import pytest
import torch
from objectives.batches import random_batch, step_loss, with_logps

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.compose import build

DPO = {"name": "dpo", "beta": 0.3}
SAME = [
    ("cdpo without smoothing is dpo", {**DPO, "name": "cdpo", "label_smoothing": 0.0}, DPO),
    ("robust without smoothing is dpo", {**DPO, "name": "robust", "label_smoothing": 0.0}, DPO),
    (
        "cdpo is dpo with label_smoothing",
        {**DPO, "name": "cdpo", "label_smoothing": 0.2},
        {**DPO, "label_smoothing": 0.2},
    ),
    ("ld_dpo that counts the tail fully is dpo", {**DPO, "name": "ld_dpo", "ld_alpha": 1.0}, DPO),
    ("mask_dpo without spans is dpo", {**DPO, "name": "mask_dpo"}, DPO),
    ("ddpo that weighs edits like the rest is dpo", {**DPO, "name": "ddpo", "edit_weight": 1.0}, DPO),
    ("f_dpo with reverse KL is dpo", {**DPO, "name": "f_dpo", "f_divergence_type": "reverse_kl"}, DPO),
    (
        "alpha divergence of order 1 is reverse KL",
        {**DPO, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0},
        DPO,
    ),
    (
        "alpha divergence of order 0 is forward KL",
        {**DPO, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.0},
        {**DPO, "f_divergence_type": "forward_kl"},
    ),
    ("tdpo2 that does not weigh the divergence is dpo", {**DPO, "name": "tdpo2", "kl_weight": 0.0}, DPO),
    ("sail that weighs all tokens alike is dpo", {**DPO, "name": "sail", "token_rate": 0.0}, DPO),
    ("rpo without likelihood is dpo", {**DPO, "name": "rpo", "sft_weight": 0.0}, DPO),
    ("curry_dpo over all pairs is dpo", {**DPO, "name": "curry_dpo", "pairs": "all"}, DPO),
    ("bco before it has seen anything is bco_pair", {**DPO, "name": "bco"}, {**DPO, "name": "bco_pair"}),
    (
        "mpo of its first term alone is dpo",
        {**DPO, "name": "mpo", "dpo_weight": 1.0, "bco_weight": 0.0, "sft_weight": 0.0},
        DPO,
    ),
    ("alphapo of power 0 is simpo", {"name": "alphapo", "alpha": 0.0}, {"name": "simpo"}),
    ("cpo_simpo without likelihood is simpo", {"name": "cpo_simpo", "sft_weight": 0.0}, {"name": "simpo"}),
    (
        "tpo_l without likelihood is simpo below the best",
        {"name": "tpo_l", "sft_weight": 0.0, "gamma": 1.0},
        {"name": "simpo", "pairs": "below_best"},
    ),
    (
        "tpo without likelihood is cpo without, below the best",
        {"name": "tpo", "beta": 0.3, "sft_weight": 0.0},
        {"name": "cpo", "beta": 0.3, "sft_weight": 0.0, "pairs": "below_best"},
    ),
    ("mdpo without its other terms is dpo", {**DPO, "name": "mdpo", "visual_weight": 0.0, "anchor_weight": 0.0}, DPO),
    ("v_dpo without guidance is dpo", {**DPO, "name": "v_dpo", "guidance": 1.0}, DPO),
]
SUMS = [
    ("rpo per token is dpo + sft", {**DPO, "name": "rpo", "sft_weight": 0.7, "normalise": "token"},
     [DPO, {"name": "sft", "weight": 0.7}]),
    ("cpo is its comparison + sft", {"name": "cpo", "sft_weight": 0.7},
     [{"name": "cpo", "sft_weight": 0.0}, {"name": "sft", "weight": 0.7}]),
    ("mpo is dpo + bco_pair + sft", {"name": "mpo", "beta": 0.3},
     [{**DPO, "weight": 0.8}, {**DPO, "name": "bco_pair", "weight": 0.2}, {"name": "sft"}]),
]  # fmt: skip


def loss_and_gradient(specs, *, one_group=False, equal_lengths=False):
    policy, reference, facts = random_batch(responses=3, groups=1 if one_group else 5)
    if equal_lengths:
        policy, reference = (
            GroupLogps(logps.token_logps.nan_to_num(-1.5), torch.ones_like(logps.mask)) for logps in (policy, reference)
        )
    start = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
    loss = step_loss(build(specs), with_logps(policy, start), reference, facts)
    loss.backward()
    return loss.detach(), start.grad


def require_same(left, right):
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("left", "right"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_a_preset_reduces_to_another(left, right):
    require_same(loss_and_gradient([left]), loss_and_gradient([right]))


@pytest.mark.parametrize(("whole", "parts"), [row[1:] for row in SUMS], ids=[row[0] for row in SUMS])
def test_a_mixture_is_the_sum_of_its_presets(whole, parts):
    require_same(loss_and_gradient([whole]), loss_and_gradient(parts))


@pytest.mark.parametrize("name", ["ld_dpo", "sampo"])
def test_where_lengths_are_equal_length_needs_no_mending(name):
    require_same(
        loss_and_gradient([{**DPO, "name": name}], equal_lengths=True), loss_and_gradient([DPO], equal_lengths=True)
    )


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_a_sort_of_one_pair_is_dpo(name):
    best_worst = {"pairs": "best_worst"}
    require_same(
        loss_and_gradient([{**DPO, **best_worst, "name": name}], one_group=True),
        loss_and_gradient([{**DPO, **best_worst}], one_group=True),
    )


def _blind(logps):
    """A reference that knows nothing: log-prob 0 everywhere, which leaves scores as they are."""
    return GroupLogps(torch.zeros_like(logps.token_logps), logps.mask)


def test_cpo_without_likelihood_is_dpo_against_a_reference_of_zeros():
    policy, _, facts = random_batch(responses=3)
    cpo = step_loss(build([{"name": "cpo", "sft_weight": 0.0, "beta": 0.3}]), policy, None, facts)
    torch.testing.assert_close(cpo, step_loss(build([DPO]), policy, _blind(policy), facts), rtol=1e-12, atol=0)


def test_simpo_without_gamma_on_equal_lengths_is_cpo_with_beta_per_token():
    policy, _, facts = random_batch(longest=1)
    simpo = step_loss(build([{"name": "simpo", "gamma": 0.0, "beta": 0.5}]), policy, None, facts)
    cpo = step_loss(build([{"name": "cpo", "sft_weight": 0.0, "beta": 0.5}]), policy, None, facts)
    torch.testing.assert_close(simpo, cpo, rtol=1e-12, atol=0)


def test_wpo_with_weights_of_one_is_dpo():
    """Every token has the probability that the policy's own draws have: log p = log sum p^2."""
    policy, reference, facts = random_batch()
    typical = GroupLogps(policy.token_logps, policy.mask, log_purity=policy.token_logps)
    wpo = step_loss(build([{**DPO, "name": "wpo"}]), typical, reference, facts)
    torch.testing.assert_close(wpo, step_loss(build([DPO]), policy, reference, facts), rtol=1e-12, atol=0)
