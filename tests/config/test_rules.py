"""Combinations that cannot work are refused by name."""

import re

import pytest

from mmalign.config.rules import RULES
from mmalign.errors import ConfigError

CASES = [
    (["recipe=sft"], "r.yaml:13: objective.0.name: recipe 'sft' cannot train on 'dpo'; write `recipe: preference`"),
    (["recipe=sft"], "r.yaml:4: model.reference: recipe 'sft' uses no reference; remove it"),
    (["recipe=sft", "model.precompute_reference=true"], "model.precompute_reference: recipe 'sft' uses no reference"),
    (["objective=[]"], "objective: recipe 'preference' needs at least one; add `- {name: dpo, beta: 0.1}`"),
    (["model.freeze=[language]"], "model.freeze: part 'language' is both frozen and in model.lora.parts"),
    (["model.lora=null", "model.freeze=[vision, projector, language]"], "model.freeze: all parts are frozen"),
    (
        ["model.lora=null", "model.quantize=4bit"],
        "model.quantize: '4bit' without model.lora trains nothing; add `lora:",
    ),
    (["engine=tree", "model.attn_implementation=flash_attention_2"], "engine: 'tree' cannot run with model.attn_impl"),
    (["vision.cache_max_gb=3"], "vision.cache_max_gb: limits no cache; set vision.cache_dir too"),
    (["vision.cache_dir=c", "vision.share=off"], "vision.share: 'off' contradicts vision.cache_dir"),
    (
        ["vision.cache_dir=c", "model.lora=null", "model.freeze=[]"],
        "vision.cache_dir: features cannot be cached while the vision tower is trained; add vision to model.freeze",
    ),
    (
        ["model.lora=null", "model.adapter=a"],
        "model.adapter: goes on with an adapter, but model.lora is missing; give the settings it was made with",
    ),
    (["data.relabel=[{how: swp}]"], "data.relabel.0.how: how 'swp' is no relabelling; did you mean 'swap'? known are"),
    (["data.select={}"], "data.select: selects by nothing; name one of pair, difficulty, score_gap, tags"),
    (["data.select={difficulty: {}}"], "data.select.difficulty: has no bound; give above, at_least, below or at_most"),
    (
        ["data.select={score_gap: {above: 2.0, below: 1.0}}"],
        "data.select.score_gap: above 2, below 1 leaves no number; mend one of the two",
    ),
    (["data.min_pixels=500000"], "r.yaml:11: data.max_pixels: 401408 is less than data.min_pixels 500000; raise it to"),
    (
        ["data.video.min_pixels=5000", "data.video.max_pixels=4000"],
        "data.video.max_pixels: 4000 is less than data.video.min_pixels 5000; raise it to 5000 or more",
    ),
    (
        ["data.video.min_pixels=5000", "data.video.max_total_pixels=4000"],
        "data.video.max_total_pixels: 4000 is less than data.video.min_pixels 5000; raise it to 5000 or more",
    ),
    (
        ["data.video.sampling=uniform", "data.video.fps=3.0"],
        "data.video.fps: 3 is not read by data.video.sampling 'uniform'; remove it, or use sampling: fps",
    ),
    (
        ["data.video.sampling=keyframes", "data.video.fps=2.0"],
        "data.video.fps: 2 is not read by data.video.sampling 'keyframes'; remove it, or use sampling: fps",
    ),
    (["data.video.cache_max_gb=3"], "data.video.cache_max_gb: limits no cache; set data.video.cache_dir too"),
    (["train.max_steps=5", "train.num_train_epochs=1"], "train.max_steps: 5, and train.num_train_epochs 1, both set"),
    (
        ["train.warmup_steps=5", "train.warmup_ratio=0.1"],
        "train.warmup_ratio: 0.1, and train.warmup_steps 5, both set the warmup; keep one",
    ),
    (
        ["train.lr_scheduler_type=constant", "train.warmup_steps=5"],
        "train.lr_scheduler_type: 'constant' has no warmup; use constant_with_warmup, or remove the warmup",
    ),
    (["data.eval=null", "train.eval_steps=5"], "train.eval_steps: evaluates on nothing; set data.eval"),
    (
        ["data.eval=null", "train.per_device_eval_batch_size=5"],
        "train.per_device_eval_batch_size: evaluates on nothing",
    ),
    (
        ["recipe=sft", "model.reference_update={kind: sync, every_steps: 4}"],
        "model.reference_update: recipe 'sft' uses no reference; remove it",
    ),
    (
        ["model.precompute_reference=true", "model.reference_update={kind: sync, every_steps: 4}"],
        "model.reference_update: a table of model.precompute_reference cannot follow the policy; remove one of the two",
    ),
    (
        ["model.reference=other", "model.reference_update={kind: sync, every_steps: 4}"],
        "model.reference_update: model.reference has no adapter that could follow that of model.lora; leave out",
    ),
    (
        ["model.reference_update={kind: sync, every_steps: 4, mixup_alpha: 0.5}"],
        "model.reference_update.mixup_alpha: kind 'sync' takes over all of the policy; use kind: ema, or remove it",
    ),
]


@pytest.mark.parametrize(("overrides", "message"), CASES, ids=[message[:40] for _, message in CASES])
def test_an_impossible_combination_is_refused(load_with, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_with(*overrides)


def test_all_broken_rules_are_named_at_once(load_with):
    with pytest.raises(ConfigError) as caught:
        load_with("recipe=sft", "data.eval=null", "train.eval_steps=5")
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "objective.0.name",
        "model.reference",
        "train.eval_steps",
    ]


def test_the_message_survives_braces_and_percent_signs(load_with):
    with pytest.raises(ConfigError, match=re.escape("{rank: 16}")):
        load_with("model.lora=null", "model.quantize=8bit")


def test_every_rule_has_a_case():
    assert len(RULES) == 15
    assert len(CASES) >= len(RULES)
