"""Videos on their way to the model: the tokens and tensors of the processors themselves, counted from headers."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from pictures import encoded, noise
from PIL import Image
from prompt_rows import clip
from token_rows import row

from mmalign.engine.arriving import Arriving, ArrivingClip, PixelBounds
from mmalign.engine.assemble import assemble
from mmalign.engine.families import FAMILIES, families_with_videos
from mmalign.engine.media_inputs import LoadedMedia
from mmalign.engine.media_tokens import _CLIPS, count_prompt
from mmalign.engine.tokenise import load_processor
from mmalign.errors import ModelError, RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message

VIDEO_FAMILIES = families_with_videos()
PICTURE = MediaRef(kind="image", content=encoded(noise(50, 30, seed=3)))


def frames_of(root: Path, ref: MediaRef) -> np.ndarray:
    return np.stack([np.asarray(Image.open(root / name)) for name in ref.frames])


def picture() -> Image.Image:
    return Image.open(io.BytesIO(PICTURE.content))


def own_call(made, prompt: str, videos: list[np.ndarray], images: list[Image.Image]) -> dict:
    """Return what the processor makes of frames one second apart, in one call."""
    facts = [
        {"total_num_frames": len(v), "fps": 1.0, "duration": float(len(v)), "frames_indices": list(range(len(v)))}
        for v in videos
    ]
    how = {"videos": [videos], "videos_kwargs": {"do_sample_frames": False, "video_metadata": facts}}
    how |= {"images": [images]} if images else {}
    types = {"return_mm_token_type_ids": True} if made.family.token_types == "mm_token_type_ids" else {}
    return made.processor(text=[prompt], return_tensors="pt", add_special_tokens=False, **how, **types)


@pytest.mark.parametrize("which", ["one", "two", "picture first", "picture last"])
@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_ids_types_and_tensors_are_those_of_one_call_of_the_processor(tokeniser, tmp_path, name, which):
    if name == "smolvlm" and "picture" in which:
        pytest.skip("SmolVLM's processor drops the pictures of a prompt that has videos too")
    made = tokeniser(name, root=tmp_path)
    first, second = clip(tmp_path, 4, 60, 40), clip(tmp_path, 4, 40, 70)
    media = {
        "one": [first],
        "two": [first, second],
        "picture first": [PICTURE, first],
        "picture last": [first, PICTURE],
    }
    preference = row(Message.of("user", *range(len(media[which])), "what?"), media=media[which])
    tree = made(preference)
    videos = [frames_of(tmp_path, ref) for ref in media[which] if ref.kind == "video"]
    images = [picture() for ref in media[which] if ref.kind == "image"]
    expected = own_call(made, made._render(preference).prompt, videos, images)
    assert tree.prompt_ids.tolist() == expected["input_ids"][0].tolist()
    assert tree.media.keys() == {key for key in made.family.media_inputs if key in expected}
    for key, tensor in tree.media.items():
        own = torch.as_tensor(expected[key])
        own = own.flatten(0, 1)[None] if made.family.media_per_row else own  # a video a row, while they are of one row
        torch.testing.assert_close(tensor, own, rtol=0, atol=0)
    if made.family.token_types == "mm_token_type_ids":
        assert tree.mm_token_type_ids.tolist() == expected["mm_token_type_ids"][0].tolist()
    assert made.lengths(preference).prompt_tokens == len(tree.prompt_ids)


@pytest.mark.parametrize("name", [name for name in VIDEO_FAMILIES if FAMILIES[name].videos == "as_pictures"])
def test_frames_that_are_pictures_stand_in_the_order_of_the_prompt(tokeniser, tmp_path, name):
    made = tokeniser(name, root=tmp_path)
    short, longer = clip(tmp_path, 2, 60, 40), clip(tmp_path, 5, 40, 70)

    def pixels(*media: MediaRef) -> torch.Tensor:
        tree = made(row(Message.of("user", *range(len(media)), "?"), media=list(media)))
        return tree.media["pixel_values"][0] if made.family.media_per_row else tree.media["pixel_values"]

    alone = [pixels(ref) for ref in (longer, PICTURE, short)]
    assert torch.equal(pixels(longer, PICTURE, short), torch.cat(alone))
    assert len(alone[0]) == 5 and len(alone[2]) == 2


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_tokens_are_counted_without_decoding(tokeniser, tmp_path, name, monkeypatch):
    made = tokeniser(name, root=tmp_path)
    media = [clip(tmp_path, 3, 60, 40), PICTURE, clip(tmp_path, 8, 130, 70), clip(tmp_path, 1, 30, 30)]
    preference = row(Message.of("user", 3, "a", 0, 1, "what?", 2), media=media)
    tree = made(preference)
    monkeypatch.setattr("mmalign.modalities.video.load", lambda *_, **__: pytest.fail("frames were decoded"))
    lengths = made.lengths(preference)
    assert lengths.prompt_tokens == len(tree.prompt_ids)
    text = made.tokenizer.decode(tree.prompt_ids)
    soft = made.processor.video_token if made.family.videos == "apart" else made.processor.image_token
    assert 0 < text.count(soft) <= lengths.media_tokens < len(tree.prompt_ids)


PUBLISHED = {
    "qwen2_vl": lambda: {"video_processor": transformers.Qwen2VLVideoProcessor()},
    "qwen2_5_vl": lambda: {"video_processor": transformers.Qwen2VLVideoProcessor()},
    "qwen3_vl": lambda: {"video_processor": transformers.Qwen3VLVideoProcessor()},
    "llava_onevision": lambda: {
        "video_processor": transformers.LlavaOnevisionVideoProcessor(),
        "num_image_tokens": 729,
    },
    "internvl": lambda: {
        "video_processor": transformers.InternVLVideoProcessor(size={"height": 448, "width": 448}),
        "image_seq_length": 256,
    },
    "smolvlm": lambda: {"image_seq_len": 64},
}


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_counts_are_the_processors_own_at_the_settings_of_published_models(tiny_model, name):
    processor = load_processor(tiny_model(name))
    for attribute, value in PUBLISHED[name]().items():
        setattr(processor, attribute, value)
    assert type(processor).__name__ in _CLIPS
    prompt = f"a\n{processor.video_token}\n\nwhat?"
    for frames, width, height, fps in [(2, 640, 480, 25.0), (3, 97, 411, 29.97), (9, 320, 30, 0.1), (5, 33, 32, 12.5)]:
        for bounds in (None, PixelBounds(None, 50_000), PixelBounds(90_000, None)):
            arriving = ArrivingClip(
                frames=frames,
                width=width,
                height=height,
                timestamps_s=tuple(number / fps * 7 for number in range(frames)),
                source_fps=fps,
                duration_s=frames / fps * 7,
                bounds=bounds if "Qwen" in type(processor).__name__ else None,
            )
            media = LoadedMedia(
                frames=[np.zeros((frames, height, width, 3), np.uint8)], arriving=Arriving(clips=[arriving])
            )
            made = own_ids(processor, prompt, media)
            assert count_prompt(processor, prompt, media.arriving).prompt_tokens == len(made), (frames, bounds)
            assert assemble(processor, FAMILIES[name], prompt, media, {})["input_ids"][0].tolist() == made


def own_ids(processor, prompt: str, media: LoadedMedia) -> list[int]:
    (arriving,) = media.arriving.clips
    how = {**arriving.arguments(processor.video_processor), "video_metadata": [arriving.metadata()]}
    made = processor(
        text=[prompt], videos=[list(media.frames)], videos_kwargs=how, add_special_tokens=False, return_tensors="pt"
    )
    return made["input_ids"][0].tolist()


def test_a_processor_that_counts_in_another_way_is_named(tokeniser, tmp_path, monkeypatch):
    """As a later version of transformers might be."""
    made = tokeniser("internvl", root=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("mmalign.engine.assemble.expand_prompt", lambda *_: "<IMG_CONTEXT>" * 3)
        with pytest.raises(
            ModelError, match="InternVLProcessor makes 16 media tokens where 3 are counted; transformers"
        ):
            made(row(Message.of("user", 0, "?"), media=[clip(tmp_path, 4, 56, 56)]))


def test_the_cap_of_qwens_video_processor_is_counted(tiny_model):
    processor = load_processor(tiny_model("qwen2_5_vl"))
    how = {"cap_pixels_per_frame": True, "max_video_tokens": 10}
    processor.video_processor = transformers.Qwen2VLVideoProcessor(
        size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 64}, **how
    )
    facts = {"timestamps_s": (0.0, 1.0, 2.0, 3.0), "source_fps": 1.0, "duration_s": 4.0}
    arriving = ArrivingClip(frames=4, width=280, height=140, bounds=PixelBounds(), **facts)
    media = LoadedMedia(frames=[np.zeros((4, 140, 280, 3), np.uint8)], arriving=Arriving(clips=[arriving]))
    count = count_prompt(processor, processor.video_token, media.arriving)
    assert count.prompt_tokens == len(own_ids(processor, processor.video_token, media)) < 4 / 2 * 10 * 5


def test_times_reach_the_model_that_wants_them(tokeniser, tmp_path):
    """Four frames a second apart stand for four seconds: two seconds to a pair, whose middles are 0.5 s and 2.5 s."""
    preference = row(Message.of("user", 0, "?"), media=[clip(tmp_path, 4, 56, 56)])
    assert tokeniser("qwen2_5_vl", root=tmp_path)(preference).media["second_per_grid_ts"].tolist() == [2.0]
    made = tokeniser("qwen3_vl", root=tmp_path)
    text = made.tokenizer.decode(made(preference).prompt_ids)
    frame = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    assert f"<0.5 seconds>{frame}<2.5 seconds>{frame}" in text


def test_times_are_true_for_clips_and_files_of_variable_rate(tiny_model):
    """Frames at 10.0, 10.2, 13.0 and 14.0 s that stand for 5 s: 0.8 frames a second, 2.5 s to a pair."""
    times = {"timestamps_s": (10.0, 10.2, 13.0, 14.0), "source_fps": 30.0, "duration_s": 5.0}
    arriving = ArrivingClip(frames=4, width=56, height=56, bounds=PixelBounds(), **times)
    media = LoadedMedia(frames=[np.zeros((4, 56, 56, 3), np.uint8)], arriving=Arriving(clips=[arriving]))
    made = {}
    for name in ("qwen2_5_vl", "qwen3_vl"):
        processor = load_processor(tiny_model(name))
        made[name] = assemble(processor, FAMILIES[name], processor.video_token, media, {})
    assert made["qwen2_5_vl"]["second_per_grid_ts"].tolist() == [2.5]
    text = processor.tokenizer.decode(made["qwen3_vl"]["input_ids"][0])
    assert [piece.split(" seconds")[0] for piece in text.split("<") if " seconds" in piece] == ["10.1", "13.5"]


@pytest.mark.parametrize("name", VIDEO_FAMILIES)
def test_a_video_of_one_frame_is_a_video(tokeniser, tmp_path, name):
    made = tokeniser(name, root=tmp_path)
    preference = row(Message.of("user", 0, "?"), media=[clip(tmp_path, 1, 56, 56)])
    assert made.lengths(preference).prompt_tokens == len(made(preference).prompt_ids)


def test_bounds_on_frames_hold(tokeniser, tmp_path):
    preference = row(Message.of("user", 0, "?"), media=[clip(tmp_path, 4, 560, 280)])
    for bounds, most in [(("max_pixels", 28 * 28 * 8), 8), (("max_total_pixels", 28 * 28 * 8), 2)]:
        for name in ("qwen2_5_vl", "qwen3_vl"):
            grid = tokeniser(name, root=tmp_path, video=(bounds,))(preference).media["video_grid_thw"][0]
            assert 1 <= int(grid[1:].prod()) // 4 <= most, (name, bounds)
        steps = tokeniser("internvl", root=tmp_path, video=(bounds,))(preference)
        assert len(steps.media["pixel_values"]) == 4
    raised = tokeniser("qwen2_5_vl", root=tmp_path, video=(("min_pixels", 28 * 28 * 400),))(preference)
    assert int(raised.media["video_grid_thw"][0, 1:].prod()) // 4 >= 400


def test_a_long_row_shrinks_its_frames_before_anything_else(tokeniser, tmp_path):
    turns = [Message.of("user", 0, "first?"), Message.of("assistant", "yes"), Message.of("user", 1, "and now?")]
    preference = row(*turns, media=[clip(tmp_path, 4, 280, 140), PICTURE])
    free = tokeniser("qwen2_5_vl", root=tmp_path)
    whole = free.lengths(preference)
    made = tokeniser("qwen2_5_vl", root=tmp_path, max_length=whole.longest_branch - 20)
    lengths, tree = made.lengths(preference), made(preference)
    assert lengths.actions == ("media shrunk",)
    assert lengths.prompt_tokens == len(tree.prompt_ids) < whole.prompt_tokens
    grid = tree.media["video_grid_thw"][0]
    assert grid[0] == 2 and int((tree.prompt_ids == free.processor.video_token_id).sum()) == int(grid.prod()) // 4
    dropped = tokeniser("qwen2_5_vl", root=tmp_path, max_length=lengths.longest_branch // 2)
    assert dropped.lengths(preference).turns_dropped == 2
    assert "pixel_values_videos" not in dropped(preference).media


def test_frames_of_fixed_size_do_not_shrink_and_the_way_out_is_named(tokeniser, tmp_path):
    made = tokeniser("internvl", root=tmp_path, max_length=100)
    with pytest.raises(RowError, match=r"row is longer than max_length .*take fewer frames \(data.video.frames\)"):
        made.lengths(row(Message.of("user", 0, "?"), media=[clip(tmp_path, 7, 56, 56)]))


def test_media_keys_tell_videos_and_settings_apart(tokeniser, tmp_path):
    made = tokeniser("qwen2_5_vl", root=tmp_path)
    one, other = clip(tmp_path, 4, 56, 56), clip(tmp_path, 4, 56, 56, seed=1)
    question = row(Message.of("user", 0, "?"), media=[one])
    key = made(question).media_key
    assert made(replace(question, prompt=(Message.of("user", 0, "Else?"),))).media_key == key
    keys = {key, made(replace(question, media=(other,))).media_key}
    keys.add(made(replace(question, media=(replace(one, frame_indices=(0, 1, 2)),))).media_key)
    keys.add(made(row(Message.of("user", 0, 1), media=[one, PICTURE])).media_key)
    keys |= {tokeniser(name, root=tmp_path)(question).media_key for name in ("qwen3_vl", "internvl")}
    keys.add(tokeniser("qwen2_5_vl", root=tmp_path, video=(("max_pixels", 2000),))(question).media_key)
    assert len(keys) == 7


@pytest.mark.parametrize("name", [name for name in VIDEO_FAMILIES if FAMILIES[name].videos == "as_pictures"])
def test_media_keys_tell_the_orders_of_frames_and_pictures_apart(tokeniser, tmp_path, name):
    made, media = tokeniser(name, root=tmp_path), [clip(tmp_path, 4, 56, 56), PICTURE]
    trees = [made(row(Message.of("user", *order, "?"), media=media)) for order in [(0, 1), (1, 0)]]
    assert not torch.equal(*(tree.media["pixel_values"] for tree in trees))
    assert trees[0].media_key != trees[1].media_key


def test_explain_shows_videos(tokeniser, tmp_path):
    made = tokeniser("qwen2_5_vl", root=tmp_path)
    preference = row(Message.of("user", 0, 1, "?"), media=[PICTURE, clip(tmp_path, 4, 56, 28)])
    told = json.loads(json.dumps(made.explain(preference)))
    runs = [(entry["text"], entry["count"]) for entry in told["prompt"] if entry["role"] == "media"]
    assert runs == [("<|image_pad|>", 2), ("<|video_pad|>", 4)]
    picture_facts, video_facts = told["media"]
    assert (picture_facts["field"], video_facts["field"], video_facts["kind"]) == ("images[0]", "videos[0]", "video")
    assert (video_facts["frames"], video_facts["width"], video_facts["height"]) == (4, 56, 28)
