"""References: the start of the run, another model, an adapter switched off, a table."""

from __future__ import annotations

import copy

import pytest
import torch
from prompt_rows import random_trees, rows_of

from mmalign.engine.load import load_model
from mmalign.engine.parts import add_lora, freeze_parts
from mmalign.engine.policy import Policy
from mmalign.engine.reference import AdapterOff, FrozenCopy, NoReference, Precomputed, precompute
from mmalign.engine.reference_table import ReferenceTable
from mmalign.engine.tree import collate
from mmalign.errors import CheckpointError, ModelError


def policy_and_batch(directory, **lora) -> tuple[Policy, object]:
    model = load_model(directory)
    trees = rows_of(directory, model.config)
    if lora:
        model = add_lora(model, Policy(model).family, **lora)
    policy = Policy(model)
    return policy, collate([_with_id(tree, n) for n, tree in enumerate(trees)], policy.family, pad_id=2)


def _with_id(tree, number: int):
    return type(tree)(**(vars(tree) | {"id": f"row {number}"}))


def move(policy: Policy) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def weight_bytes(*modules: torch.nn.Module) -> int:
    """Return the memory of all weights, counting shared ones once."""
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for m in modules for p in m.parameters()}
    return sum(storages.values())


def test_no_reference_gives_nothing_and_runs_nothing(tiny_model):
    _, batch = policy_and_batch(tiny_model("llama"))
    assert NoReference()(batch) is None
    assert NoReference().models == ()


# LLaVA reads the last layer of its tower but one, so the last one is frozen and shared while the others are copied.
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "llama"])
def test_a_frozen_copy_stays_at_the_start_while_the_policy_moves(tiny_model, name):
    policy, batch = policy_and_batch(tiny_model(name))
    reference = FrozenCopy.of_start(policy)
    start = policy(batch).detach()
    assert torch.equal(reference(batch), start)
    move(policy)
    assert torch.equal(reference(batch), start)
    assert not torch.equal(policy(batch), start)
    assert not reference(batch).requires_grad


def test_a_frozen_copy_leaves_the_policy_trainable_and_holds_frozen_weights_once(tiny_model):
    policy, batch = policy_and_batch(tiny_model("llava"))
    freeze_parts(policy.base, policy.family, ["vision"])
    before = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    reference = FrozenCopy.of_start(policy)
    assert {name: parameter.requires_grad for name, parameter in policy.named_parameters()} == before
    assert all(module.training for module in policy.modules())
    assert reference.policy.base.model.vision_tower is policy.base.model.vision_tower
    trained = sum(4 * p.numel() for p in policy.parameters() if p.requires_grad)
    assert weight_bytes(policy, reference.policy) == weight_bytes(policy) + trained


def test_a_frozen_copy_of_a_loaded_adapter_keeps_the_adapter_and_copies_nothing_else(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), rank=2, alpha=4)
    move(policy)
    start = policy(batch).detach()
    reference = FrozenCopy.of_start(policy)
    adapters = sum(4 * p.numel() for p in policy.parameters() if p.requires_grad)
    assert weight_bytes(policy, reference.policy) == weight_bytes(policy) + adapters
    move(policy)
    torch.testing.assert_close(reference(batch), start)
    assert not torch.allclose(AdapterOff(policy)(batch), start, atol=1e-3)


