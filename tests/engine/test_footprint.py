"""Predicted memory: counted exactly where it can be, compared with the real thing where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmalign.config.load import from_values
from mmalign.config.schema import TeacherConfig
from mmalign.engine.distributions import Distributions, kl_from
from mmalign.engine.footprint import BatchShape, Skeleton, _saved_bytes
from mmalign.engine.footprint_head import Head
from mmalign.engine.head import head_logps
from mmalign.engine.policy import load_policy
from mmalign.miniature import models

SHAPE = BatchShape(rows=2, columns=37, response_tokens=22, media_tokens=0)


def recipe(path: Path, model: dict | None = None, **train):
    return from_values(
        {
            "recipe": "preference",
            "model": {"path": str(path), **(model or {})},
            "data": {"train": "rows.jsonl"},
            "objective": [{"name": "dpo"}],
            "train": {"output_dir": "runs/x", "learning_rate": 1e-5, **train},
        }
    )


def real_policy(path: Path, config):
    return load_policy(path, lora=config.model.lora, freeze=config.model.freeze)


def bytes_of(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("model", [{}, {"freeze": ["vision"]}, {"lora": {"rank": 3}}], ids=["full", "frozen", "lora"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava", "idefics3", "qwen2"])
def test_weights_gradients_and_optimiser_are_counted_exactly(tiny_model, family, model):
    if family == "qwen2" and "freeze" in model:
        model = {}
    path = tiny_model(family)
    config = recipe(path, model)
    predicted = Skeleton(config, str(path)).footprint(SHAPE, needs_reference=True)
    policy = real_policy(path, config)
    trained = bytes_of(p for p in policy.parameters() if p.requires_grad)
    assert predicted.weights == bytes_of(policy.parameters())
    assert predicted.gradients == trained
    assert predicted.optimiser == 2 * trained
    assert predicted.reference == (0 if "lora" in model else trained)
    following = recipe(path, {**model, "reference_update": {"kind": "sync", "every_steps": 5}})
    assert Skeleton(following, str(path)).footprint(SHAPE, needs_reference=True).reference == trained


@pytest.mark.parametrize("model", [{}, {"lora": {"rank": 3}}], ids=["full", "lora"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava", "gemma3", "qwen2"])
def test_what_the_decoder_keeps_is_what_it_really_keeps(tiny_model, family, model):
    path = tiny_model(family)
    config = recipe(path, model)
    skeleton = Skeleton(config, str(path))
    policy = real_policy(path, config)
    decoder, text = policy.inner.get_decoder(), policy.base.config.get_text_config()
    hidden = torch.randn(SHAPE.rows, SHAPE.columns, text.hidden_size, requires_grad=not model)
    mask = torch.ones(SHAPE.rows, 1, SHAPE.columns, SHAPE.columns, dtype=torch.bool)
    if family in ("gemma3", "qwen2", "qwen2_5_vl"):
        mask = dict.fromkeys(text.layer_types, mask)
    places = (3, SHAPE.rows) if family == "qwen2_5_vl" else (SHAPE.rows,)
    with _saved_bytes(decoder) as saved:
        decoder(
            inputs_embeds=hidden,
            attention_mask=mask,
            position_ids=torch.zeros(*places, SHAPE.columns, dtype=torch.long),
            use_cache=False,
        )
    assert skeleton._decoder_bytes(SHAPE) == pytest.approx(sum(saved.values()), rel=0.01)


@pytest.mark.parametrize("family", sorted(models.FAMILIES))
def test_every_family_is_predicted_without_its_weights(tiny_model, family):
    path = tiny_model(family)
    shape = BatchShape(rows=2, columns=60, response_tokens=40, media_tokens=16)
    full, adapters = (
        Skeleton(recipe(path, model), str(path)).footprint(shape, needs_reference=True)
        for model in ({}, {"lora": {"rank": 2}})
    )
    assert adapters.total < full.total


def test_checkpointing_keeps_less_and_a_longer_batch_more(tiny_model):
    path = tiny_model("qwen2_5_vl")

    def activations(columns: int, **train) -> int:
        shape = BatchShape(rows=2, columns=columns, response_tokens=22, media_tokens=0)
        return Skeleton(recipe(path, **train), str(path)).footprint(shape, needs_reference=False).activations

    assert activations(64, gradient_checkpointing=True) < activations(64) < activations(128)


def test_accumulated_gradients_stand_beside_activations(tiny_model):
    path = tiny_model("qwen2")
    once, twice = (
        Skeleton(recipe(path, gradient_accumulation_steps=steps), str(path)).footprint(SHAPE, needs_reference=False)
        for steps in (1, 2)
    )
    assert once.overlap == -min(once.gradients, once.activations)
    assert twice.overlap == 0
    assert twice.total == once.total - once.overlap


def test_nothing_is_allocated_for_a_model_of_any_size(tiny_model, tmp_path):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tiny_model("qwen2"))
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 8192, 28672, 80
    config.num_attention_heads, config.num_key_value_heads, config.vocab_size = 64, 8, 152064
    config.head_dim, config.tie_word_embeddings = 128, True
    config.layer_types = ["full_attention"] * 80
    config.save_pretrained(tmp_path)
    weights = Skeleton(recipe(tmp_path), str(tmp_path)).footprint(SHAPE, needs_reference=False).weights
    # Per layer 2 h^2 + 2 h k + 3 h m with k = 8 x 128; then the embedding, which the head may share.
    layer = 2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672
    assert weights / 4 == pytest.approx(80 * layer + 152064 * 8192, rel=0.03)


_STEP = """
import resource, sys, torch, psutil
from mmalign.config.load import loads
from mmalign.engine.policy import load_policy
from mmalign.engine.reference import AdapterOff, FrozenCopy
from mmalign.engine.tree import collate
from mmalign.engine.tokenise import PromptTree
torch.set_num_threads(1)
config = loads(open(sys.argv[2]).read())
before = psutil.Process().memory_info().rss
policy = load_policy(sys.argv[1], lora=config.model.lora, gradient_checkpointing=config.train.gradient_checkpointing)
reference = AdapterOff(policy) if config.model.lora else FrozenCopy.of_start(policy)
optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], fused=True)
ids = torch.arange(200) % 200 + 10
trees = [PromptTree(id=str(n), prompt_ids=ids, response_ids=(ids[:80], ids[:60]), levels=(0, 1)) for n in range(3)]
batch = collate(trees, policy.family, 0)
for _ in range(2):
    logps = policy(batch) - reference(batch)
    torch.nn.functional.softplus(logps.sum(-1) @ torch.tensor([-0.1, 0.1])).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


