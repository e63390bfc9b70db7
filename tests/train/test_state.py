"""Weights, optimiser and random states come back bit for bit."""

import random

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mmalign.errors import CheckpointError
from mmalign.train.state import (
    load_memory,
    load_model,
    load_optimizer,
    load_random_states,
    save_memory,
    save_model,
    save_optimizer,
    save_random_states,
)


def test_memory_comes_back_as_it_was(tmp_path):
    memory = {
        "bco": {"reward_total": torch.tensor(0.1, dtype=torch.float64)},
        "lcpo_2": {"annotators": torch.tensor([3, 2**40]), "reliabilities": torch.tensor([0.5, 0.9])},
    }
    save_memory(memory, tmp_path / "memory.safetensors")
    again = load_memory(tmp_path / "memory.safetensors")
    assert again.keys() == memory.keys()
    for part, held in memory.items():
        assert_same(held, again[part])


def tiny(seed=0, *, lora=False, tied=True, hidden_size=8):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=13,
        hidden_size=hidden_size,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    return model


def train(model, optimizer, steps):
    ids = torch.arange(11)[None] % 13
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def adamw(model):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=0.01, fused=True)


@pytest.mark.parametrize("kind", [{}, {"tied": False}, {"lora": True}])
def test_training_goes_on_bit_for_bit_from_what_was_saved(tmp_path, kind):
    straight = tiny(**kind)
    optimizer = adamw(straight)
    train(straight, optimizer, 3)
    save_model(straight, tmp_path / "model")
    save_optimizer(optimizer, straight, tmp_path / "optimizer.safetensors")
    train(straight, optimizer, 3)

    resumed = tiny(**kind)
    optimizer = adamw(resumed)
    load_model(resumed, tmp_path / "model")
    load_optimizer(optimizer, resumed, tmp_path / "optimizer.safetensors")
    train(resumed, optimizer, 3)
    assert_same(weights(straight), weights(resumed))


def test_a_saved_model_also_loads_with_from_pretrained(tmp_path):
    model = tiny(seed=3)
    save_model(model, tmp_path)
    assert_same(weights(model), weights(AutoModelForCausalLM.from_pretrained(tmp_path)))


def test_weights_of_another_model_are_refused(tmp_path):
    save_model(tiny(), tmp_path / "plain")
    save_model(tiny(lora=True), tmp_path / "lora")
    with pytest.raises(CheckpointError, match="another model: missing .*lora_A"):
        load_model(tiny(lora=True), tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"has shape \(13, 8\), the model's has \(13, 16\)"):
        load_model(tiny(hidden_size=16), tmp_path / "plain")


def test_an_optimiser_of_other_weights_is_refused(tmp_path):
    model = tiny()
    optimizer = adamw(model)
    train(model, optimizer, 1)
    save_optimizer(optimizer, model, tmp_path / "optimizer.safetensors")
    model.model.embed_tokens.requires_grad_(False)
    with pytest.raises(CheckpointError, match="optimises other weights"):
        load_optimizer(adamw(model), model, tmp_path / "optimizer.safetensors")


def test_generators_go_on_where_they_were(tmp_path):
    random.gauss(0, 1), np.random.standard_normal()
    save_random_states(tmp_path / "rng.safetensors")
    drawn = random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(3)
    load_random_states(tmp_path / "rng.safetensors")
    again = random.random(), random.gauss(0, 1), np.random.standard_normal(), torch.rand(3)
    assert drawn[:3] == again[:3] and torch.equal(drawn[3], again[3])
