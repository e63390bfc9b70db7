"""References that follow the policy: TRL's formula, no second model beside adapters, weights put back as they were."""

import copy

import pytest
import torch
from prompt_rows import random_trees
from test_policy import with_trained_head
from test_reference import move, policy_and_batch
from test_tree_backbones import VOCABULARY, tiny

from mmalign.engine.load import load_model
from mmalign.engine.moving_reference import EarlierAdapter, MovingReference, trained_weights
from mmalign.engine.parts import freeze_parts
from mmalign.engine.policy import Policy
from mmalign.engine.reference import AdapterOff, FrozenCopy
from mmalign.engine.tree import collate
from mmalign.errors import ModelError

LORA = {"rank": 4, "alpha": 8.0}


def moving(policy, **how):
    reference = EarlierAdapter(policy) if hasattr(policy.model, "disable_adapter") else FrozenCopy.of_start(policy)
    return MovingReference(reference, policy, **how)


@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "adapters"])
def test_a_synchronised_reference_is_the_policy_and_stays_there_while_the_policy_moves_on(tiny_model, lora):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), **lora)
    reference = moving(policy, every_steps=2, share=1.0)
    start = policy(batch).detach()
    assert torch.equal(reference(batch), start)
    move(policy)
    reference.after_step(1)
    assert torch.equal(reference(batch), start)
    reference.after_step(2)
    now = policy(batch).detach()
    assert torch.equal(reference(batch), now)
    assert not torch.allclose(now, start)
    move(policy)
    reference.after_step(3)
    assert torch.equal(reference(batch), now)


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_weights_after_a_move_are_those_of_trl(tiny_model, share):
    callbacks = pytest.importorskip("trl.trainer.callbacks", reason="parity needs trl (pip install 'mmalign[bench]')")
    policy, _ = policy_and_batch(tiny_model("qwen2_5_vl"))
    reference = moving(policy, every_steps=1, share=share)
    theirs = copy.deepcopy(policy.model)
    for step in (1, 2):
        move(policy)
        reference.after_step(step)
        callbacks.SyncRefModelCallback._sync_target_model(policy.model, theirs, share)
    expected = dict(theirs.named_parameters())
    assert len(reference.weights) == len(expected)
    for name, weight in reference.weights.items():
        assert torch.equal(weight, expected[name.removeprefix("model.")]), name


def test_an_average_with_adapters_is_that_of_their_weights(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), **LORA)
    reference = moving(policy, every_steps=1, share=0.25)
    before = {name: weight.clone() for name, weight in reference.weights.items()}
    move(policy)
    reference.after_step(1)
    trained = trained_weights(policy)
    assert before.keys() == trained.keys()
    for name, weight in reference.weights.items():
        torch.testing.assert_close(weight, 0.75 * before[name] + 0.25 * trained[name].detach())


@pytest.mark.parametrize("trained", ["everything", "lora", "modules_to_save"])
def test_distributions_are_those_of_the_earlier_weights_those_of_the_head_included(trained):
    base = tiny("llama")
    policy = Policy(base if trained == "everything" else with_trained_head(base, trained))
    trees = random_trees(VOCABULARY, prompts=[7, 5], responses=[[3, 5], [2]])
    batch = collate(trees, policy.family, pad_id=1)
    reference, earlier = moving(policy, every_steps=2, share=1.0), FrozenCopy(copy.deepcopy(policy))
    move(policy)
    found = []
    for one in (reference, earlier):
        logps, distance = one.with_distributions(batch)
        divergence = policy(batch, also=(distance,))[1]["reference_kl"]
        gradient = torch.autograd.grad(divergence.sum(), list(trained_weights(policy).values()), allow_unused=True)
        found.append((logps, divergence, gradient))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert found[0][1].max() > 1e-4
    reference.after_step(2)
    _, distance = reference.with_distributions(batch)
    assert not policy(batch, also=(distance,))[1]["reference_kl"].any()


def test_frozen_parts_are_shared_and_do_not_move(tiny_model):
    policy, _ = policy_and_batch(tiny_model("qwen2_5_vl"))
    freeze_parts(policy.base, policy.family, ["vision"])
    reference = moving(policy, every_steps=1, share=0.5)
    assert reference.weights.keys() == trained_weights(policy).keys()
    assert not any(".visual.blocks." in name for name in reference.weights)


def test_scoring_leaves_policy_parameters_gradients_and_mode_as_they_were(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), **LORA, dropout=0.5)
    reference = moving(policy, every_steps=1, share=1.0)
    move(policy)
    parameters, weights = list(policy.parameters()), [weight.clone() for weight in policy.parameters()]
    policy(batch).sum().backward()
    gradients = [weight.grad.clone() for weight in parameters if weight.requires_grad]
    once, again = reference(batch), reference(batch)
    assert torch.equal(once, again)  # no dropout
    assert policy.training
    assert all(one is other for one, other in zip(policy.parameters(), parameters, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(parameters, weights, strict=True))
    kept = [weight.grad for weight in parameters if weight.requires_grad]
    assert all(torch.equal(one, other) for one, other in zip(kept, gradients, strict=True))


def test_adapters_in_place_start_where_the_bare_model_is(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), **LORA)
    torch.testing.assert_close(EarlierAdapter(policy)(batch), AdapterOff(policy)(batch), rtol=0, atol=1e-6)


def test_a_gradient_taken_around_a_score_is_that_of_the_policy(tiny_model):
    """The reference may speak between a forward of the policy and its backward."""
    policy, batch = policy_and_batch(tiny_model("llama"), **LORA)
    reference = moving(policy, every_steps=1, share=1.0)
    move(policy)
    gradients = []
    for scores in (False, True):
        policy.zero_grad()
        loss = policy(batch).sum()
        if scores:
            reference(batch)
        loss.backward()
        gradients.append([w.grad.clone() for w in policy.parameters() if w.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_a_reference_without_the_trained_weights_cannot_follow(tiny_model):
    policy, _ = policy_and_batch(tiny_model("llama"), **LORA)
    other = FrozenCopy.of_model(load_model(tiny_model("llama", seed=3)), policy)
    with pytest.raises(ModelError, match="cannot follow the policy: it has no weight such as .*lora.*which is trained"):
        MovingReference(other, policy, every_steps=1, share=1.0)
