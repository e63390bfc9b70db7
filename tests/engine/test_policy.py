"""The policy: which engine runs, what reaches the head, and what every rank does."""

import logging

import peft
import pytest
import torch
from prompt_rows import random_trees, rows_of, yardstick
from test_tree_backbones import VOCABULARY, tiny
from test_tree_families import assert_same_gradients, assert_same_logps, gradients, loss_of
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from mmalign.config.schema import LoraConfig
from mmalign.engine import head
from mmalign.engine import policy as policy_module
from mmalign.engine.families import family_of
from mmalign.engine.load import load_model
from mmalign.engine.parts import add_lora
from mmalign.engine.policy import Policy, load_policy
from mmalign.engine.tree import collate
from mmalign.errors import ModelError
from mmalign.miniature import models

TEXT_ROWS = {"prompts": [7, 5], "responses": [[3, 5, 2], [2, 11]]}


def unknown_model(model_type: str, **fields):
    torch.manual_seed(0)
    common = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **common, **fields))
    return model.eval()


def gpt_neox():
    return unknown_model("gpt_neox", hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3)


# ---- which engine --------------------------------------------------------------------------------------------------


def test_auto_takes_the_tree_and_says_so(tiny_model, caplog):
    caplog.set_level(logging.INFO, logger="mmalign")
    policy = load_policy(tiny_model("qwen2_5_vl"))
    assert policy.engine == "tree"
    assert "engine: tree (qwen2_5_vl computes every prompt once)" in caplog.text


def test_a_model_outside_the_tables_runs_flat_and_says_why(caplog):
    caplog.set_level(logging.INFO, logger="mmalign")
    policy = Policy(gpt_neox())
    assert policy.engine == "flat"
    assert "engine: flat (model type 'gpt_neox' is not in the table" in caplog.text


def test_a_tree_asked_of_a_model_outside_the_tables_is_refused_with_a_way_out():
    with pytest.raises(ModelError, match="gpt_neox cannot run as a tree: .* use engine: flat, or engine: auto"):
        Policy(gpt_neox(), engine="tree")


def test_a_kernel_that_takes_no_mask_runs_flat():
    model = tiny("llama")
    model.config._attn_implementation = "flash_attention_2"
    assert Policy(model).engine == "flat"
    with pytest.raises(ModelError, match="attention 'flash_attention_2' takes no mask of ours"):
        Policy(model, engine="tree")


def test_flat_can_be_asked_for(tiny_model):
    policy = load_policy(tiny_model("llama"), engine="flat")
    assert (policy.engine, policy.engine_reason) == ("flat", "as configured")


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gpt_neox", {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3}),
        ("cohere2", {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
                     "num_key_value_heads": 1, "logit_scale": 0.3, "sliding_window": 4}),
    ],
)  # fmt: skip
def test_a_model_outside_the_tables_scores_as_its_own_head_does(model_type, fields):
    model = unknown_model(model_type, **fields)
    trees = random_trees(VOCABULARY, **TEXT_ROWS)
    batch = collate(trees, family_of(model.config), pad_id=1)
    assert_same_logps(Policy(model)(batch), yardstick(model, trees, batch))


# ---- the head ------------------------------------------------------------------------------------------------------


def test_only_response_positions_reach_the_head(tiny_model, monkeypatch):
    seen = []

    def spy(hidden, weight, bias, targets, softcap):
        seen.append(len(hidden))
        return hidden.sum(-1)

    monkeypatch.setattr(head, "response_logps", spy)
    policy = load_policy(tiny_model("qwen2_5_vl"))
    batch = collate(rows_of(tiny_model("qwen2_5_vl"), policy.base.config), policy.family, pad_id=2)
    policy(batch)
    assert seen == [int(batch.response_lengths.sum())]
    assert seen[0] < batch.num_tokens / 3


def test_log_probs_are_float32_and_zero_where_there_is_no_token(tiny_model):
    policy = load_policy(tiny_model("llama"), dtype="bfloat16")
    batch = collate(rows_of(tiny_model("llama"), policy.base.config), policy.family, pad_id=2)
    logps = policy(batch)
    assert logps.dtype == torch.float32
    assert logps.shape == batch.response_mask.shape
    assert (logps[~batch.response_mask] == 0).all()
    assert (logps[batch.response_mask] < 0).all()


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_bfloat16_trees_agree_with_flat_rows_to_its_precision(tiny_model, kernel):
    directory = tiny_model("qwen2_5_vl")
    model = load_model(directory, dtype="bfloat16", attn_implementation=kernel)
    batch = collate(rows_of(directory, model.config), family_of(model.config), pad_id=2)
    tree, flat = (Policy(model, engine=engine)(batch) for engine in ("tree", "flat"))
    torch.testing.assert_close(tree, flat, rtol=0.02, atol=0.05)


def test_autocast_computes_in_bfloat16_and_scores_in_float32(tiny_model):
    policy = load_policy(tiny_model("llama"))
    batch = collate(rows_of(tiny_model("llama"), policy.base.config), policy.family, pad_id=2)
    exact = policy(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = policy(batch)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1


@pytest.mark.parametrize("choice", ["lora", "modules_to_save", "bias"])
def test_an_unusual_head_scores_and_learns_as_its_own_forward(choice):
    model = base = tiny("llama")
    if choice == "bias":
        base.lm_head.bias = nn.Parameter(torch.randn(VOCABULARY))
    else:
        model = with_trained_head(base, choice)
    trees = random_trees(VOCABULARY, **TEXT_ROWS)
    batch = collate(trees, family_of(base.config), pad_id=1)
    expected = yardstick(base, trees, batch)
    expected_gradients = gradients(model, expected)
    logps = Policy(model)(batch)
    assert_same_logps(logps, expected)
    given = gradients(model, logps)
    assert_same_gradients(given, expected_gradients)
    assert any("lm_head" in name and gradient.abs().max() > 0 for name, gradient in given.items())


def with_trained_head(base: nn.Module, choice: str) -> nn.Module:
    targets = ["q_proj", "lm_head"] if choice == "lora" else ["q_proj"]
    saved = ["lm_head"] if choice == "modules_to_save" else None
    config = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=saved, init_lora_weights=False)
    return peft.get_peft_model(base, config)


def test_a_head_with_an_adapter_scores_as_the_bare_model_while_it_is_off():
    base = tiny("llama")
    trees = random_trees(VOCABULARY, **TEXT_ROWS)
    batch = collate(trees, family_of(base.config), pad_id=1)
    before = Policy(base)(batch).detach()
    model = with_trained_head(base, "lora")
    policy = Policy(model)
    with model.disable_adapter():
        torch.testing.assert_close(policy(batch), before)
    assert (policy(batch) - before).abs().max() > 1e-3


# ---- state and ranks -----------------------------------------------------------------------------------------------


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


def test_an_adapter_is_trained_on_from_where_it_is(tiny_model, tmp_path):
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
    with pytest.raises(ModelError, match="is an adapter and is trained on as it is; leave model.lora out"):
        load_policy(tmp_path, lora=LoraConfig())
