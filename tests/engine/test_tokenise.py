"""Tokens of a row: equal to TRL's, counted without pixels, the same in every process."""

import dataclasses
import io
import multiprocessing
import os
import pickle

import pytest
import torch
from pictures import encoded, halves, noise
from PIL import Image
from token_rows import MANY_TURNS, NO_IMAGE, ONE_IMAGE, ROWS, TWO_IMAGES, WORDS, png, row

from mmalign.engine.tokenise import Tokeniser
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.miniature import models

WITH_TEMPLATE = tuple(name for name in models.VISION_FAMILIES if name != "paligemma")


def decoded_media(preference: Preference) -> list[Image.Image]:
    order = [index for message in preference.prompt for index in message.media_indices]
    return [Image.open(io.BytesIO(preference.media[index].content)) for index in order]


def trl_messages(messages) -> list[dict]:
    parts = lambda message: [  # noqa: E731
        {"type": "text", "text": part.text} if hasattr(part, "text") else {"type": "image"} for part in message.parts
    ]
    return [{"role": message.role, "content": parts(message)} for message in messages]


@pytest.mark.parametrize("which", ROWS)
@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_ids_and_pixels_equal_those_of_trl(tokeniser, name, which):
    trl = pytest.importorskip("trl.trainer.dpo_trainer")
    made, preference = tokeniser(name), ROWS[which]
    tree = made(preference)
    example = {
        "images": decoded_media(preference),
        "prompt": trl_messages(preference.prompt),
        "chosen": trl_messages(preference.chosen.messages),
        "rejected": trl_messages(preference.rejected.messages),
    }
    theirs = trl.DataCollatorForVisionPreference(made.processor)([example])
    for k, response in enumerate(tree.response_ids):
        real = theirs["attention_mask"][k].bool()
        assert theirs["input_ids"][k][real].tolist() == torch.cat([tree.prompt_ids, response]).tolist()
        assert theirs["completion_mask"][k][real].tolist() == [0] * len(tree.prompt_ids) + [1] * len(response)
    assert set(tree.media) == set(theirs) & set(made.family.media_inputs)
    for key, ours in tree.media.items():
        assert torch.equal(torch.cat([ours, ours]), theirs[key].reshape(2 * ours.shape[0], *ours.shape[1:]))


@pytest.mark.parametrize("name", models.TEXT_FAMILIES)
def test_text_models_render_as_trl_does(tokeniser, name):
    trl = pytest.importorskip("trl.data_utils")
    made = tokeniser(name)
    turns = [Message.of("user", "Hello"), Message.of("assistant", WORDS), Message.of("user", "Who?")]
    preference = row(*turns)
    as_text = lambda messages: [{"role": message.role, "content": message.text} for message in messages]  # noqa: E731
    sides = {"chosen": preference.chosen.messages, "rejected": preference.rejected.messages}
    example = {"prompt": as_text(turns)} | {side: as_text(messages) for side, messages in sides.items()}
    if made.tokenizer.chat_template is None:
        pytest.skip("a base model")
    theirs = trl.apply_chat_template(example, made.tokenizer)
    tree = made(preference)
    ids = lambda text: made.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    assert tree.prompt_ids.tolist() == ids(theirs["prompt"])
    assert [r.tolist() for r in tree.response_ids] == [ids(theirs["chosen"]), ids(theirs["rejected"])]


@pytest.mark.parametrize("name", models.FAMILIES)
def test_lengths_are_those_of_the_tokens(tokeniser, name):
    made = tokeniser(name)
    for which, preference in ROWS.items():
        if (preference.media and name in models.TEXT_FAMILIES) or (
            name == "paligemma" and which in ("turns", "goes on", "none")
        ):
            continue
        tree, lengths = made(preference), made.lengths(preference)
        assert lengths.prompt_tokens == len(tree.prompt_ids), which
        assert lengths.response_tokens == tuple(len(ids) for ids in tree.response_ids)
        assert lengths.tree_tokens == len(tree.prompt_ids) + sum(len(ids) for ids in tree.response_ids)
        assert (lengths.media_tokens > 0) == bool(preference.media)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next", "idefics3"])
