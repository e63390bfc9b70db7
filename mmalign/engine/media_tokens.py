"""How many tokens a prompt with media has, from the shapes of the media alone.

A processor replaces the placeholder of a medium by a text that depends on its shape: a run of soft tokens, for some
families with rows, columns and separators, or with the times of frames. The replacement is the processor's own
(`replace_image_token`, `replace_video_token`); what it reads from processed pixels is made here from the shape, one
small function per kind of processor. A processor of pictures that is not in the table is shown blank ones of the same
sizes, which is slower and just as exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers.models.qwen2_vl import video_processing_qwen2_vl
from transformers.models.qwen3_vl import video_processing_qwen3_vl
from transformers.video_utils import VideoMetadata

from mmalign.engine.arriving import Arriving, ArrivingClip, PixelBounds, Size, bounds_all_frames, edge


class PromptCount(NamedTuple):
    """Tokens of a prompt, how many of them are filled by media features, and how many of these by videos."""

    prompt_tokens: int
    media_tokens: int
    video_tokens: int = 0


def count_prompt(processor: Any, prompt: str, media: Arriving) -> PromptCount:
    """Return how many tokens a rendered prompt has once its media are expanded.

    Args:
        processor: of a vision-language model.
        prompt: text with one placeholder per medium.
        media: as the processor gets them.
    """
    expanded = expand_prompt(processor, prompt, media)
    if expanded is None:
        return _count_by_blanks(processor, prompt, media.pictures)
    of_videos = "".join(_replacement(processor, clip) for clip in media.clips)
    return _count(processor, expanded)._replace(video_tokens=_soft(processor, of_videos))


def expand_prompt(processor: Any, prompt: str, media: Arriving) -> str | None:
    """Return the prompt with every placeholder replaced as the processor does it.

    Returns:
        None when the processor's way with pictures is not in the table of this module.
    """
    waiting = {}
    if media.pictures:
        imitate = _PICTURES.get(type(processor).__name__)
        inputs = imitate(processor, media.pictures, media.bounds) if imitate is not None else None
        if inputs is None:
            return None
        waiting[processor.image_token] = (processor.replace_image_token(inputs, i) for i in range(len(media.pictures)))
    if media.clips:
        waiting[processor.video_token] = (_replacement(processor, clip) for clip in media.clips)
    placeholders = "|".join(map(re.escape, waiting))
    return re.sub(placeholders, lambda found: next(waiting[found[0]]), prompt) if waiting else prompt


def soft_tokens(processor: Any) -> tuple[str, ...]:
    """Return the texts of the tokens whose embeddings media features replace.

    Gemma 3 keeps its in the tokenizer. A video token that nothing but the chat template writes is none of the
    vocabulary, and of the families that show frames as pictures.
    """
    video = getattr(processor, "video_token", None)
    known = video is not None and video in processor.tokenizer.get_vocab()
    image = getattr(processor.tokenizer, "image_token", None) or processor.image_token
    return (image, video) if known else (image,)


def counts_videos(processor: Any) -> bool:
    """True when this module knows how the processor turns a video into tokens."""
    return type(processor).__name__ in _CLIPS


def _replacement(processor: Any, clip: ArrivingClip) -> str:
    """Return what takes the place of a video's placeholder."""
    return processor.replace_video_token(_CLIPS[type(processor).__name__](processor, clip), 0)


def _soft(processor: Any, text: str) -> int:
    return sum(text.count(token) for token in soft_tokens(processor))


def _count(processor: Any, expanded: str) -> PromptCount:
    """Tokenise with every run of a soft token shortened to one."""
    media_tokens, runs = _soft(processor, expanded), 0
    for token in soft_tokens(processor):
        expanded, shortened = re.subn(f"(?:{re.escape(token)})+", lambda run, token=token: token, expanded)
        runs += shortened
    ids = processor.tokenizer(expanded, add_special_tokens=False)["input_ids"]
    return PromptCount(len(ids) + media_tokens - runs, media_tokens)


def _count_by_blanks(processor: Any, prompt: str, sizes: Sequence[Size]) -> PromptCount:
    blanks = [Image.new("RGB", size) for size in sizes]
    made = processor(text=[prompt], images=[blanks], add_special_tokens=False)
    ids = torch.as_tensor(made["input_ids"][0])
    soft_ids = processor.tokenizer.convert_tokens_to_ids(list(soft_tokens(processor)))
    return PromptCount(len(ids), int(torch.isin(ids, torch.tensor(soft_ids)).sum()))


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
    height, width = edge(size, "height"), edge(size, "width")
    return None if height is None or width is None else (height, width)


def _llava(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any] | None:
    tile = _tile(processor.image_processor)
    return None if tile is None else {"pixel_values": torch.zeros(1, 3, *tile).expand(len(sizes), 3, *tile)}


def _llava_tiles(processor: Any, sizes: Sequence[Size], bounds: PixelBounds | None) -> dict[str, Any]:
    size = processor.image_processor.size
    side = edge(size, "shortest_edge") or min(size["height"], size["width"])
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


_PICTURES: dict[str, Callable[[Any, Sequence[Size], PixelBounds | None], dict[str, Any] | None]] = {
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


def _qwen_clip(processor: Any, clip: ArrivingClip) -> dict[str, Any]:
    """Return the grid of patches. The processors' own count of them differs from what they make, by version."""
    video_processor = processor.video_processor
    how = clip.arguments(video_processor)
    if how.get("cap_pixels_per_frame"):  # a rule of several lines that is off by default: a blank clip is shown
        blank = np.zeros((clip.frames, clip.height, clip.width, 3), dtype=np.uint8)
        grid = torch.as_tensor(video_processor(videos=[blank], **how)["video_grid_thw"])
    else:
        bounds = how.get("size", video_processor.size)
        edges = {"min_pixels": bounds["shortest_edge"], "max_pixels": bounds["longest_edge"]}
        patch, steps = video_processor.patch_size, video_processor.temporal_patch_size
        sides: dict[str, int] = {
            "height": clip.height,
            "width": clip.width,
            "factor": patch * video_processor.merge_size,
        }
        if bounds_all_frames(video_processor):
            height, width = video_processing_qwen3_vl.smart_resize(clip.frames, temporal_factor=steps, **sides, **edges)
        else:
            height, width = video_processing_qwen2_vl.smart_resize(**sides, **edges)
        grid = torch.tensor([[-(-clip.frames // steps), height // patch, width // patch]])
    return {"video_grid_thw": grid, "video_metadata": [VideoMetadata(**clip.metadata())]}


def _frames(processor: Any, clip: ArrivingClip) -> dict[str, Any]:
    return {"pixel_values_videos": torch.zeros(1, 1).expand(1, clip.frames)}


def _smolvlm_clip(processor: Any, clip: ArrivingClip) -> dict[str, Any]:
    frames = torch.zeros(1, 1).expand(1, clip.frames)
    return {"pixel_values": frames, "video_metadata": [VideoMetadata(**clip.metadata())]}


_CLIPS: dict[str, Callable[[Any, ArrivingClip], dict[str, Any]]] = {
    "InternVLProcessor": _frames,
    "LlavaOnevisionProcessor": _frames,
    "Qwen2VLProcessor": _qwen_clip,
    "Qwen2_5_VLProcessor": _qwen_clip,
    "Qwen3VLProcessor": _qwen_clip,
    "SmolVLMProcessor": _smolvlm_clip,
}
"""Every processor through which videos go (`Family.videos`)."""
