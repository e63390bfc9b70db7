"""The policy: which engine runs, and what reaches the head."""

import logging

import peft
import pytest
import torch
from prompt_rows import random_trees, rows_of, yardstick
from test_tree_backbones import VOCABULARY, tiny
from test_tree_families import assert_same_gradients, assert_same_logps, gradients
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from mmalign.engine import head
from mmalign.engine.families import family_of
from mmalign.engine.load import load_model
from mmalign.engine.policy import Policy, load_policy
from mmalign.engine.token_terms import LogPurity
from mmalign.engine.tree import collate
from mmalign.errors import ModelError

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


def test_rows_of_one_response_are_left_to_the_kernels_own_causal_mask(tiny_model, monkeypatch):
    masks = []
    policy = load_policy(tiny_model("llama"), engine="tree")
    attention = policy.base.model.layers[0].self_attn
    attention.register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    for answers, expected in ([3], None), ([3, 5], (1, 1, 15, 15)):
        trees = random_trees(VOCABULARY, prompts=[7], responses=[answers])
        batch = collate(trees, policy.family, pad_id=1)
        masks.clear()
        logps = policy(batch)
        assert getattr(masks[0], "shape", None) == expected
        assert_same_logps(logps, yardstick(policy.base, trees, batch))


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


@pytest.mark.parametrize("make", [gpt_neox, lambda: tiny("llama")], ids=["outside the tables", "known"])
def test_purity_stands_beside_the_log_probs_of_the_same_forward(make):
    model = make()
    trees = random_trees(VOCABULARY, prompts=[7], responses=[[3]])
    batch = collate(trees, family_of(model.config), pad_id=1)
    logps, found = Policy(model)(batch, also=(LogPurity(),))
    purity = found["log_purity"]
    torch.testing.assert_close(logps, Policy(model)(batch), rtol=0, atol=0)
    row = torch.cat([trees[0].prompt_ids, *trees[0].response_ids])[None]
    expected = model(input_ids=row).logits[0, 6:9].softmax(-1).square().sum(-1).log()
    torch.testing.assert_close(purity[0, 0], expected, rtol=1e-4, atol=1e-5)
    assert logps.requires_grad and not purity.requires_grad


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