@pytest.mark.slow
def test_the_predicted_peak_is_the_measured_one_within_a_fifth(tiny_model, tmp_path):
    from mmalign.config.load import dump

    path = tiny_model("qwen2", scale="bench", layers=4, vocabulary=8192)
    config = recipe(path)
    (tmp_path / "recipe.yaml").write_text(dump(config), encoding="utf-8")
    shape = BatchShape(rows=3, columns=340, response_tokens=420, media_tokens=0)
    predicted = Skeleton(config, str(path)).footprint(shape, needs_reference=True).total
    # glibc then gives freed blocks back, so that resident memory is memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    command = [sys.executable, "-W", "ignore", "-c", _STEP, str(path), str(tmp_path / "recipe.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) == pytest.approx(predicted, rel=0.2)


def test_an_adapter_that_goes_on_costs_a_copy_of_itself_unless_the_bare_model_is_the_reference(tiny_model):
    path = tiny_model("qwen2")
    lora = {"lora": {"rank": 3}}
    model = {**lora, "adapter": "somewhere"}
    predicted = {
        name: Skeleton(recipe(path, values), str(path)).footprint(SHAPE, needs_reference=True)
        for name, values in {"fresh": lora, "goes on": model, "bare": {**model, "reference": str(path)}}.items()
    }
    assert predicted["fresh"].reference == predicted["bare"].reference == 0
    assert predicted["goes on"].reference == predicted["goes on"].gradients > 0


