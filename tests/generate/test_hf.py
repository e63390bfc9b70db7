from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.engine.families import families_with_videos, family_of
from mmalign.engine.load import load_model
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.errors import ConfigError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.generate.hf import Sampling, answer
from mmalign.miniature import models
from mmalign.modalities.table import limits_below

GREEDY = Sampling(max_new_tokens=5)
SAMPLED = Sampling(max_new_tokens=5, temperature=1.0)


def build(name, place):
    model = load_model(models.save(name, place / name))
    return model, Tokeniser(load_processor(place / name), family_of(model.config), limits_below(place))


def picture_rows(place):
    """Three prompts of different length with pictures of different size."""
    for index, shape in enumerate([(56, 56), (84, 112), (60, 30)]):
        noise = np.random.default_rng(index).integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / f"{index}.png")
        yield Preference(
            id=str(index),
            prompt=(Message.of("user", 0, "what?" * (index + 1)),),
            media=(MediaRef(kind="image", uri=f"{index}.png"),),
            responses=(Response.of("never shown"),),
        )


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    place = tmp_path_factory.mktemp("qwen")
    return (*build("qwen2_5_vl", place), list(picture_rows(place)))


@pytest.mark.parametrize("name", models.VISION_FAMILIES)
def test_greedy_answers_do_not_depend_on_the_batch(name, tmp_path):
    model, tokeniser = build(name, tmp_path)
    rows = list(picture_rows(tmp_path))
    assert answer(model, tokeniser, rows, GREEDY, batch_size=3) == answer(model, tokeniser, rows, GREEDY, batch_size=1)


def test_an_answer_is_what_the_model_finds_most_probable_token_by_token(qwen):
    model, tokeniser, rows = qwen
    assert answer(model, tokeniser, [rows[1]], GREEDY) == [token_by_token(model, tokeniser, rows[1])]


def token_by_token(model, tokeniser, row):
    """Return the answer that the model's own forward finds most probable."""
    tree = tokeniser(row)
    ids = tree.prompt_ids[None]
    for _ in range(GREEDY.max_new_tokens):
        types = torch.nn.functional.pad(tree.mm_token_type_ids[None], (0, ids.shape[1] - len(tree.prompt_ids)))
        with torch.no_grad():
            logits = model(input_ids=ids, mm_token_type_ids=types, **tree.media).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return tokeniser.tokenizer.decode(ids[0, len(tree.prompt_ids) :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("name", families_with_videos())
def test_greedy_answers_to_videos_do_not_depend_on_the_batch(name, tmp_path):
    """Videos of different length, a row with more of them than others, a picture, and text alone."""
    model, tokeniser = build(name, tmp_path)
    videos = [video(tmp_path, number) for number in (2, 5, 3)]
    picture = next(iter(picture_rows(tmp_path))).media[0]
    rows = [asked(videos[0]), asked(videos[1], videos[2]), asked(picture), asked(), asked(picture, videos[1])]
    alone = answer(model, tokeniser, rows, GREEDY, batch_size=1)
    assert answer(model, tokeniser, rows, GREEDY, batch_size=5) == alone
    assert answer(model, tokeniser, rows[:2], GREEDY, batch_size=2) == alone[:2]


def video(place, frames):
    names = [f"{frames}-{number}.png" for number in range(frames)]
    for number, name in enumerate(names):
        noise = np.random.default_rng(10 * frames + number).integers(0, 256, (56, 84, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place / name)
    return MediaRef(kind="video", frames=tuple(names))


def asked(*media):
    prompt = (Message.of("user", *range(len(media)), "what is it?"),)
    return Preference(id="", prompt=prompt, media=media, responses=(Response.of("never shown"),))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl"])
def test_times_of_frames_count_when_an_answer_is_made(name, tmp_path):
    """Of frames that are four seconds apart, which the model's own forward is told."""
    model, tokeniser = build(name, tmp_path)
    row = asked(MediaRef(kind="video", frames=video(tmp_path, 6).frames, frame_indices=(0, 4)))
    assert answer(model, tokeniser, [row], GREEDY) == [token_by_token(model, tokeniser, row)]


def test_sampling_follows_its_seed_and_leaves_the_global_random_state_alone(qwen):
    model, tokeniser, rows = qwen
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = answer(model, tokeniser, rows, SAMPLED, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert answer(model, tokeniser, rows, SAMPLED, seed=1) == first
    assert answer(model, tokeniser, rows, SAMPLED, seed=2) != first


def test_the_model_keeps_its_mode_and_progress_is_told(qwen):
    model, tokeniser, rows = qwen
    model.train()
    told = []
    answer(model, tokeniser, rows, GREEDY, batch_size=2, on_batch=told.append)
    assert model.training
    assert told == [2, 3]


def test_impossible_sampling_is_refused():
    with pytest.raises(ConfigError, match="0 < top_p <= 1, got 256, 0.0 and 0"):
        Sampling(top_p=0)
