"""Every text decoder of the table, with its windows, factors and caps, equals one response at a time."""

import pytest
import torch
from prompt_rows import random_trees, yardstick
from test_tree_families import assert_same_gradients, assert_same_logps, gradients
from transformers import AutoConfig, AutoModelForCausalLM

from mmalign.engine.families import BACKBONES, family_of
from mmalign.engine.parts import turn_dropout_off
from mmalign.engine.policy import Policy
from mmalign.engine.tree import collate

VOCABULARY = 67
WINDOW = 5
_SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.1,
}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}

CASES = {
    "cohere": {"logit_scale": 0.3},
    "gemma": {},
    "gemma2": {**_MIXED, "attn_implementation": "eager", "query_pre_attn_scalar": 8},
    "gemma3_text": {**_MIXED, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0},
    "granite": {"logits_scaling": 3.0, "embedding_multiplier": 2.0},
    "llama": {"attention_bias": True},
    "mistral": {"sliding_window": WINDOW},
    "olmo2": {},
    "phi3": {"sliding_window": WINDOW, "pad_token_id": 1},
    "qwen2": {**_MIXED, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {"sliding_window": WINDOW, "use_bias": True},
}


def tiny(model_type: str):
    fields = {**_SIZE, **CASES[model_type]}
    options = {"attn_implementation": fields.pop("attn_implementation", "sdpa")}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **fields), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    turn_dropout_off(model)
    return model.train()


@pytest.mark.parametrize("model_type", CASES)
def test_text_decoder_as_a_tree_equals_one_response_at_a_time(model_type):
    model = tiny(model_type)
    trees = random_trees(VOCABULARY, prompts=[13, 3, 7], responses=[[5, 11], [2, 3, 7], [1]])
    batch = collate(trees, family_of(model.config), pad_id=1)
    expected = yardstick(model, trees, batch)
    expected_gradients = gradients(model, expected)
    for engine in ("tree", "flat"):
        logps = Policy(model, engine=engine)(batch)
        assert_same_logps(logps, expected)
        assert_same_gradients(gradients(model, logps), expected_gradients)


def test_every_text_decoder_of_the_table_has_a_case():
    inside_vision_models = {name for name in BACKBONES if name.endswith("vl_text")}
    assert set(CASES) | inside_vision_models == set(BACKBONES)


@pytest.mark.parametrize("model_type", ["mistral", "gemma3_text"])
def test_the_window_of_these_cases_cuts(model_type):
    """Guards the cases above: with a window as wide as the row, the numbers would be others."""
    model = tiny(model_type)
    trees = random_trees(VOCABULARY, prompts=[13], responses=[[5, 11]])
    policy = Policy(model, engine="tree")
    batch = collate(trees, policy.family, pad_id=1)
    narrow = policy(batch)
    model.config.sliding_window = 100
    assert (policy(batch) - narrow).abs().max() > 1e-2
