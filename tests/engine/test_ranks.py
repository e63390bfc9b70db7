"""Two ranks, with other media or with none, give the gradients of one process: with DDP and with FSDP2."""

import datetime
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import finish_ranks
from prompt_rows import Tree, rows_of, video_rows_of
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from mmalign.engine import policy as policy_module
from mmalign.engine.policy import Policy, load_policy
from mmalign.engine.tree import TreeBatch, collate
from mmalign.engine.vision_memo import VisionMemo

CASES = [
    ("qwen2_5_vl", "images | text", "off"),
    ("llava", "images | text", "off"),
    ("qwen2_5_vl", "videos | text", "off"),
    ("qwen2_5_vl", "video, image | image", "off"),
    ("llava_onevision", "video, image | text, image", "off"),
    ("internvl", "videos | text", "off"),
    ("qwen2_5_vl", "video, image | text", "batch"),
    ("llava_onevision", "video, image | text", "batch"),
    ("qwen2_5_vl", "video, image | image", "data set"),
]
"""Model, what each rank reads, and for how long a frozen tower's answers are kept; off: it is trained."""


def shards_of(directory: Path, policy: Policy, which: str, root: Path) -> list[TreeBatch]:
    """Return what each rank reads."""
    if which == "images | text":
        trees = rows_of(directory, policy.base.config)
        shards = [trees[:2], trees[2:]]
    else:
        videos, both, text, image = video_rows_of(directory, policy.base.config, root)
        shards = {
            "video, image | text": [[both], [text]],
            "videos | text": [[videos], [text]],
            "video, image | image": [[both], [image]],
            "video, image | text, image": [[videos, both], [text, image]],
        }[which]
    return [collate([with_key(row) for row in rows], policy.family, pad_id=2) for rows in shards]


def with_key(row: Tree) -> Tree:
    """Name the media of a row, as the tokeniser does."""
    return replace(row, media_key="ab12" if row.media else None)


def replicated(policy: Policy) -> torch.nn.Module:
    return DistributedDataParallel(policy, broadcast_buffers=False)


def sharded(policy: Policy) -> torch.nn.Module:
    layers = [module for module in policy.modules() if type(module).__name__ in policy._no_split_modules]
    for layer in layers:
        fully_shard(layer)
    return fully_shard(policy)


def full(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def frozen(share: str) -> tuple[str, ...]:
    return () if share == "off" else ("vision", "projector")


def one_process(directory: Path, which: str, share: str, root: Path) -> dict[str, torch.Tensor]:
    policy = load_policy(directory, freeze=frozen(share))
    for batch in shards_of(directory, policy, which, root):
        (policy(batch).sum() / 2).backward()
    return {name: p.grad for name, p in policy.named_parameters() if p.requires_grad}


def rank_of_two(cases: list[tuple[Path, str, str]], expected: list[Path], root: Path) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank = dist.get_rank()
    root = root / str(rank)
    root.mkdir()
    torch.set_num_threads(1)
    for number, ((directory, which, share), path) in enumerate(zip(cases, expected, strict=True)):
        gradients = load_file(path)
        for wrap in (replicated, sharded):
            policy = load_policy(directory, gradient_checkpointing=True, freeze=frozen(share))
            batch = shards_of(directory, policy, which, root)[rank]
            cache = root / f"{number}-{wrap.__name__}" if share == "data set" else None
            memo = None if share == "off" else VisionMemo([policy.base] * 2, policy.family, cache_dir=cache)
            wrapped = wrap(policy)
            for _ in range(2):  # DDP finds out on the second step that a gradient never came
                wrapped.zero_grad()
                step(wrapped, batch, memo)
            given = {name: full(p.grad) for name, p in policy.named_parameters() if p.requires_grad}
            assert given.keys() == gradients.keys()
            for name, gradient in gradients.items():
                torch.testing.assert_close(given[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))
    dist.destroy_process_group()


def step(policy: torch.nn.Module, batch: TreeBatch, memo: VisionMemo | None) -> None:
    """Go forward as a reference, where answers are kept, and as the policy, and backward."""
    with nullcontext() if memo is None else memo.batch(batch):
        if memo is not None:
            with torch.no_grad():
                policy(batch)
        logps = policy(batch)
    logps.sum().backward()


@pytest.mark.slow
def test_a_rank_keeps_step_with_one_that_has_other_media(tiny_model, tmp_path):
    cases = [(tiny_model(name), which, share) for name, which, share in CASES]
    expected = [tmp_path / f"{number}.safetensors" for number in range(len(cases))]
    for case, path in zip(cases, expected, strict=True):
        save_file(one_process(*case, tmp_path), path)
    finish_ranks(rank_of_two, (cases, expected, tmp_path), tmp_path)


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
    for batch in shards_of(tiny_model("llava"), policy, "images | text", Path()):
        policy(batch)
    assert order == ["vision", "language"] * 2
