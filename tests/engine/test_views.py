"""Rows in views: what they show follows from the row alone, and they have the tokens of the row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import videos
from pictures import encoded
from PIL import Image
from token_rows import png, row

from mmalign.engine.arriving import Medium
from mmalign.engine.families import family_of
from mmalign.engine.policy import Policy
from mmalign.engine.tree import collate
from mmalign.engine.truncate import without_turns_before
from mmalign.engine.views import CONTRASTS, LAST_RESPONSE, contrasted, other_media
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Response
from mmalign.modalities.pixels import diffusion_strength
from mmalign.modalities.sampling import Sampling

STILL = [how for how in CONTRASTS if how not in ("reverse", "shuffle", "drop", "freeze")]
ONE = row(Message.of("user", 0, "what is it"), media=[png(56, 84)])
OWN = replace(ONE, responses=(Response.of("good"), Response.of("bad", media=(png(84, 112),))))


@pytest.fixture
def clip_row(tmp_path):
    videos.write(tmp_path / "clip.mp4", videos.numbered(8), fps=8)
    return row(Message.of("user", 0, "what happens"), media=[MediaRef(kind="video", uri="clip.mp4")])


def pixels(tree):
    return tree.media.get("pixel_values", tree.media.get("pixel_values_videos"))


@pytest.mark.parametrize("how", STILL)
@pytest.mark.parametrize("name", ["qwen2_vl", "llava"])
def test_a_perturbed_picture_has_the_tokens_of_its_row_and_looks_the_same_every_time(tokeniser, name, how):
    made, view = tokeniser(name), contrasted(how)
    plain, changed = made.trees(ONE, [view])
    _, again = made.trees(ONE, [view])
    assert torch.equal(changed.prompt_ids, plain.prompt_ids)
    assert pixels(changed).shape == pixels(plain).shape
    assert not torch.allclose(pixels(changed), pixels(plain))
    assert torch.equal(pixels(changed), pixels(again))
    assert made.lengths_of_all(ONE, [view]) == [made.lengths(ONE)] * 2


@pytest.mark.parametrize("how", CONTRASTS)
def test_a_perturbed_clip_has_the_tokens_of_its_row(tokeniser, tmp_path, clip_row, how):
    made = tokeniser("qwen2_vl", root=tmp_path)
    plain, changed = made.trees(clip_row, [contrasted(how)])
    assert torch.equal(changed.prompt_ids, plain.prompt_ids)
    assert pixels(changed).shape == pixels(plain).shape
    assert not torch.allclose(pixels(changed), pixels(plain))
    assert changed.media_key != plain.media_key


def test_chances_are_drawn_from_the_id_of_the_row_and_from_the_view(tokeniser):
    made, views = tokeniser("qwen2_vl"), [contrasted("crop"), contrasted("noise"), contrasted("static")]
    here, there = (made.trees(replace(ONE, id=name), views)[1:] for name in ("one", "two"))
    assert not any(torch.allclose(pixels(a), pixels(b)) for a, b in zip(here, there, strict=True))
    keys = [tree.media_key for tree in (*here, *there)]
    assert len(set(keys)) == 6


def test_frames_that_are_left_out_are_filled_up_by_those_before_them(tokeniser, tmp_path, clip_row):
    view = contrasted("drop")
    every_frame = (("sampling", Sampling(policy="fps", fps=8.0, frames=8)),)
    clips = tokeniser("qwen2_vl", root=tmp_path, video=every_frame)._media.clips
    frames, arriving, _ = clips.load(Medium("videos[0]", clip_row.media[0]), None, view.change(clip_row))
    seen = [videos.number_of(frame) for frame in frames]
    assert arriving.frames == len(frames) == 8
    assert seen == sorted(seen)
    assert len(set(seen)) == 2  # three quarters of eight are gone


def test_noise_on_a_large_picture_is_not_averaged_away(tokeniser):
    """A processor that shrinks pictures gets noise on the pixels that are left, whatever the size of the file."""
    made = tokeniser("qwen2_vl", image=(("max_pixels", 56 * 56),))
    plain = [MediaRef(kind="image", content=encoded(Image.new("RGB", (side, side), (128,) * 3))) for side in (56, 560)]
    grey = [row(Message.of("user", 0, "?"), media=[ref]) for ref in plain]
    spread = [pixels(made.trees(one, [contrasted("noise")])[1]).std().item() for one in grey]
    assert spread[1] > 0.6 * spread[0]


def test_the_noise_of_half_a_diffusion_is_a_quarter_of_the_variance():
    """Worked apart: exp of minus the sum of 501 rates and of half their squares."""
    rates = [1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-(-6 + 12 * k / 999))) for k in range(501)]
    kept = np.exp(sum(-rate - rate**2 / 2 for rate in rates))
    assert diffusion_strength(500) == pytest.approx(1 - kept, rel=1e-4)
    assert diffusion_strength(500) == pytest.approx(0.254, abs=0.002)


def test_the_last_response_shows_what_it_saw(tokeniser):
    made, view = tokeniser("qwen2_vl"), other_media(LAST_RESPONSE)
    plain, other = made.trees(OWN, [view])
    alone = made(replace(ONE, media=OWN.responses[-1].media))
    assert torch.equal(pixels(other), pixels(alone))
    assert torch.equal(other.prompt_ids, alone.prompt_ids)
    assert torch.equal(pixels(plain), pixels(made(ONE)))
    assert made.lengths_of_all(OWN, [view])[1].prompt_tokens == len(other.prompt_ids)


def test_a_tag_names_other_media(tokeniser, tmp_path, clip_row):
    videos.write(tmp_path / "other.mp4", videos.numbered(4), fps=4)
    tagged = replace(clip_row, tags={"clip_l": "other.mp4"})
    made = tokeniser("qwen2_vl", root=tmp_path)
    _, other = made.trees(tagged, [other_media("clip_w", "clip_l")])
    assert torch.equal(
        pixels(other), pixels(made(replace(clip_row, media=(replace(clip_row.media[0], uri="other.mp4"),))))
    )


def test_a_hidden_box_is_black_and_the_rest_stays(tokeniser, tmp_path, clip_row):
    tagged = replace(clip_row, tags={"frame": "clip.mp4", "bbox": "'x': 32.0, 'y': 0.0, 'w': 32.0, 'h': 24.0"})
    view = other_media("frame", hidden_box="bbox")
    clips = tokeniser("qwen2_vl", root=tmp_path)._media.clips
    medium = Medium("videos[0]", clip_row.media[0])
    plain, _, _ = clips.load(medium, None)
    hidden, _, _ = clips.load(medium, None, view.change(tagged))
    assert not hidden[:, :24, 32:].any()
    assert np.array_equal(hidden[:, :, :32], plain[:, :, :32])
    assert np.array_equal(hidden[:, 24:], plain[:, 24:])


def test_turns_that_are_dropped_take_the_media_that_a_response_saw_along():
    turns = (Message.of("user", 0, "a"), Message.of("assistant", "b"), Message.of("user", 1, "c"))
    mine, own = (png(28, 28), png(28, 56)), (png(56, 28), png(56, 56))
    long = replace(ONE, prompt=turns, media=mine, responses=(Response.of("x"), Response.of("y", media=own)))
    short = without_turns_before(long, 2)
    assert short.media == mine[1:]
    assert short.responses[1].media == own[1:]


def test_a_row_is_cut_as_without_views_and_other_media_shrink_to_fit(tokeniser):
    free = tokeniser("qwen2_vl")
    view = other_media(LAST_RESPONSE)
    large = replace(OWN, responses=(Response.of("good"), Response.of("bad", media=(png(168, 168),))))
    most = free.lengths(ONE).longest_branch + 4
    lengths = tokeniser("qwen2_vl", max_length=most).lengths_of_all(large, [view])
    assert lengths[0].max_pixels is None
    assert lengths[1].max_pixels is not None
    assert lengths[1].longest_branch <= most
    with pytest.raises(RowError, match="row with its other media is too long"):
        tokeniser("qwen2_vl", max_length=most).lengths_of_all(
            replace(large, responses=(Response.of("good"), Response.of("bad", media=(png(2800, 2800),)))), [view]
        )


@pytest.mark.parametrize(
    ("preference", "view", "message"),
    [
        (
            row(Message.of("user", "no picture")),
            contrasted("crop"),
            "media: row has no media to change, and the objective compares with changed media; leave such rows out",
        ),
        (ONE, contrasted("shuffle"), r"media: picture has no order in time to change \(got 0\); 'shuffle' moves"),
        (
            ONE,
            other_media(LAST_RESPONSE, "mixed_up_image"),
            "row has not the other media that the objective compares with .*; "
            "it wants media of the last response or a tag 'mixed_up_image'",
        ),
        (
            replace(ONE, tags={"frame": "a.png"}),
            other_media("frame", hidden_box="bbox"),
            r"row has no box to hide \(got \['frame'\]\); the tag 'bbox' must be a text as",
        ),
        (
            row(Message.of("user", 0, 1), media=[png(28, 28)] * 2),
            other_media(LAST_RESPONSE),
            "row has not the other media",
        ),
        (
            replace(row(Message.of("user", 0, 1), media=[png(28, 28)] * 2), tags={"clip_w": "a.png"}),
            other_media("clip_w"),
            r"tags.clip_w: tag names one medium in place of several \(got 2\)",
        ),
        (OWN, contrasted("crop"), "responses with media of their own cannot share one prompt.*mixed_image, symmpo"),
        (
            replace(OWN, responses=OWN.responses[::-1]),
            other_media(LAST_RESPONSE),
            r"responses\[0\].media: media of a response that is not the last are not read",
        ),
    ],
)
def test_rows_that_cannot_be_seen_in_a_view_are_refused(tokeniser, preference, view, message):
    for verb in (tokeniser("qwen2_vl").trees, tokeniser("qwen2_vl").lengths_of_all):
        with pytest.raises(RowError, match=message):
            verb(preference, [view])


def test_a_clip_of_one_frame_is_refused_before_it_is_decoded(tokeniser, tmp_path):
    videos.write(tmp_path / "still.mp4", videos.numbered(1), fps=1)
    still = row(Message.of("user", 0), media=[MediaRef(kind="video", uri="still.mp4")])
    with pytest.raises(RowError, match="video has too few frames for a change in time"):
        tokeniser("qwen2_vl", root=tmp_path).lengths_of_all(still, [contrasted("shuffle")])


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava", "gemma3"])
def test_a_tree_with_views_is_the_same_as_separate_rows(tokeniser, tiny_model, name):
    """Responses that a view does not read are empty places: the others have the log-probs of a row of their own."""
    from transformers import AutoModelForImageTextToText

    from mmalign.train.loader import keep_responses

    made, view = tokeniser(name), contrasted("black")
    model = AutoModelForImageTextToText.from_pretrained(tiny_model(name)).eval()
    others = replace(ONE, id="b", media=(png(84, 56),), responses=(Response.of("yes"), Response.of("no no")))
    pairs = [made.trees(one, [view]) for one in (ONE, others)]
    trees = [own for own, _ in pairs] + [keep_responses(seen, (0, 1), (1,)) for _, seen in pairs]
    batch = collate(trees, family_of(model.config), made.pad_id, [view])
    assert batch.groups == 2
    assert batch.response_lengths[2:, 0].tolist() == [0, 0]
    with torch.no_grad():
        together = Policy(model)(batch)
        apart = Policy(model, engine="flat")(batch)
    torch.testing.assert_close(together, apart, rtol=0, atol=2e-5)
    assert (together[2:, 1] != together[:2, 1]).any()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gemma3"])
def test_likeliest_tokens_of_a_view_are_measured_under_the_media_of_the_row(tokeniser, tiny_model, name):
    """Against all logits: argmax under black media, its log-prob under the row's own, at every token of a response."""
    from transformers import AutoModelForImageTextToText

    made, view = tokeniser(name), contrasted("black", likeliest=True)
    model = AutoModelForImageTextToText.from_pretrained(tiny_model(name)).eval()
    policy = Policy(model, engine="flat")
    own, black = made.trees(ONE, [view])
    batch = collate([own, black], policy.family, made.pad_id, [view])
    with torch.no_grad():
        measured = policy(batch)
        seen, dark = (
            [_all_logps(model, policy.family, tree, response) for response in tree.response_ids]
            for tree in (own, black)
        )
    for k, (clean, changed) in enumerate(zip(seen, dark, strict=True)):
        expected = clean.gather(1, changed.argmax(-1, keepdim=True)).squeeze(1)
        torch.testing.assert_close(measured[1, k, : len(expected)], expected, rtol=0, atol=2e-5)
        own_tokens = clean.gather(1, own.response_ids[k][:, None]).squeeze(1)
        torch.testing.assert_close(measured[0, k, : len(expected)], own_tokens, rtol=0, atol=2e-5)


def _all_logps(model, family, tree, response):
    """Return the log-probs of all tokens [R, V] at the places of a response, from a plain forward of one row."""
    sequence = torch.cat([tree.prompt_ids, response])[None]
    types = {}
    if family.token_types is not None:
        prompt_types = tree.mm_token_type_ids
        prompt_types = tree.prompt_extra["token_type_ids"] if prompt_types is None else prompt_types
        types = {family.token_types: torch.cat([prompt_types, torch.zeros_like(response)])[None]}
    inputs = {"input_ids": sequence, "attention_mask": torch.ones_like(sequence), **types, **tree.media}
    logits = model(**inputs).logits[0, len(tree.prompt_ids) - 1 : -1]
    return logits.float().log_softmax(-1)
