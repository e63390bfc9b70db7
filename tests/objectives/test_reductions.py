"""Forty papers are a dozen ideas: under these settings one preset is another, in loss and in gradient."""

from dataclasses import replace

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
    ("selm without exploration is dpo", {**DPO, "name": "selm", "exploration": 0.0, "pairs": "all"}, DPO),
    ("xpo without exploration is dpo", {**DPO, "name": "xpo", "exploration": 0.0, "pairs": "all"}, DPO),
    ("spa without doubt is dpo", {**DPO, "name": "spa", "doubt": 0.0, "warmup_steps": 0}, DPO),
    ("crm that selects every pair is dpo", {**DPO, "name": "crm", "selected_share": 1.0}, DPO),
]
SUMS = [
    ("rpo per token is dpo + sft", {**DPO, "name": "rpo", "sft_weight": 0.7, "normalise": "token"},
     [DPO, {"name": "sft", "weight": 0.7}]),
    ("cpo is its comparison + sft", {"name": "cpo", "sft_weight": 0.7},
     [{"name": "cpo", "sft_weight": 0.0}, {"name": "sft", "weight": 0.7}]),
    ("mpo is dpo + bco_pair + sft", {"name": "mpo", "beta": 0.3},
     [{**DPO, "weight": 0.8}, {**DPO, "name": "bco_pair", "weight": 0.2}, {"name": "sft"}]),
    ("eurus is dpo + bco_pair", {**DPO, "name": "eurus"}, [DPO, {**DPO, "name": "bco_pair"}]),
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


def _with(facts, **numbers):
    return replace(facts, numbers={name.replace("__", "/"): value for name, value in numbers.items()})


@pytest.mark.parametrize("per_token", [False, True])
def test_infifpo_with_one_source_and_no_clip_is_dpo_against_that_source(per_token):
    policy, source, facts = random_batch(responses=3)
    known = _with(facts, logp__other=source.sums(), tokens__other=source.lengths().double())
    plain = {"sources": ["other"], "clip": False, "count_reference": False, "beta": 0.3}
    fused = build([{"name": "infifpo" if per_token else "infifpo_sum", **plain}])(policy, None, known)
    dpo = build([{"name": "dpo_norm" if per_token else "dpo", "beta": 0.3}])(policy, source, facts)
    torch.testing.assert_close(fused.terms[0].values, dpo.terms[0].values, rtol=1e-12, atol=0)
    if not per_token:  # what dpo_norm logs are sums
        torch.testing.assert_close(fused.rewards, dpo.rewards, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fusion", ["max_margin", "average", "confidence"])
def test_infifpo_whose_source_is_the_reference_is_dpo_per_token(fusion):
    policy, reference, facts = random_batch(responses=3)
    known = _with(facts, logp__other=reference.sums(), tokens__other=reference.lengths().double())
    infifpo = step_loss(build([{"name": "infifpo", "fusion": fusion}]), policy, reference, known)
    dpo = step_loss(build([{"name": "dpo_norm"}]), policy, reference, facts)
    torch.testing.assert_close(infifpo, dpo, rtol=1e-12, atol=0)


def test_twice_sppo_with_sure_wins_is_sppo_hard():
    policy, reference, facts = random_batch()
    known = _with(facts, win_rate=torch.tensor([1.0, 0.0], dtype=torch.float64).expand(5, 2))
    soft = step_loss(build([{"name": "sppo", "weight": 2.0}]), policy, reference, known)
    hard = step_loss(build([{"name": "sppo_hard"}]), policy, reference, facts)
    torch.testing.assert_close(soft, hard, rtol=1e-12, atol=0)


def test_sppo_whose_rates_are_of_the_pair_is_sppo_single():
    policy, reference, facts = random_batch()
    gap = facts.scores[:, 0] - facts.scores[:, 1]
    known = _with(facts, win_rate=torch.stack([gap.sigmoid(), (-gap).sigmoid()], 1))
    soft = step_loss(build([{"name": "sppo"}]), policy, reference, known)
    torch.testing.assert_close(soft, step_loss(build([{"name": "sppo_single"}]), policy, reference, facts))


@pytest.mark.parametrize(("judge", "other"), [(1.0, DPO), (0.0, {**DPO, "name": "cdpo", "label_smoothing": 0.4999999})])
def test_cream_whose_judges_agree_is_dpo_and_whose_second_judge_is_blind_believes_half(judge, other):
    policy, reference, facts = random_batch(responses=3)
    known = _with(facts, judge=judge * facts.scores)
    cream = step_loss(build([{**DPO, "name": "cream", "pairs": "all"}]), policy, reference, known)
    torch.testing.assert_close(cream, step_loss(build([other]), policy, reference, facts), rtol=1e-6, atol=0)


def test_scir_whose_judge_is_sure_adds_a_second_dpo_and_gates_what_the_policy_has_wrong():
    policy, reference, facts = random_batch()
    known = _with(facts, judge=1e4 * facts.scores)
    objective = build([{**DPO, "name": "scir"}])
    gated, consistent = objective(policy, reference, known).terms
    dpo = build([DPO])(policy, reference, facts)
    torch.testing.assert_close(consistent.values, dpo.terms[0].values, rtol=1e-12, atol=0)
    right = dpo.rewards[:, 0] >= dpo.rewards[:, 1]
    assert 0 < right.sum() < len(right)
    torch.testing.assert_close(gated.values, dpo.terms[0].values * right, rtol=1e-12, atol=0)


def test_lcpo_that_believes_everyone_is_dpo():
    policy, reference, facts = random_batch()
    lcpo = step_loss(build([{**DPO, "name": "lcpo", "reliability": 1 - 1e-12}]), policy, reference, facts)
    torch.testing.assert_close(lcpo, step_loss(build([DPO]), policy, reference, facts), rtol=1e-10, atol=0)
