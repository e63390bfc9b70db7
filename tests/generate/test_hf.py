"""Answers with a shared prompt are those of transformers' own `generate`, and depend on nothing but their seed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from prompts import picture, picture_prompts, sampler, text_prompts, video, video_prompts

from mmalign.engine.families import families_with_videos
from mmalign.engine.policy import Policy
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.tree import collate
from mmalign.errors import ConfigError, ModelError, RowError
from mmalign.formats.preference import Response
from mmalign.formats.prompt import Prompt
from mmalign.generate.hf import LocalSampler, Sampling
from mmalign.generate.plain import prompt_inputs
from mmalign.miniature import models

GREEDY = Sampling(max_new_tokens=6)
SAMPLED = Sampling(max_new_tokens=6, temperature=1.0)


def of_generate(asked: LocalSampler, prompt: Prompt, **more) -> list[int]:
    """What transformers' `generate` finds most probable for a prompt by itself, chosen and ended by its own code."""
    tree, family = asked.tokeniser.prompt(prompt), asked.tokeniser.family
    inputs = prompt_inputs([tree], family, asked.tokeniser.pad_id)
    how = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": asked.tokeniser.pad_id, **more}
    inner = getattr(asked.model, "base_model", asked.model)
    with ragged_videos(inner):  # its code wants the videos of one prompt equally long
        ids = asked.model.generate(**inputs, **how)
    return ids[0, len(tree.prompt_ids) :].tolist()


def ids_of(asked: LocalSampler, prompts, **how) -> list[list[int]]:
    return [list(sample.ids) for one in asked.sample(prompts, **how) for sample in one.samples]


def with_adapter(asked: LocalSampler) -> LocalSampler:
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return LocalSampler(get_peft_model(asked.model, config), asked.tokeniser, answers_at_once=16)


@pytest.mark.parametrize("lora", [False, True], ids=["bare", "LoRA"])
@pytest.mark.parametrize("name", models.FAMILIES)
def test_a_shared_prompt_gives_the_tokens_of_plain_generate(tiny_model, tmp_path, name, lora):
    asked = sampler(tiny_model(name), tmp_path)
    asked = with_adapter(asked) if lora else asked
    prompts = picture_prompts(tmp_path) if name in models.VISION_FAMILIES else text_prompts()
    expected = [of_generate(asked, prompt) for prompt in prompts]
    assert ids_of(asked, prompts, sampling=GREEDY) == expected
    assert ids_of(asked, prompts, sampling=GREEDY, n=2) == [ids for ids in expected for _ in range(2)]


@pytest.mark.parametrize("name", families_with_videos())
def test_a_shared_prompt_with_videos_gives_the_tokens_of_plain_generate(tiny_model, tmp_path, name):
    asked, prompts = sampler(tiny_model(name), tmp_path), video_prompts(tmp_path)
    expected = [of_generate(asked, prompt) for prompt in prompts]
    assert ids_of(asked, prompts, sampling=GREEDY) == expected
    assert ids_of(asked, prompts[:2], sampling=GREEDY, n=3) == [ids for ids in expected[:2] for _ in range(3)]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_answers_go_on_where_the_models_own_forward_puts_the_next_token(tiny_model, tmp_path, name):
    """Of frames that are far apart in time, where transformers' `generate` and its forward differ."""
    asked = sampler(tiny_model(name), tmp_path)
    shown = replace(video(tmp_path, 6), frame_indices=(0, 4))
    prompt = Prompt.ask("what is it?", shown, id="far apart")
    assert ids_of(asked, [prompt], sampling=GREEDY) == [token_by_token(asked, prompt)]


def token_by_token(asked: LocalSampler, prompt: Prompt) -> list[int]:
    """Return the answer that the model's own forward finds most probable."""
    tree = asked.tokeniser.prompt(prompt)
    ids = tree.prompt_ids[None]
    for _ in range(GREEDY.max_new_tokens):
        types = torch.nn.functional.pad(tree.mm_token_type_ids[None], (0, ids.shape[1] - len(tree.prompt_ids)))
        with torch.no_grad():
            logits = asked.model(input_ids=ids, mm_token_type_ids=types, **tree.media).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(tree.prompt_ids) :].tolist()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "gemma3", "gemma2"])
def test_log_probs_are_those_of_the_models_own_forward(tiny_model, tmp_path, name):
    asked = sampler(tiny_model(name), tmp_path)
    prompt = (picture_prompts(tmp_path) if name in models.VISION_FAMILIES else text_prompts())[1]
    (one,) = asked.sample([prompt], sampling=Sampling(max_new_tokens=5, temperature=0.7, top_k=50), n=1)
    tree, sample = asked.tokeniser.prompt(prompt), one.samples[0]
    answered = replace(tree, response_ids=(torch.tensor(sample.ids),), levels=(0,))
    batch = collate([answered], asked.tokeniser.family, asked.tokeniser.pad_id)
    with torch.no_grad():
        expected = Policy(asked.model, engine="flat")(batch)[0, 0]
    assert torch.allclose(torch.tensor(sample.logps), expected, atol=1e-4)


