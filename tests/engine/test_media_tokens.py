"""Token counts from sizes alone, against the processors' own, at the settings of the published models."""

import pytest
import transformers
from PIL import Image

from mmalign.engine.arriving import Arriving, PixelBounds, has_pixel_bounds
from mmalign.engine.media_tokens import _PICTURES, count_prompt
from mmalign.engine.tokenise import load_processor

SIZES = [(640, 480), (97, 1411), (1600, 40), (336, 336), (30, 30), (1, 1), (1023, 769), (449, 447)]


def published(name: str, directory) -> object:
    """Return a miniature's processor with the image settings of the published model."""
    processor = load_processor(directory)
    square = {"height": 336, "width": 336}
    changes = {
        "qwen2_vl": lambda: {"image_processor": transformers.Qwen2VLImageProcessor()},
        "qwen2_5_vl": lambda: {"image_processor": transformers.Qwen2VLImageProcessor()},
        "qwen3_vl": lambda: {"image_processor": transformers.Qwen2VLImageProcessor(patch_size=16)},
        "llava": lambda: {
            "image_processor": transformers.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size=square)
        },
        "llava_next": lambda: {
            "image_processor": transformers.LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size=square)
        },
        "llava_onevision": lambda: {
            "image_processor": transformers.LlavaOnevisionImageProcessor(),
            "num_image_tokens": 729,
        },
        "idefics3": lambda: {"image_processor": transformers.Idefics3ImageProcessor(), "image_seq_len": 169},
        "smolvlm": lambda: {
            "image_processor": transformers.SmolVLMImageProcessor(
                size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}
            ),
            "image_seq_len": 64,
        },
        "internvl": lambda: {
            "image_processor": transformers.GotOcr2ImageProcessor(
                size={"height": 448, "width": 448}, crop_to_patches=True, max_patches=12
            ),
            "image_seq_length": 256,
        },
        "gemma3": lambda: {"image_processor": transformers.Gemma3ImageProcessor()},
    }[name]()
    for attribute, value in changes.items():
        setattr(processor, attribute, value)
    return processor


def counted(processor, prompt, sizes, bounds=None):
    """Return our count and the processor's own: tokens of the prompt, and media tokens among them."""
    if bounds is None and has_pixel_bounds(processor.image_processor):
        bounds = PixelBounds()
    how = {} if bounds is None else {"images_kwargs": {"size": bounds.size(processor.image_processor)}}
    blanks = [[Image.new("RGB", size) for size in sizes]]
    ids = processor(text=[prompt], images=blanks, add_special_tokens=False, **how)["input_ids"][0]
    return count_prompt(processor, prompt, Arriving(pictures=sizes, bounds=bounds)), ids


@pytest.mark.parametrize(
    "name",
    ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_next", "llava_onevision", "idefics3", "smolvlm", "internvl"]
    + ["gemma3"],
)
def test_counts_are_the_processors_own(tiny_model, name):
    processor = published(name, tiny_model(name))
    assert type(processor).__name__ in _PICTURES
    for number, size in enumerate(SIZES):
        sizes = [size] if number % 3 else [size, SIZES[number - 1]]
        prompt = f"a\n{processor.image_token}\n\n" * len(sizes) + "what?"
        count, ids = counted(processor, prompt, sizes)
        assert count.prompt_tokens == len(ids), sizes
        assert 0 < count.media_tokens <= len(ids)


def test_counts_by_hand(tiny_model):
    # Qwen2-VL: 640 x 480 in squares of 28 -> 23 x 17; Qwen3-VL in squares of 32: 20 x 15.
    for name, tokens in [("qwen2_vl", 23 * 17), ("qwen3_vl", 20 * 15), ("llava", 24 * 24), ("gemma3", None)]:
        processor = published(name, tiny_model(name))
        expected = processor.image_seq_length if tokens is None else tokens
        bounds = PixelBounds() if has_pixel_bounds(processor.image_processor) else None
        arriving = Arriving(pictures=[(640, 480)], bounds=bounds)
        assert count_prompt(processor, processor.image_token, arriving).media_tokens == expected


def test_bounds_are_passed_on(tiny_model):
    processor = published("qwen2_vl", tiny_model("qwen2_vl"))
    for bounds in (PixelBounds(None, 50_000), PixelBounds(500_000, None), PixelBounds(9_000, 1_000)):
        count, ids = counted(processor, processor.image_token, [(640, 480)], bounds)
        assert count.prompt_tokens == len(ids)


def test_an_unknown_processor_is_asked_with_blanks(tiny_model):
    processor = load_processor(tiny_model("mistral3"))
    assert type(processor).__name__ not in _PICTURES
    count, ids = counted(processor, f"{processor.image_token} what?", [(97, 45)])
    assert count.prompt_tokens == len(ids)


def test_pan_and_scan_is_asked_with_blanks(tiny_model):
    processor = published("gemma3", tiny_model("gemma3"))
    processor.image_processor.do_pan_and_scan = True
    processor.image_processor.pan_and_scan_min_crop_size = 32
    processor.image_processor.pan_and_scan_max_num_crops = 4
    processor.image_processor.pan_and_scan_min_ratio_to_activate = 1.2
    count, ids = counted(processor, f"{processor.image_token} what?", [(400, 100)])
    assert count.prompt_tokens == len(ids)