def test_lengths_decode_no_pixels(tokeniser, name, monkeypatch):
    made = tokeniser(name)
    expected = made.lengths(MANY_TURNS)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("pixels were decoded"))
    assert made.lengths(MANY_TURNS) == expected


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl", "llava_onevision", "internvl", "mistral3"])
def test_pixel_bounds_hold_and_lengths_follow_them(tokeniser, name):
    free, bounded = tokeniser(name), tokeniser(name, image=(("max_pixels", 40_000),))
    large = row(Message.of("user", 0, "?"), media=[png(500, 300)])
    for made in (free, bounded):
        assert made.lengths(large).prompt_tokens == len(made(large).prompt_ids)
    assert bounded.lengths(large).media_tokens <= free.lengths(large).media_tokens
    if name == "qwen2_vl":
        grid = bounded(large).media["image_grid_thw"][0].tolist()
        # 500 x 300 in 40,000 pixels: factor sqrt(150,000 / 40,000) = 1.936, in whole squares of 28: 252 x 140.
        assert grid == [1, 140 // 14, 252 // 14]


def test_small_pictures_are_scaled_up_to_min_pixels(tokeniser):
    small = row(Message.of("user", 0, "?"), media=[png(28, 28)])
    made = tokeniser("qwen2_vl", image=(("min_pixels", 4 * 28 * 28),))
    assert made.lengths(small).media_tokens == 4
    assert made(small).media["image_grid_thw"].tolist() == [[1, 4, 4]]


def test_a_tree_by_hand(tokeniser):
    made = tokeniser("qwen2_vl")
    preference = row(
        Message.of("system", "S"),
        Message.of("user", "a", 0, "b"),
        media=[png(56, 28)],
        responses=("x", "y", "z"),
        ties=((1, 2),),
        margin=0.5,
        weight=2.0,
        tags={"source": "hand"},
    )
    tree = made(preference)
    text = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|vision_start|>{}<|vision_end|>b<|im_end|>\n"
    text = text.format(2 * "<|image_pad|>") + "<|im_start|>assistant\n"
    assert made.tokenizer.decode(tree.prompt_ids) == text
    assert [made.tokenizer.decode(ids) for ids in tree.response_ids] == [f"{c}<|im_end|>\n" for c in "xyz"]
    assert tree.media["image_grid_thw"].tolist() == [[1, 2, 4]]
    assert tree.mm_token_type_ids.sum() == 2 and len(tree.mm_token_type_ids) == len(tree.prompt_ids)
    assert (tree.levels, tree.margin, tree.weight, tree.tags) == ((0, 1, 1), 0.5, 2.0, {"source": "hand"})
    assert tree.prompt_ids.dtype == tree.response_ids[0].dtype == torch.int64


def test_media_follow_the_prompt_not_the_list(tokeniser):
    made = tokeniser("qwen2_vl")
    wide, tall = png(56, 28), png(28, 84)
    forward = made(row(Message.of("user", 0, 1), media=[wide, tall]))
    swapped = made(row(Message.of("user", 1, 0), media=[tall, wide]))
    assert (
        forward.media["image_grid_thw"].tolist() == swapped.media["image_grid_thw"].tolist() == [[1, 2, 4], [1, 6, 2]]
    )
    assert forward.media_key == swapped.media_key


def test_gemma_token_types_keep_their_name(tokeniser):
    tree = tokeniser("gemma3")(ONE_IMAGE)
    assert tree.mm_token_type_ids is None
    assert tree.prompt_extra["token_type_ids"].shape == tree.prompt_ids.shape


def test_media_keys_tell_pictures_and_settings_apart(tokeniser):
    made = tokeniser("qwen2_vl")
    key = made(ONE_IMAGE).media_key
    other_words = dataclasses.replace(ONE_IMAGE, prompt=(Message.of("user", 0, "Else?"),))
    other_picture = dataclasses.replace(ONE_IMAGE, media=(png(64, 48, seed=9),))
    assert made(other_words).media_key == key
    assert made(NO_IMAGE).media_key is None
    keys = {key, made(other_picture).media_key, made(TWO_IMAGES).media_key}
    keys |= {
        tokeniser("qwen2_vl", image=(("max_pixels", 2000),))(ONE_IMAGE).media_key,
        tokeniser("llava")(ONE_IMAGE).media_key,
    }
    assert len(keys) == 5


def test_spans_become_token_weights(tokeniser):
    spans = (Span(start=2, end=5, weight=3.0), Span(start=9, end=10, weight=0.5))
    preference = row(Message.of("user", "?"), responses=(Response.of("a dög is 猫!", spans=spans), "no"))
    made = tokeniser("qwen2_5_vl")
    tree = made(preference)
    # One token per byte: "ö" has two, "猫" has three.
    expected = [1, 1] + [3] * 4 + [1] * 4 + [0.5] * 3 + [1]
    assert tree.response_weights[0].tolist() == expected + [1.0] * (len(tree.response_ids[0]) - len(expected))
    assert tree.response_weights[1].tolist() == [1.0] * len(tree.response_ids[1])
    assert made(NO_IMAGE).response_weights is None


def test_a_broken_picture_is_found_at_the_latest_when_it_is_decoded(tokeniser):
    cut = encoded(noise(64, 64), "JPEG")
    broken = row(Message.of("user", 0), media=[MediaRef(kind="image", content=cut[:600] + cut[-2:])])
    with pytest.raises(RowError, match=r"images\[0\]: image is truncated or broken"):
        tokeniser("llava")(broken)


def test_what_a_processor_raises_is_a_refusal(tokeniser):
    with pytest.raises(RowError, match="processor refuses the row .*`images` are expected"):
        tokeniser("paligemma")(NO_IMAGE)


def test_pad_id_is_a_real_id(tokeniser):
    assert tokeniser("qwen2_vl").pad_id == tokeniser("qwen2_vl").tokenizer.pad_token_id


def _facts(made: Tokeniser) -> tuple:
    tree = made(MANY_TURNS)
    return tree.prompt_ids.tolist(), tree.media_key, tree.media["pixel_values"].double().sum().item()


def test_workers_make_the_same_trees(tokeniser):
    made = tokeniser("qwen2_vl", max_length=200)
    assert _facts(pickle.loads(pickle.dumps(made))) == _facts(made)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(_facts, [made]) == [_facts(made)]


def test_no_file_stays_open(tokeniser, tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(noise(64, 64), "JPEG"))
    made = tokeniser("llava", root=tmp_path)
    preference = row(Message.of("user", 0, "?"), media=[MediaRef(kind="image", uri="a.jpg")])
    made(preference)
    before = len(os.listdir("/proc/self/fd"))
    kept = [(made(preference), made.lengths(preference)) for _ in range(10)]
    assert len(os.listdir("/proc/self/fd")) == before and len(kept) == 10


def test_real_photographs_through_every_family(tokeniser, shared_data):
    photographs = [MediaRef(kind="image", uri=name) for name in ("waterview.jpg", "mllm_demo_1.jpg")]
    preference = row(Message.of("user", 0, "Where is", 1, "?"), media=photographs)
    for name in WITH_TEMPLATE:
        made = tokeniser(name, root=shared_data / "image", image=(("max_pixels", 50_000),))
        assert made.lengths(preference).prompt_tokens == len(made(preference).prompt_ids), name


def test_halves_are_seen_upright(tokeniser):
    """What the processor gets is the picture, not its file: the left half is red in the first tile's pixels."""
    content = encoded(halves(56, 56), "PNG")
    tree = tokeniser("llava")(row(Message.of("user", 0), media=[MediaRef(kind="image", content=content)]))
    red, blue = tree.media["pixel_values"][0, 0], tree.media["pixel_values"][0, 2]
    assert red[:, 2].mean() > red[:, -3].mean() and blue[:, 2].mean() < blue[:, -3].mean()
