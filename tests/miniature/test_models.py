"""Every miniature family loads as its real counterpart would, and answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from mmalign.errors import ModelError
from mmalign.miniature import models

AWKWARD_TEXT = "Grüße, 你好 🙂\n\n\tx  y </s2> <b>\r\n"


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    made = {}

    def directory_of(name):
        if name not in made:
            made[name] = models.save(name, tmp_path_factory.mktemp("miniature") / name)
        return made[name]

    return directory_of


def picture(width=84, height=56):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def prompt_text(processor, content):
    if getattr(processor, "tokenizer", processor).chat_template is None:
        return "<image>" + content[-1]["text"]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


@pytest.mark.parametrize("name", models.VISION_FAMILIES)
def test_vision_family_sees_the_picture(name, directories):
    processor = AutoProcessor.from_pretrained(directories(name))
    model = AutoModelForImageTextToText.from_pretrained(directories(name))
    text = prompt_text(processor, [{"type": "image"}, {"type": "text", "text": "what?"}])

    def last_logits(image):
        inputs = processor(text=text, images=[image], return_tensors="pt")
        inputs.pop("labels", None)
        with torch.no_grad():
            return model(**inputs).logits[0, -1]

    here, elsewhere = picture(), Image.new("RGB", (84, 56), "red")
    assert torch.isfinite(last_logits(here)).all()
    assert not torch.allclose(last_logits(here), last_logits(elsewhere), atol=1e-4)


@pytest.mark.parametrize("name", models.TEXT_FAMILIES)
def test_text_family_loads_with_its_tokenizer(name, directories):
    tokenizer = AutoTokenizer.from_pretrained(directories(name))
    model = AutoModelForCausalLM.from_pretrained(directories(name))
    ids = tokenizer(prompt_text(tokenizer, [{"type": "text", "text": "what?"}]), return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=ids).logits).all()


@pytest.mark.parametrize("name", models.FAMILIES)
def test_tokenizer_gives_back_every_string_and_points_into_it(name, directories):
    tokenizer = AutoTokenizer.from_pretrained(directories(name))
    encoded = tokenizer(AWKWARD_TEXT, add_special_tokens=False, return_offsets_mapping=True)
    assert tokenizer.decode(encoded.input_ids) == AWKWARD_TEXT
    covered = {position for start, end in encoded.offset_mapping for position in range(start, end)}
    assert covered == set(range(len(AWKWARD_TEXT)))


@pytest.mark.parametrize("name", [name for name in models.FAMILIES if name != "paligemma"])
def test_an_answer_is_the_text_after_the_generation_prompt_and_ends_its_turn(name, directories):
    directory = directories(name)
    processor = (AutoTokenizer if name in models.TEXT_FAMILIES else AutoProcessor).from_pretrained(directory)
    asked = [{"role": "user", "content": [{"type": "text", "text": "what?"}]}]
    answered = [*asked, {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = processor.apply_chat_template(answered, tokenize=False)
    assert whole.startswith(prompt)
    end_ids = (
        (AutoModelForCausalLM if name in models.TEXT_FAMILIES else AutoModelForImageTextToText)
        .from_pretrained(directory)
        .generation_config.eos_token_id
    )
    tokenizer = getattr(processor, "tokenizer", processor)
    answer_ids = tokenizer(whole[len(prompt) :], add_special_tokens=False).input_ids
    text_after_end = tokenizer.decode([token for token in answer_ids if token not in end_ids])
    assert any(token in end_ids for token in answer_ids)
    assert text_after_end.strip() == "a cat"


def test_system_turn_is_kept(directories):
    for name in ("qwen2_5_vl", "gemma3", "llava", "mistral3", "llama"):
        tokenizer = AutoTokenizer.from_pretrained(directories(name))
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert text.count("be brief") == 1
        assert "helpful" not in text


def test_same_seed_gives_the_same_weights_and_another_seed_moves_every_tensor(tmp_path):
    def weights(seed, place):
        directory = models.save("llava", tmp_path / place, seed=seed)
        return AutoModelForImageTextToText.from_pretrained(directory).state_dict()

    first, again, other = weights(1, "a"), weights(1, "b"), weights(2, "c")
    assert all(torch.equal(first[key], again[key]) for key in first)
    floating = [key for key in first if first[key].is_floating_point()]
    assert all(not torch.equal(first[key], other[key]) for key in floating)


def test_saving_leaves_the_global_random_state_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    models.save("qwen2", tmp_path / "m", seed=3)
    assert torch.equal(torch.rand(3), expected)


def test_words_become_one_token_with_and_without_a_leading_space(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(models.save("llama", tmp_path / "m", words=("ring", "rings")))
    assert tokenizer.tokenize("ring rings ringing") == ["ring", "Ġrings", "Ġ", "r", "i", "n", "g", "i", "n", "g"]
    assert tokenizer.decode(tokenizer("ring rings ringing", add_special_tokens=False).input_ids) == "ring rings ringing"


def test_words_are_refused_where_the_tokenizer_would_spell_them(tmp_path):
    with pytest.raises(ModelError, match="the tokenizer of 'qwen2' keeps no whole words"):
        models.save("qwen2", tmp_path / "m", words=("ring",))


def test_size_can_differ_from_its_scale(tmp_path):
    directory = models.save("qwen2", tmp_path / "m", hidden=64, layers=3, vocabulary=1000)
    config = AutoModelForCausalLM.from_pretrained(directory).config
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (64, 3, 1000)


def test_unknown_names_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(ModelError, match="miniature family 'qwen25_vl' does not exist; did you mean 'qwen2_5_vl'"):
        models.save("qwen25_vl", tmp_path)
    with pytest.raises(ModelError, match="miniature scale 'small' does not exist.*known: tiny, shapes, bench"):
        models.save("qwen2", tmp_path, scale="small")
    with pytest.raises(ModelError, match="field of a miniature's size 'hiden' does not exist; did you mean 'hidden'"):
        models.save("qwen2", tmp_path, hiden=3)
