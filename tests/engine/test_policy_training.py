"""A policy in training: what moves, what is recomputed, what every rank does, what one batch leaves for the next."""

import pytest
import torch
from prompt_rows import random_trees, rows_of
from test_policy import TEXT_ROWS
from test_tree_backbones import VOCABULARY
from test_tree_families import assert_same_gradients, assert_same_logps, gradients, loss_of
from torch import nn

from mmalign.config.schema import LoraConfig
from mmalign.engine import policy as policy_module
from mmalign.engine.families import family_of
from mmalign.engine.load import load_model
from mmalign.engine.parts import add_lora, trainable_report
from mmalign.engine.policy import Policy, load_policy
from mmalign.engine.tree import collate
from mmalign.errors import ModelError
from mmalign.miniature import models


def test_batches_with_and_without_images_leave_no_trace_on_each_other(tiny_model):
    directory = tiny_model("qwen2_5_vl")
    policy = load_policy(directory, engine="flat")
    trees = rows_of(directory, policy.base.config)
    text, images = (collate(rows, policy.family, pad_id=2) for rows in (trees[2:], trees[:2]))
    alone = policy(text).detach()
    policy(images)
    assert torch.equal(policy(text), alone)
    policy.engine = "tree"
    policy(images)
    assert_same_logps(policy(text), alone)


def test_dropout_of_the_saved_config_is_off(tiny_model, tmp_path):
    model = load_model(tiny_model("qwen2"))
    model.config.attention_dropout = 0.5
    model.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    assert policy.base.training
    batch = collate(random_trees(VOCABULARY, **TEXT_ROWS), policy.family, pad_id=1)
    assert torch.equal(policy(batch), policy(batch))


@pytest.mark.parametrize("name", models.VISION_FAMILIES)
def test_text_only_batches_run_the_vision_side_on_every_rank_with_no_weight(tiny_model, monkeypatch, name):
    directory = tiny_model(name)
    model = load_model(directory)
    policy = Policy(model)
    with_images = gradients(model, policy(collate(rows_of(directory, model.config), policy.family, pad_id=2)))
    batch = collate(random_trees(VOCABULARY, **TEXT_ROWS), policy.family, pad_id=1)
    alone = gradients(model, policy(batch))
    logps = policy(batch)

    monkeypatch.setattr(policy_module, "_runs_in_several_processes", lambda: True)
    assert torch.equal(policy(batch), logps)
    among_others = gradients(model, policy(batch))
    assert among_others.keys() == with_images.keys()
    for gradient_name, gradient in among_others.items():
        assert torch.equal(gradient, alone.get(gradient_name, torch.zeros_like(gradient))), gradient_name


def test_gradient_checkpointing_recomputes_layers_and_changes_no_gradient(tiny_model):
    directory = tiny_model("llava")
    plain, saving = (load_policy(directory, gradient_checkpointing=choice) for choice in (False, True))
    batch = collate(rows_of(directory, plain.base.config), plain.family, pad_id=2)
    calls = []
    saving.base.model.language_model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    assert_same_gradients(gradients(saving, saving(batch)), gradients(plain, plain(batch)))
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["llava", "smolvlm", "qwen2_5_vl"])
def test_no_gradient_is_sent_through_a_frozen_vision_tower(tiny_model, name):
    policy = load_policy(tiny_model(name), freeze=("vision", "projector"), gradient_checkpointing=True)
    asks = []
    tower = policy.base.get_submodule(policy.family.vision[0])
    tower.register_forward_hook(lambda module, inputs, output: asks.append(output.last_hidden_state.requires_grad))
    policy(collate(rows_of(tiny_model(name), policy.base.config), policy.family, pad_id=2)).sum().backward()
    assert asks == [False]


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_adapters_train_on_quantised_weights_and_the_tree_stays_exact(tiny_model, kind):
    pytest.importorskip("bitsandbytes", reason="the extra qlora is not installed")
    policy = load_policy(tiny_model("llava"), quantize=kind, lora=LoraConfig(rank=2), gradient_checkpointing=True)
    assert any("bit" in type(module).__name__ for module in policy.base.modules())
    batch = collate(rows_of(tiny_model("llava"), policy.base.config), policy.family, pad_id=2)
    tree = policy(batch)
    reached = {name for name, gradient in gradients(policy, tree).items() if gradient.abs().max() > 0}
    assert reached
    assert all("lora_B" in name for name in reached)
    policy.engine = "flat"
    assert_same_logps(tree, policy(batch))
    report = trainable_report(policy.base, policy.family)["language"]
    unpacked = trainable_report(load_model(tiny_model("llava")), policy.family)["language"]
    assert report.total == unpacked.total + report.trainable


def test_loading_a_policy_puts_adapters_and_freezes_parts(tiny_model):
    policy = load_policy(tiny_model("llava"), lora=LoraConfig(rank=2, parts=("language", "projector")))
    moving = {name for name, parameter in policy.base.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name for name in moving)
    assert any("multi_modal_projector" in name for name in moving)
    policy = load_policy(tiny_model("llava"), freeze=("vision", "language"))
    assert all("multi_modal_projector" in n for n, p in policy.base.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("name", models.FAMILIES)
@pytest.mark.parametrize(
    "lora", [None, LoraConfig(rank=2, parts=("language", "vision", "projector"))], ids=["full", "lora"]
)
def test_every_weight_that_moves_gets_a_gradient(tiny_model, name, lora):
    """What DDP asks: it waits for the gradient of every weight that moves."""
    if lora is not None and name in models.TEXT_FAMILIES:
        lora = LoraConfig(rank=2)
    policy = load_policy(tiny_model(name), lora=lora)
    batch = collate(rows_of(tiny_model(name), policy.base.config), policy.family, pad_id=2)
    policy(batch).sum().backward()
    assert [n for n, p in policy.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_loss_reaches_adapters_through_a_frozen_model(tiny_model):
    policy = load_policy(tiny_model("smolvlm"), lora=LoraConfig(rank=2), gradient_checkpointing=True)
    batch = collate(rows_of(tiny_model("smolvlm"), policy.base.config), policy.family, pad_id=2)
    loss_of(policy(batch)).backward()
    reached = [name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert reached
    assert all("lora_B" in name for name in reached)


def test_an_adapter_is_trained_on_from_where_it_is(tiny_model, tmp_path, monkeypatch):
    base = load_model(tiny_model("llama"))
    adapted = add_lora(base, family_of(base.config), rank=2, alpha=4)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    adapted.peft_config["default"].base_model_name_or_path = str(tiny_model("llama"))
    adapted.save_pretrained(tmp_path)

    policy = load_policy(tmp_path)
    batch = collate(random_trees(VOCABULARY, **TEXT_ROWS), policy.family, pad_id=1)
    torch.testing.assert_close(policy(batch), Policy(adapted)(batch))
    assert all("lora_" in name for name, p in policy.named_parameters() if p.requires_grad)
    monkeypatch.setattr(policy_module, "load_model", None)  # said before any weight is read
    with pytest.raises(ModelError, match="is an adapter and is trained on as it is; leave model.lora out"):
        load_policy(tmp_path, lora=LoraConfig())