def test_a_model_of_token_rewards_and_another_reference_are_counted_by_their_own_configs(tiny_model):
    """Both may be larger than the policy; in 4 bits their linear layers but the head take 0.53 bytes a weight."""
    path, larger = tiny_model("qwen2"), tiny_model("qwen2", layers=4)
    whole = real_policy(larger, recipe(larger))
    others = {"reference": str(larger), "token_reward": str(larger)}
    predicted = Skeleton(recipe(path, others), str(path)).footprint(SHAPE, needs_reference=True)
    assert predicted.reference == predicted.token_reward == bytes_of(whole.parameters())
    assert Skeleton(recipe(path), str(path)).footprint(SHAPE, needs_reference=True).token_reward == 0
    linears = [m for m in whole.modules() if isinstance(m, nn.Linear) and m is not whole.base.get_output_embeddings()]
    numbers = sum(module.weight.numel() for module in linears)
    small = {**others, "quantize": "4bit", "lora": {"rank": 3}}
    quantized = Skeleton(recipe(path, small), str(path)).footprint(SHAPE, needs_reference=True)
    kept = bytes_of(whole.parameters()) - bytes_of(module.weight for module in linears)
    assert quantized.token_reward == kept + int(0.53 * numbers)


HEAD = Head(width=13, vocabulary=101, gradient=0, state_bytes=4)
HIDDEN_GRADIENT = 4 * HEAD.width * SHAPE.response_tokens


def saved_by(read, *heads):
    """Return the bytes that autograd keeps of what `read` computes, the heads' weights left out."""
    with _saved_bytes(nn.ModuleList(heads)) as saved:
        read()
    return sum(saved.values())


def test_a_distance_from_the_reference_keeps_its_states_as_predicted():
    own, other = (nn.Linear(HEAD.width, HEAD.vocabulary, bias=False) for _ in range(2))
    states, others = (torch.randn(SHAPE.response_tokens, HEAD.width) for _ in range(2))
    states.requires_grad_()
    saved = saved_by(
        lambda: kl_from(Distributions(others, other.weight), Distributions(states, own.weight)), own, other
    )
    shared = bytes_of([states])  # log-probs keep them already
    assert HEAD.reads_bytes(SHAPE, {"reference_kl"}, None) == saved - shared + HIDDEN_GRADIENT


def test_gained_logits_are_kept_for_the_tokens_of_rows_as_they_are():
    own = nn.Linear(HEAD.width, HEAD.vocabulary, bias=False)
    tokens = SHAPE.response_tokens // 2
    difference = torch.randn(tokens, HEAD.width, requires_grad=True)
    targets = torch.arange(tokens)
    saved = saved_by(lambda: head_logps(Distributions(difference, own.weight), targets), own)
    predicted = HEAD.reads_bytes(SHAPE, {"gained_logps"}, None) - HIDDEN_GRADIENT
    assert predicted == pytest.approx(saved, rel=0.05)


def test_a_teachers_tokens_are_kept_as_ids_twice_and_as_log_probs():
    """22 tokens, each 3 ids of 8 bytes twice; 4 log-probs of 4 bytes, three times of the policy and once a model."""
    for contrast, count in ((None, 1), ("other", 2)):
        teacher = TeacherConfig(path="teacher", contrast=contrast, top_k=3)
        predicted = HEAD.reads_bytes(SHAPE, ("teacher_logps", "student_logps"), teacher)
        assert predicted == 22 * (2 * 3 * 8 + 4 * 4 * (3 + count)) + HIDDEN_GRADIENT


def test_what_is_read_of_tokens_comes_on_top_of_log_probs_and_brings_a_second_gradient_of_the_head(tiny_model):
    path = tiny_model("qwen2")
    skeleton = Skeleton(recipe(path), str(path))
    plain = skeleton.footprint(SHAPE, needs_reference=True)
    assert skeleton.footprint(SHAPE, needs_reference=True, reads=("token_reward",)) == plain
    read = skeleton.footprint(SHAPE, needs_reference=True, reads=("reference_kl",))
    text = skeleton.config.get_text_config()
    states = SHAPE.response_tokens * (4 * text.hidden_size + 8)
    gradients = 4 * text.hidden_size * (SHAPE.response_tokens + text.vocab_size)
    assert read.head - plain.head == states + gradients
    assert read.total - plain.total == read.head - plain.head
