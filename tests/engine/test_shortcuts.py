"""Shortcuts change no number that is read, and hold for one forward only."""

from __future__ import annotations

import contextlib

import pytest
import torch
from prompt_rows import rows_of

from mmalign.engine import forward
from mmalign.engine.load import load_model
from mmalign.engine.policy import Policy
from mmalign.engine.tree import TreeBatch, collate


def setup(directory) -> tuple[Policy, TreeBatch]:
    model = load_model(directory)
    policy = Policy(model, engine="tree")
    return policy, collate(rows_of(directory, model.config), policy.family, pad_id=2)


def run(policy: Policy, batch: TreeBatch) -> list[torch.Tensor]:
    policy.zero_grad()
    logps = policy(batch)
    (logps * torch.linspace(0.5, 1.5, logps.numel()).view_as(logps)).sum().backward()
    return [logps.detach(), *(p.grad.clone() for p in policy.parameters() if p.grad is not None)]


@contextlib.contextmanager
def rows_seen(module: torch.nn.Module):
    seen: list[int] = []
    hook = module.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    linear = next(m for m in module.modules() if isinstance(m, torch.nn.Linear))
    inside = linear.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    yield seen
    hook.remove()
    inside.remove()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl", "llava", "gemma3", "llama"])
def test_values_and_gradients_are_those_of_the_whole_forward(tiny_model, monkeypatch, name):
    policy, batch = setup(tiny_model(name))
    short = run(policy, batch)
    monkeypatch.setattr(forward, "shortcuts", lambda *_: contextlib.nullcontext())
    whole = run(policy, batch)
    assert len(short) == len(whole)
    for given, expected in zip(short, whole, strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-5, atol=2e-6 * float(expected.abs().max()) + 1e-7)


def test_the_last_layer_works_on_positions_that_predict_something(tiny_model):
    policy, batch = setup(tiny_model("qwen2_5_vl"))
    predicting = {*zip(batch.target_rows.tolist(), batch.predicting_columns.tolist(), strict=True)}
    layers = policy.inner.language_model.layers
    with rows_seen(layers[-1].mlp) as last, rows_seen(layers[0].mlp) as first:
        policy(batch)
    assert last == [len(predicting), batch.input_ids.numel()]
    assert first == [batch.input_ids.numel()] * 2


def test_a_layer_that_is_run_again_in_backward_is_left_as_it_is(tiny_model):
    policy, batch = setup(tiny_model("qwen2_5_vl"))
    expected = run(policy, batch)
    policy.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with rows_seen(policy.inner.language_model.layers[-1].mlp) as last:
        given = run(policy, batch)
    assert set(last) == {batch.input_ids.numel()}
    for left, right in zip(given, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=2e-6 * float(right.abs().max()) + 1e-7)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_the_patch_embedding_is_a_matrix_product(tiny_model, monkeypatch, name):
    policy, batch = setup(tiny_model(name))
    calls = []
    monkeypatch.setattr(torch.nn.functional, "conv3d", lambda *a, **k: calls.append(a))
    policy(batch)
    assert calls == []


def test_models_are_untouched_outside_of_a_forward(tiny_model):
    policy, batch = setup(tiny_model("qwen2_5_vl"))
    run(policy, batch)
    assert not any("forward" in vars(module) for module in policy.modules())
