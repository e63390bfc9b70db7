"""Numbers per token beside log-probs, from whole models: trees and separate rows against responses computed alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from prompt_rows import every_distribution, random_trees, rows_of
from test_policy import gpt_neox, with_trained_head
from test_reference import move, policy_and_batch
from test_tree_backbones import VOCABULARY, tiny

from mmalign.engine import token_terms
from mmalign.engine.families import family_of
from mmalign.engine.policy import Policy
from mmalign.engine.reference import AdapterOff, FrozenCopy, NoReference, Precomputed
from mmalign.engine.reference_table import ReferenceTable
from mmalign.engine.token_terms import ChosenLogps, LogPurity
from mmalign.engine.tree import NOT_OF_THE_ROW, collate
from mmalign.engine.views import without_history
from mmalign.errors import ModelError

IDS = (3, 7, 20)


def ask(policy, reference, batch):
    """Return the divergence from the reference, and log-probs of three tokens and of all others."""
    _, distance = reference.with_distributions(batch)
    ids = torch.tensor(IDS).expand(*batch.response_mask.shape, -1)
    _, found = policy(batch, also=(distance, ChosenLogps(ids), LogPurity()))
    return found["reference_kl"], found["student_logps"]


def plainly(base, reference_base, trees, batch):
    """The same from all log-probs of responses computed alone."""
    divergence = torch.zeros(batch.response_mask.shape)
    chosen = torch.zeros(*batch.response_mask.shape, len(IDS) + 1)
    sides = zip(every_distribution(base, trees), every_distribution(reference_base, trees), strict=True)
    for (b, k, response, logps), (*_, before) in sides:
        before = before.detach()
        divergence[b, k, : len(response)] = (before.exp() * (before - logps)).sum(-1)
        others = torch.ones(logps.shape[1], dtype=torch.bool).index_fill(0, torch.tensor(IDS), False)
        mass = logps[:, others].logsumexp(-1, keepdim=True)
        chosen[b, k, : len(response)] = torch.cat([logps[:, list(IDS)], mass], 1)
    return divergence, chosen


def gradients(divergence, chosen, module):
    loss = divergence.sum() - 0.3 * chosen.sum()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.autograd.grad(loss, trained, allow_unused=True)


@pytest.mark.parametrize("engine", ["tree", "flat"])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "paligemma", "llama"])
def test_values_and_every_gradient_are_those_of_responses_computed_alone(tiny_model, name, engine):
    policy, batch = policy_and_batch(tiny_model(name))
    policy.engine = engine
    reference = FrozenCopy.of_start(policy)
    start = copy.deepcopy(policy.base)
    move(policy)
    ours = ask(policy, reference, batch)
    theirs = plainly(policy.base, start, rows_of(tiny_model(name), policy.base.config), batch)
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    for got, expected in zip(gradients(*ours, policy), gradients(*theirs, policy), strict=True):
        if expected is not None:
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_whole_distributions_are_compared_where_they_are_read(tiny_model, monkeypatch):
    """A view and an answer to another prompt cost no divergence, and change none."""
    policy = Policy(tiny("llama"))
    trees = random_trees(VOCABULARY, prompts=[7, 5], responses=[[3, 5], [2, 4]])
    alone = collate([replace(tree, response_ids=tree.response_ids[:1]) for tree in trees], policy.family, pad_id=1)
    batch = collate([*trees, *trees], policy.family, pad_id=1, views=(without_history(),))
    batch = replace(batch, levels=torch.tensor([[0, NOT_OF_THE_ROW]] * 4))
    reference = FrozenCopy.of_start(policy)
    move(policy)
    compared, kl_from = [], token_terms.kl_from
    monkeypatch.setattr(token_terms, "kl_from", lambda *sides: compared.append(len(sides[1].hidden)) or kl_from(*sides))
    whole, plain = ask(policy, reference, batch)[0], ask(policy, reference, alone)[0]
    assert compared == [5, 5]  # 3 and 2 tokens
    torch.testing.assert_close(whole[:2, :1, :3], plain, rtol=1e-4, atol=1e-6)
    assert not whole[2:].any()
    assert not whole[:, 1:].any()


def test_with_an_adapter_the_bare_model_is_the_other_side_and_the_adapter_alone_learns(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), rank=2, alpha=4)
    move(policy)
    bare, _ = policy_and_batch(tiny_model("qwen2_5_vl"))
    divergence, chosen = ask(policy, AdapterOff(policy), batch)
    trees = rows_of(tiny_model("qwen2_5_vl"), policy.base.config)
    expected = plainly(policy.base, bare.base, trees, batch)
    torch.testing.assert_close(divergence, expected[0], rtol=1e-4, atol=1e-5)
    given, wanted = (gradients(*side, policy) for side in ((divergence, chosen), expected))
    for got, wanted_one in zip(given, wanted, strict=True):
        torch.testing.assert_close(got, wanted_one, rtol=1e-3, atol=1e-5)
    assert all("lora" in name for name, p in policy.named_parameters() if p.requires_grad)


def test_an_adapter_on_the_head_stands_on_one_side_only():
    trees = random_trees(VOCABULARY, prompts=[7, 5], responses=[[3, 5], [2]])
    for choice in ("lora", "modules_to_save"):
        base = tiny("llama")
        bare = copy.deepcopy(base)
        policy = Policy(with_trained_head(base, choice))
        batch = collate(trees, policy.family, pad_id=1)
        divergence, _ = ask(policy, AdapterOff(policy), batch)
        expected, _ = plainly(policy.base, bare, trees, batch)
        assert expected.max() > 1e-4
        torch.testing.assert_close(divergence, expected, rtol=1e-3, atol=1e-6)


def test_a_policy_at_its_start_is_at_distance_exactly_zero(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), rank=2, alpha=4)
    for reference in (AdapterOff(policy), FrozenCopy.of_start(policy)):
        divergence, _ = ask(policy, reference, batch)
        assert not divergence.any()
        assert divergence.requires_grad


def test_a_model_whose_head_is_not_known_is_read_by_its_logits():
    model = gpt_neox()
    trees = random_trees(VOCABULARY, prompts=[7, 5], responses=[[3, 5], [2]])
    batch = collate(trees, family_of(model.config), pad_id=1)
    policy = Policy(model)
    reference, start = FrozenCopy.of_start(policy), copy.deepcopy(model)
    move(policy)
    for got, expected in zip(ask(policy, reference, batch), plainly(model, start, trees, batch), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_references_that_hold_no_distributions_say_so(tiny_model, tmp_path):
    _, batch = policy_and_batch(tiny_model("llama"))
    table = ReferenceTable.open(tmp_path / "table", rows=[], made_with={})
    with pytest.raises(ModelError, match="not whole distributions; leave out model.precompute_reference"):
        Precomputed(table).with_distributions(batch)
    with pytest.raises(ModelError, match="there is no reference whose distributions"):
        NoReference().with_distributions(batch)