def test_a_repetition_penalty_is_that_of_transformers(tiny_model, tmp_path):
    asked, prompts = sampler(tiny_model("qwen2_5_vl"), tmp_path), picture_prompts(tmp_path)
    penalised = Sampling(max_new_tokens=12, repetition_penalty=1.5)
    expected = [of_generate(asked, prompt, max_new_tokens=12, repetition_penalty=1.5) for prompt in prompts]
    assert ids_of(asked, prompts, sampling=penalised) == expected
    assert expected != [of_generate(asked, prompt, max_new_tokens=12) for prompt in prompts]


@pytest.fixture
def qwen(tiny_model, tmp_path):
    return sampler(tiny_model("qwen2_5_vl"), tmp_path), picture_prompts(tmp_path)


def test_a_draw_depends_on_seed_row_and_number_alone(qwen):
    asked, prompts = qwen
    whole = [one.texts for one in asked.sample(prompts, sampling=SAMPLED, n=3, seed=5)]
    alone = [one.texts for prompt in reversed(prompts) for one in asked.sample([prompt], sampling=SAMPLED, n=5, seed=5)]
    assert [texts[:3] for texts in reversed(alone)] == whole
    assert len({text for texts in whole for text in texts}) > 6
    assert [one.texts for one in asked.sample(prompts, sampling=SAMPLED, n=3, seed=6)] != whole


def test_more_answers_than_fit_at_once_are_the_same_answers(qwen, tiny_model, tmp_path):
    asked, prompts = qwen
    narrow = sampler(tiny_model("qwen2_5_vl"), tmp_path, answers_at_once=2)
    assert ids_of(narrow, prompts, sampling=SAMPLED, n=5) == ids_of(asked, prompts, sampling=SAMPLED, n=5)


def test_a_prompt_that_is_repeated_gives_the_draws_of_a_shared_one(qwen, tiny_model, tmp_path):
    asked, prompts = qwen
    plain = sampler(tiny_model("qwen2_5_vl"), tmp_path, shared_prefix=False)
    assert ids_of(plain, prompts, sampling=SAMPLED, n=3) == ids_of(asked, prompts, sampling=SAMPLED, n=3)


def test_a_prompt_is_computed_once_however_many_answers_it_has(qwen):
    asked, prompts = qwen
    seen = []

    def note(_, __, inputs):
        seen.append(inputs["input_ids"].shape)

    asked.model.register_forward_pre_hook(note, with_kwargs=True)
    list(asked.sample(prompts[:1], sampling=SAMPLED, n=40))
    assert [shape[0] for shape in seen if shape[1] > 1] == [1]


def test_responses_of_rows_are_not_shown_and_the_model_keeps_its_mode(qwen):
    asked, prompts = qwen
    asked.model.train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    rows = [prompt.answered((Response.of("never shown"),), {}) for prompt in prompts]
    assert ids_of(asked, rows, sampling=SAMPLED) == ids_of(asked, prompts, sampling=SAMPLED)
    assert asked.model.training
    assert torch.equal(torch.rand(3), expected)


def test_a_prompt_that_cannot_be_answered_is_told_and_the_others_are_answered(qwen, tmp_path):
    asked, prompts = qwen
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Prompt.ask("what?", replace(picture(tmp_path, "x.png", 30, 30), uri="broken.png"), id="broken")
    long = Prompt.ask("word " * 40_000, id="long")
    told = {}
    refused = {"on_refused": lambda prompt, error: told.update({prompt.id: error.reason})}
    answered = asked.sample([prompts[0], broken, long, prompts[1]], sampling=GREEDY, **refused)
    assert [one.prompt.id for one in answered] == ["0", "1"]
    assert told == {"broken": "image is not in a known format", "long": "prompt leaves no room for an answer"}
    with pytest.raises(RowError, match="lower data.max_length"):
        list(asked.sample([long], sampling=GREEDY))


def test_a_model_that_the_engine_does_not_know_repeats_its_prompts(qwen):
    asked, prompts = qwen
    expected = ids_of(asked, prompts, sampling=GREEDY)
    asked.tokeniser.family = replace(asked.tokeniser.family, known=False, no_tree="it is not in the table")
    unknown = LocalSampler(asked.model, asked.tokeniser)
    assert not unknown.shares_prefix
    assert ids_of(unknown, prompts, sampling=GREEDY) == expected
    with pytest.raises(ModelError, match="qwen2_5_vl cannot share a prompt among answers: it is not in the table"):
        LocalSampler(asked.model, asked.tokeniser, shared_prefix=True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"top_p": 0}, "0 < top_p <= 1, got 256, 0.0 and 0"),
        ({"top_k": 0}, "top_k >= 1, got 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty > 0, got 0.0"),
        ({"stop": ("",)}, "stop to be a list of texts that are not empty"),
        ({"endless_after_tokens": 3}, "endless_after_tokens >= 4, got 3"),
    ],
)
def test_impossible_sampling_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**wrong)
