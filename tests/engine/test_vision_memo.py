"""Sharing a frozen tower changes nothing but the number of times it runs."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import pytest
import torch
from prompt_rows import ids, rows_of, video_rows_of
from torch import Tensor, nn

from mmalign.engine.families import families_with_videos
from mmalign.engine.load import load_model
from mmalign.engine.parts import add_lora, freeze_parts
from mmalign.engine.policy import Policy
from mmalign.engine.reference import AdapterOff, FrozenCopy
from mmalign.engine.tower import towers_of
from mmalign.engine.tree import TreeBatch, collate
from mmalign.engine.vision_memo import VisionMemo
from mmalign.miniature import models

QWEN = [name for name in models.VISION_FAMILIES if name.startswith("qwen")]


def keyed(trees) -> list:
    """Give every row with media a key, as the tokeniser does."""
    return [
        tree.__class__(**(vars(tree) | {"media_key": f"{n:032x}" if tree.media else None}))
        for n, tree in enumerate(trees)
    ]


def setup(directory, *, freeze=("vision", "projector"), engine="tree") -> tuple[Policy, TreeBatch]:
    model = load_model(directory)
    policy = Policy(model, engine=engine)
    freeze_parts(policy.base, policy.family, freeze)
    return policy, collate(keyed(rows_of(directory, model.config)), policy.family, pad_id=2)


def move(policy: Policy) -> None:
    """Take the policy away from the start, where it equals its reference."""
    torch.manual_seed(3)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.01 * torch.randn_like(parameter))


def step(policy: Policy, reference, batch: TreeBatch, memo: VisionMemo | None) -> list[Tensor]:
    """Return log-probs of both and all gradients of the policy."""
    policy.zero_grad()
    with memo.batch(batch) if memo else contextlib.nullcontext():
        reference_logps = reference(batch)
        logps = policy(batch)
    (logps * torch.linspace(0.5, 1.5, logps.numel()).view_as(logps)).sum().backward()
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    return [reference_logps, logps.detach(), *(gradient.clone() for gradient in gradients)]


class Counter:
    """Counts how often a tower runs, with a hook on a layer inside it that the memo knows nothing of."""

    def __init__(self, policy: Policy) -> None:
        tower = policy.base.get_submodule(policy.family.vision[0])
        self.count = 0
        normalisation = next(
            m for name, m in tower.named_modules() if isinstance(m, nn.Linear) and "merger" not in name
        )
        normalisation.register_forward_hook(self._note)

    def _note(self, *_) -> None:
        self.count += 1


def bit_identical(given: list[Tensor], expected: list[Tensor]) -> bool:
    return len(given) == len(expected) and all(map(torch.equal, given, expected))


@pytest.mark.parametrize("freeze", [("vision", "projector"), ("vision",)], ids=["tower and projector", "tower"])
@pytest.mark.parametrize("name", models.VISION_FAMILIES)
def test_policy_and_frozen_copy_run_the_tower_once_with_identical_bits(tiny_model, name, freeze):
    policy, batch = setup(tiny_model(name), freeze=freeze)
    reference = FrozenCopy.of_start(policy)
    move(policy)
    runs = Counter(policy)
    expected = step(policy, reference, batch, None)
    assert runs.count == 2

    memo = VisionMemo([policy.base, *reference.models], policy.family)
    assert memo.reason is None
    assert bit_identical(step(policy, reference, batch, memo), expected)
    assert runs.count == 3 and memo.tower_runs == 1


@pytest.mark.parametrize(
    ("name", "engine"), [(name, "tree") for name in families_with_videos()] + [("llava_onevision", "flat")]
)
def test_videos_are_encoded_once_a_batch_and_once_a_data_set(tiny_model, tmp_path, name, engine):
    """Two videos; a video and a picture; text; a picture: where the kinds go apart, a row with both is asked twice."""
    directory = tiny_model(name)
    policy, _ = setup(directory, freeze=("vision",), engine=engine)
    batch = collate(keyed(video_rows_of(directory, policy.base.config, tmp_path)), policy.family, pad_id=2)
    reference = FrozenCopy.of_start(policy)
    move(policy)
    calls = 2 if policy.family.videos == "apart" else 1
    runs = Counter(policy)
    expected = step(policy, reference, batch, None)
    assert runs.count == 2 * calls
    uses = [policy.base, *reference.models]
    assert bit_identical(step(policy, reference, batch, VisionMemo(uses, policy.family)), expected)
    assert runs.count == 3 * calls

    cached = step(policy, reference, batch, VisionMemo(uses, policy.family, cache_dir=tmp_path / "cache"))
    assert runs.count == 3 * calls + (3 if calls == 1 else 4)
    again = step(policy, reference, batch, VisionMemo(uses, policy.family, cache_dir=tmp_path / "cache"))
    assert runs.count == 3 * calls + (3 if calls == 1 else 4)
    assert bit_identical(again, cached)
    for given, wanted in zip(cached, expected, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "gemma3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapter_off_shares_the_tower_also_with_gradient_checkpointing(tiny_model, name, checkpointing):
    directory = tiny_model(name)
    model = load_model(directory)
    model = add_lora(model, Policy(model).family, rank=2, alpha=4, parts=("language",))
    policy = Policy(model)
    if checkpointing:
        policy.base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    batch = collate(keyed(rows_of(directory, policy.base.config)), policy.family, pad_id=2)
    reference = AdapterOff(policy)
    move(policy)
    runs = Counter(policy)
    expected = step(policy, reference, batch, None)
    memo = VisionMemo([policy.base, *reference.models], policy.family)
    before = runs.count
    assert bit_identical(step(policy, reference, batch, memo), expected)
    assert runs.count == before + 1


@pytest.mark.parametrize("name", models.VISION_FAMILIES)
@pytest.mark.parametrize("engine", ["tree", "flat"])
def test_a_second_epoch_with_a_cache_runs_no_tower(tiny_model, tmp_path, name, engine):
    policy, batch = setup(tiny_model(name), freeze=("vision",), engine=engine)
    reference = FrozenCopy.of_start(policy)
    move(policy)
    expected = step(policy, reference, batch, None)
    runs = Counter(policy)
    uses = [policy.base, *reference.models]
    first = step(policy, reference, batch, VisionMemo(uses, policy.family, cache_dir=tmp_path))
    assert runs.count == sum(key is not None for key in batch.media_keys)
    second = step(policy, reference, batch, VisionMemo(uses, policy.family, cache_dir=tmp_path))
    assert runs.count == sum(key is not None for key in batch.media_keys)
    assert bit_identical(second, first)
    for given, wanted in zip(first, expected, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_a_row_is_found_again_beside_other_rows(tiny_model, tmp_path):
    directory = tiny_model("qwen2_5_vl")
    policy, batch = setup(directory)
    trees = keyed(rows_of(directory, policy.base.config))
    runs = Counter(policy)
    memo = VisionMemo([policy.base], policy.family, cache_dir=tmp_path)
    for part in (batch, collate(trees[1:2], policy.family, pad_id=2), collate(trees[::-1], policy.family, pad_id=2)):
        expected = policy(part)
        already = runs.count
        with memo.batch(part):
            torch.testing.assert_close(policy(part), expected, rtol=1e-5, atol=1e-5)
        assert runs.count - already == (2 if part is batch else 0)


def test_other_weights_of_the_tower_find_nothing_in_the_cache(tiny_model, tmp_path):
    for seed in (0, 1):
        policy, batch = setup(tiny_model("qwen2_5_vl", seed=seed))
        memo = VisionMemo([policy.base], policy.family, cache_dir=tmp_path)
        with memo.batch(batch):
            policy(batch)
        assert memo.tower_runs == 2


def test_autocast_and_plain_runs_do_not_share_cached_features(tiny_model, tmp_path):
    policy, batch = setup(tiny_model("qwen2_5_vl"))
    runs = []
    for autocast in (contextlib.nullcontext, lambda: torch.autocast("cpu", dtype=torch.bfloat16)):
        memo = VisionMemo([policy.base], policy.family, cache_dir=tmp_path, autocast=autocast)
        with memo.batch(batch), autocast():
            policy(batch)
        runs.append(memo.tower_runs)
    assert runs == [2, 2]


def test_batches_without_media_and_with_other_images_do_not_meet(tiny_model):
    directory = tiny_model("llava")
    policy, batch = setup(directory)
    trees = keyed(rows_of(directory, policy.base.config))
    reference = FrozenCopy.of_start(policy)
    memo = VisionMemo([policy.base, *reference.models], policy.family)
    for part in (trees[:1], trees[1:2], trees[2:]):
        small = collate(part, policy.family, pad_id=2)
        expected = step(policy, reference, small, None)
        assert bit_identical(step(policy, reference, small, memo), expected)
    assert memo.tower_runs == 2


def test_models_are_untouched_outside_of_the_block(tiny_model):
    policy, batch = setup(tiny_model("qwen3_vl"), freeze=("vision",))
    reference = FrozenCopy.of_start(policy)
    memo = VisionMemo([policy.base, *reference.models], policy.family)
    with contextlib.suppress(ZeroDivisionError), memo.batch(batch):
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in policy.modules())


def test_a_trained_tower_is_not_shared_and_the_log_says_why(tiny_model, caplog):
    policy, _ = setup(tiny_model("llava"), freeze=())
    with caplog.at_level(logging.INFO):
        memo = VisionMemo([policy.base, policy.base], policy.family)
    assert memo.reason == "model.vision_tower is trained"
    assert "vision sharing: off, model.vision_tower is trained" in caplog.text


def test_an_adapter_in_the_tower_switches_sharing_off(tiny_model):
    model = load_model(tiny_model("qwen2_5_vl"))
    model = add_lora(model, Policy(model).family, rank=2, alpha=4, parts=("language", "vision"))
    policy = Policy(model)
    model.requires_grad_(False)
    assert "carries an adapter" in VisionMemo([policy.base, policy.base], policy.family).reason


def test_dropout_in_the_tower_switches_sharing_off(tiny_model):
    policy, _ = setup(tiny_model("llava"))
    attention = next(m for m in policy.base.model.vision_tower.modules() if hasattr(m, "dropout"))
    attention.dropout = 0.25
    assert "drops 25% at random" in VisionMemo([policy.base, policy.base], policy.family).reason
    policy.eval()
    assert VisionMemo([policy.base, policy.base], policy.family).reason is None


def test_a_tower_used_once_and_a_model_without_tower_say_so(tiny_model):
    policy, _ = setup(tiny_model("llava"))
    assert VisionMemo([policy.base], policy.family).reason == "only one model of the step runs it, once"
    text = Policy(load_model(tiny_model("llama")))
    assert VisionMemo([text.base], text.family).reason == "the model has no vision tower"


@pytest.mark.parametrize("name", QWEN)
def test_a_trained_merger_leaves_the_blocks_in_front_of_it_shared(tiny_model, name):
    policy, _ = setup(tiny_model(name), freeze=("vision",))
    (tower,) = towers_of(policy.base, policy.family)
    assert tower.name == "model.visual.blocks"
    assert tower.kept == ((0, 1) if name == "qwen3_vl" else (1,))


def test_a_still_that_is_asked_about_as_a_video_too_runs_the_tower_twice(tiny_model, tmp_path):
    """Its patches are those of the picture; other ranks, whose two questions differ, wait for two runs."""
    directory = tiny_model("qwen2_5_vl")
    policy, _ = setup(directory)
    config, picture = policy.base.config, video_rows_of(directory, policy.base.config, tmp_path)[3]
    places = (picture.prompt_ids == config.image_token_id).nonzero().flatten().tolist()
    shown = picture.prompt_ids[places[0] - 1 : places[-1] + 2]
    as_video = shown.masked_fill(shown == config.image_token_id, config.video_token_id)
    media = {"pixel_values_videos": picture.media["pixel_values"], "video_grid_thw": picture.media["image_grid_thw"]}
    both = replace(picture, prompt_ids=torch.cat([shown, as_video, ids(5)]), media=picture.media | media)
    memo = VisionMemo([policy.base] * 2, policy.family)
    batch = collate([both], policy.family, pad_id=2)
    with memo.batch(batch), torch.no_grad():
        assert torch.equal(policy(batch), policy(batch))
    assert memo.tower_runs == 2
