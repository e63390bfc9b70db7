"""How many tokens a prompt with pictures has, from the sizes of the pictures alone.

A processor replaces the placeholder of a picture by a text that depends on the picture's size: a run of soft tokens,
for some families with rows, columns and separators. The replacement is the processor's own (`replace_image_token`);
what it reads from processed pixels is made here from (width, height), one small function per kind of processor. A
processor that is not in the table is shown blank pictures of the same sizes, which is slower and just as exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image

Size = tuple[int, int]
"""(width, height) in pixels"""


class PromptCount(NamedTuple):
    """Tokens of a prompt, and how many of them are filled by media features."""

    prompt_tokens: int
    media_tokens: int


@dataclass(frozen=True)
class PixelBounds:
    """Pixel bounds that a processor applies itself (the Qwen kind); None leaves its own default.

    Args:
        min_pixels, max_pixels: area of the picture as the vision tower sees it.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None

    def size(self, image_processor: Any) -> dict[str, int]:
        """Return the `size` argument of the processor."""
        longest = self.max_pixels or image_processor.size["longest_edge"]
        shortest = self.min_pixels or image_processor.size["shortest_edge"]
        return {"shortest_edge": min(shortest, longest), "longest_edge": longest}


def has_pixel_bounds(image_processor: Any) -> bool:
    """True when the processor takes bounds on the area of a picture, as the Qwen family's does."""
    edges = [_edge(image_processor.size, name) for name in ("shortest_edge", "longest_edge")]
    return None not in edges and hasattr(image_processor, "merge_size")


def _edge(size: Any, name: str) -> int | None:
    """Return an entry of a processor's size, which is a dict or a SizeDict, by version."""
    return size[name] if name in size else None  # noqa: SIM401 (a SizeDict has no `get` everywhere)


def count_prompt(processor: Any, prompt: str, sizes: Sequence[Size], bounds: PixelBounds | None) -> PromptCount:
    """Return how many tokens a rendered prompt has once its pictures are expanded.

    Args:
        processor: of a vision-language model.
        prompt: text with one placeholder per picture.
        sizes: of the pictures as the processor gets them, in order.
        bounds: given for processors with `has_pixel_bounds`.
    """
    imitate = _IMITATIONS.get(type(processor).__name__)
    inputs = imitate(processor, sizes, bounds) if imitate is not None else None
    if inputs is None:
        return _count_by_blanks(processor, prompt, sizes)
    return _count_by_text(processor, prompt, inputs)


def soft_token(processor: Any) -> str:
    """Return the text of the token whose embedding media features replace (Gemma 3 keeps it in the tokenizer)."""
    return getattr(processor.tokenizer, "image_token", None) or processor.image_token


def _count_by_text(processor: Any, prompt: str, inputs: dict[str, Any]) -> PromptCount:
    """Expand the placeholders, then tokenise with every run of soft tokens shortened to one."""
    first, *rest = prompt.split(processor.image_token)
    pieces = [first]
    for i, piece in enumerate(rest):
        pieces += [processor.replace_image_token(inputs, i), piece]
    expanded, token = "".join(pieces), soft_token(processor)
    media_tokens = expanded.count(token)
    shortened, runs = re.subn(f"(?:{re.escape(token)})+", lambda match: token, expanded)
    ids = processor.tokenizer(shortened, add_special_tokens=False)["input_ids"]
    return PromptCount(len(ids) + media_tokens - runs, media_tokens)


def _count_by_blanks(processor: Any, prompt: str, sizes: Sequence[Size]) -> PromptCount:
    blanks = [Image.new("RGB", size) for size in sizes]
    made = processor(text=[prompt], images=[blanks], add_special_tokens=False)
    ids = torch.as_tensor(made["input_ids"][0])
    soft_id = processor.tokenizer.convert_tokens_to_ids(soft_token(processor))
    return PromptCount(len(ids), int((ids == soft_id).sum()))


def _qwen(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any]:
    image_processor = processor.image_processor
    limits = (bounds or PixelBounds()).size(image_processor)
    pixels = {"min_pixels": limits["shortest_edge"], "max_pixels": limits["longest_edge"]}
    patches = [image_processor.get_number_of_image_patches(height, width, pixels) for width, height in sizes]
    return {"image_grid_thw": torch.tensor([[1, 1, number] for number in patches])}


def _tile(image_processor: Any) -> Size | None:
    """Return the (height, width) that every picture, or every tile of it, is brought to; None when it varies."""
    size = image_processor.size
    if getattr(image_processor, "do_center_crop", None) and getattr(image_processor, "crop_size", None):
        size = image_processor.crop_size
    height, width = _edge(size, "height"), _edge(size, "width")
    return None if height is None or width is None else (height, width)


def _llava(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any] | None:
    tile = _tile(processor.image_processor)
    return None if tile is None else {"pixel_values": torch.zeros(1, 3, *tile).expand(len(sizes), 3, *tile)}


def _llava_tiles(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any]:
    size = processor.image_processor.size
    side = _edge(size, "shortest_edge") or min(size["height"], size["width"])
    return {
        "image_sizes": [[height, width] for width, height in sizes],
        "pixel_values": torch.zeros(1, 1, 3, side, side),
        "batch_num_images": [len(sizes)],
    }


def _idefics3(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any]:
    counts = [processor.image_processor.get_number_of_image_patches(height, width) for width, height in sizes]
    return {"rows": [[rows for _, rows, _ in counts]], "cols": [[columns for _, _, columns in counts]]}


def _internvl(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any]:
    counted = processor._get_num_multimodal_tokens(image_sizes=[(height, width) for width, height in sizes])
    return {"num_patches": counted.num_image_patches}


def _gemma3(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any] | None:
    pans = getattr(processor.image_processor, "do_pan_and_scan", False)
    return None if pans else {"num_crops": [0] * len(sizes)}


_IMITATIONS: dict[str, Callable[[Any, Sequence[Size], PixelBounds | None], dict[str, Any] | None]] = {
    "Gemma3Processor": _gemma3,
    "Idefics3Processor": _idefics3,
    "InternVLProcessor": _internvl,
    "LlavaNextProcessor": _llava_tiles,
    "LlavaOnevisionProcessor": _llava_tiles,
    "LlavaProcessor": _llava,
    "Qwen2VLProcessor": _qwen,
    "Qwen2_5_VLProcessor": _qwen,
    "Qwen3VLProcessor": _qwen,
    "SmolVLMProcessor": _idefics3,
}
