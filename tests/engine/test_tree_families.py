"""For every family: a tree gives what separate rows give, in every log-prob and in every gradient.

Three ways of computing the same numbers: the tree, the flat engine, and one response at a time through the model's own
forward (`prompt_rows.yardstick`), which shares no code with the engine.
"""

import pytest
import torch
from prompt_rows import Tree, rows_of, video_rows_of, yardstick
from torch import Tensor, nn

from mmalign.engine.families import FAMILIES, families_with_videos
from mmalign.engine.load import load_model
from mmalign.engine.parts import add_lora, checkpoint_activations
from mmalign.engine.policy import Policy
from mmalign.engine.tree import TreeBatch, collate
from mmalign.miniature import models

# Sums of log-probs are 20 to 110, gradients up to 1e5 (Gemma's scaled embedding): rounding of fp32 is relative.
RELATIVE, ABSOLUTE = 1e-6, 1e-5
KERNELS = {"gemma2": ("eager",)}


def cases() -> list[tuple[str, str]]:
    return [(name, kernel) for name in models.FAMILIES for kernel in KERNELS.get(name, ("sdpa", "eager"))]


def loss_of(logps: Tensor) -> Tensor:
    """Weigh every token differently, so that no two errors cancel."""
    weights = torch.linspace(0.5, 1.5, logps.numel()).view_as(logps)
    return -(logps * weights).sum() / (logps != 0).sum()


def gradients(model: nn.Module, logps: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss_of(logps).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert given.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(
            given[name], gradient, rtol=1e-5, atol=RELATIVE * largest, msg=lambda text, name=name: f"{name}: {text}"
        )


def assert_same_logps(given: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(given, expected, rtol=RELATIVE, atol=ABSOLUTE)
    torch.testing.assert_close(given.sum(-1), expected.sum(-1), rtol=RELATIVE, atol=ABSOLUTE)


def assert_engine_is_exact(
    model: nn.Module, engine: str, batch: TreeBatch, expected: Tensor, expected_gradients
) -> None:
    logps = Policy(model, engine=engine)(batch)
    assert_same_logps(logps, expected)
    assert_same_gradients(gradients(model, logps), expected_gradients)


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize(("name", "kernel"), cases())
def test_tree_equals_flat_equals_one_response_at_a_time(tiny_model, name, kernel, adapters):
    model = load_model(tiny_model(name), attn_implementation=kernel)
    assert_all_ways_are_one(model, rows_of(tiny_model(name), model.config), [2, 3, 5], adapters)


@pytest.mark.parametrize(
    ("name", "kernel", "adapters"),
    [(name, "sdpa", adapters) for name in families_with_videos() for adapters in (False, True)]
    + [(name, "eager", False) for name in ("qwen2_5_vl", "internvl")],
)
def test_videos_images_and_text_in_one_batch_make_the_same_tree(tiny_model, tmp_path, name, kernel, adapters):
    model = load_model(tiny_model(name), attn_implementation=kernel)
    assert_all_ways_are_one(model, video_rows_of(tiny_model(name), model.config, tmp_path), [2, 3, 5, 2], adapters)


def assert_all_ways_are_one(base: nn.Module, trees: list[Tree], responses: list[int], adapters: bool) -> None:
    """Compare tree, flat, and tree with checkpointing against the yardstick; `responses` are those of every row."""
    model = with_random_lora(base) if adapters else base
    batch = collate(trees, Policy(model).family, pad_id=2)
    assert batch.response_mask.any(-1).sum(1).tolist() == responses
    expected = yardstick(base, trees, batch)
    expected_gradients = gradients(model, expected)
    assert_engine_is_exact(model, "tree", batch, expected, expected_gradients)
    assert_engine_is_exact(model, "flat", batch, expected, expected_gradients)
    checkpoint_activations(base)
    assert_engine_is_exact(model, "tree", batch, expected, expected_gradients)


def with_random_lora(base: nn.Module) -> nn.Module:
    """Return the model with adapters in all its parts that are away from their start, where B is zero."""
    policy = Policy(base)
    model = add_lora(base, policy.family, rank=3, alpha=6, parts=tuple(policy.family.parts))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", models.VISION_FAMILIES)
def test_every_family_of_the_issue_runs_as_a_tree_and_trains_all_its_parts(tiny_model, name):
    directory = tiny_model(name)
    model = load_model(directory)
    policy = Policy(model, engine="auto")
    assert policy.engine == "tree"
    assert name in FAMILIES
    batch = collate(rows_of(directory, model.config), policy.family, pad_id=2)
    moved = {n for n, gradient in gradients(model, policy(batch)).items() if gradient.abs().max() > 0}
    for part, prefixes in policy.family.parts.items():
        for prefix in prefixes:
            assert any(n == prefix or n.startswith(prefix + ".") for n in moved) or prefix == "lm_head", (part, prefix)
