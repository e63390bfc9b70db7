"""Two ranks, one of them with text only, give the gradients of one process: replicated (DDP) and sharded (FSDP2)."""

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from prompt_rows import rows_of
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mmalign.engine import policy as policy_module
from mmalign.engine.policy import Policy, load_policy
from mmalign.engine.tree import TreeBatch, collate

NAMES = ("qwen2_5_vl", "llava")


def shards_of(directory: Path, policy: Policy) -> list[TreeBatch]:
    """Return a batch with three images, and one with none."""
    trees = rows_of(directory, policy.base.config)
    return [collate(rows, policy.family, pad_id=2) for rows in (trees[:2], trees[2:])]


def replicated(policy: Policy) -> torch.nn.Module:
    return DistributedDataParallel(policy, broadcast_buffers=False)


def sharded(policy: Policy) -> torch.nn.Module:
    layers = [module for module in policy.modules() if type(module).__name__ in policy._no_split_modules]
    for layer in layers:
        fully_shard(layer)
    return fully_shard(policy)


def full(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def one_process(directory: Path) -> dict[str, torch.Tensor]:
    policy = load_policy(directory)
    for batch in shards_of(directory, policy):
        (policy(batch).sum() / 2).backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}


def rank_of_two(rank: int, port: int, directories: list[Path]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    expected = [one_process(directory) for directory in directories]
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for directory, gradients in zip(directories, expected, strict=True):
        for wrap in (replicated, sharded):
            policy = load_policy(directory, gradient_checkpointing=True)
            batch = shards_of(directory, policy)[rank]
            wrapped = wrap(policy)
            for _ in range(2):  # DDP finds out on the second step that a gradient never came
                wrapped.zero_grad()
                wrapped(batch).sum().backward()
            given = {name: full(p.grad) for name, p in policy.named_parameters() if p.requires_grad}
            assert given.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(given[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_rank_without_images_keeps_step_with_one_that_has_them(tiny_model):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(rank_of_two, args=(port, [tiny_model(name) for name in NAMES]), nprocs=2)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("qwen2_5_vl", {"Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock"}),
        ("llava", {"CLIPEncoderLayer", "CLIPVisionEmbeddings", "LlamaDecoderLayer"}),
    ],
)
def test_layers_to_shard_are_named_only_when_the_model_has_them(tiny_model, name, layers):
    assert set(load_policy(tiny_model(name))._no_split_modules) == layers


def test_the_blank_image_runs_before_the_language_model(tiny_model, monkeypatch):
    """Sharded weights are gathered in the order of use, which must be the same on ranks with and without images."""
    monkeypatch.setattr(policy_module, "_runs_in_several_processes", lambda: True)
    policy, order = load_policy(tiny_model("llava")), []
    policy.inner.vision_tower.register_forward_pre_hook(lambda *_: order.append("vision"))
    policy.inner.language_model.register_forward_pre_hook(lambda *_: order.append("language"))
    for batch in shards_of(tiny_model("llava"), policy):
        policy(batch)
    assert order == ["vision", "language"] * 2