def test_another_model_shares_what_is_frozen_and_equal(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"))
    freeze_parts(policy.base, policy.family, ["vision", "projector"])
    other = copy.deepcopy(policy.base)
    with torch.no_grad():
        other.model.language_model.norm.weight.mul_(2)
    expected = Policy(copy.deepcopy(other))(batch).detach()
    reference = FrozenCopy.of_model(other, policy)
    assert reference.policy.base.model.visual is policy.base.model.visual
    assert torch.equal(reference(batch), expected)
    assert not torch.equal(reference(batch), policy(batch))


def test_another_model_with_another_tower_keeps_its_own(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"))
    freeze_parts(policy.base, policy.family, ["vision", "projector"])
    other = load_model(tiny_model("qwen2_5_vl", seed=1))
    expected = Policy(copy.deepcopy(other))(batch).detach()
    reference = FrozenCopy.of_model(other, policy)
    assert reference.policy.base.model.visual is not policy.base.model.visual
    assert torch.equal(reference(batch), expected)


def test_a_bare_reference_shares_the_layers_under_the_adapters_of_the_policy(tiny_model):
    policy, batch = policy_and_batch(tiny_model("qwen2_5_vl"), rank=2, alpha=4)
    move(policy)
    reference = FrozenCopy.of_model(load_model(tiny_model("qwen2_5_vl")), policy)
    assert weight_bytes(policy, reference.policy) == weight_bytes(policy)
    torch.testing.assert_close(reference(batch), AdapterOff(policy)(batch))


def test_models_that_read_other_tokens_are_refused(tiny_model):
    policy, _ = policy_and_batch(tiny_model("qwen2_5_vl"))
    with pytest.raises(ModelError, match="the reference is a llama, the policy a qwen2_5_vl"):
        FrozenCopy.of_model(load_model(tiny_model("llama")), policy)
    with pytest.raises(ModelError, match="has a vocabulary of 512 tokens, the policy of"):
        FrozenCopy.of_model(load_model(tiny_model("qwen2_5_vl", vocabulary=512)), policy)


def test_adapter_off_is_the_bare_model_and_leaves_the_adapter_on(tiny_model):
    directory = tiny_model("qwen2_5_vl")
    bare, batch = policy_and_batch(directory)
    policy, _ = policy_and_batch(directory, rank=2, alpha=4)
    move(policy)
    torch.testing.assert_close(AdapterOff(policy)(batch), bare(batch).detach())
    assert not torch.allclose(policy(batch), bare(batch), atol=1e-3)


def test_adapter_off_needs_an_adapter(tiny_model):
    policy, _ = policy_and_batch(tiny_model("llama"))
    with pytest.raises(ModelError, match="has no adapter to switch off; train with model.lora"):
        AdapterOff(policy)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava"])
def test_a_table_gives_what_the_reference_gave_with_images(tiny_model, tmp_path, name):
    policy, batch = policy_and_batch(tiny_model(name))
    rows = [(i, [n for n in r if n]) for i, r in zip(batch.ids, batch.response_lengths.tolist(), strict=True)]
    table = ReferenceTable.open(tmp_path / "table", rows=rows, made_with={})
    with pytest.raises(CheckpointError, match="precompute it first"):
        Precomputed(table)(batch)
    reference = FrozenCopy.of_start(policy)
    assert list(precompute(table, reference, [batch])) == [3]
    assert torch.equal(Precomputed(table)(batch), reference(batch))


def test_a_table_filled_in_two_sessions_equals_one_filled_in_one(tiny_model, tmp_path):
    policy = Policy(load_model(tiny_model("llama")))
    trees = random_trees(200, [5, 9, 3, 7], [[2, 3], [4, 1], [1, 1], [6, 2]])
    rows = [(tree.id, [len(r) for r in tree.response_ids]) for tree in trees]
    reference = FrozenCopy.of_start(policy)

    def batches(numbers):
        return (collate([trees[n]], policy.family, pad_id=2) for n in numbers)

    whole = ReferenceTable.open(tmp_path / "whole", rows=rows, made_with={})
    list(precompute(whole, reference, batches(whole.missing())))
    halves = ReferenceTable.open(tmp_path / "halves", rows=rows, made_with={})
    next(session := precompute(halves, reference, batches(halves.missing())))
    next(session)
    session.close()
    again = ReferenceTable.open(tmp_path / "halves", rows=rows, made_with={})
    assert again.missing() == [2, 3]
    list(precompute(again, reference, batches(again.missing())))
    files = [(tmp_path / name / "logps.float32").read_bytes() for name in ("whole", "halves")]
    assert files[0] == files[1]
