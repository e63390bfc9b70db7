"""Processors of the families: the real classes, set to the sizes of a miniature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from mmalign.miniature.architectures import PATCH_PX, grid, tokens_per_tile
from mmalign.miniature.sizes import Size

ProcessorOf = Callable[[PreTrainedTokenizerFast, Size], ProcessorMixin]


def _square(size: Size) -> dict[str, int]:
    return {"height": size.image_px, "width": size.image_px}


def qwen(class_name: str, video_class_name: str) -> ProcessorOf:
    """Qwen's processors: any picture shape, sides rounded to 28 pixels."""

    def build(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
        # The real processors' own bounds, lowered so that a small picture stays a few tokens.
        bounds = {"shortest_edge": (2 * PATCH_PX) ** 2, "longest_edge": 1280 * (2 * PATCH_PX) ** 2}
        parts = {"size": bounds, "patch_size": PATCH_PX, "merge_size": 2, "temporal_patch_size": 2}
        return getattr(transformers, class_name)(
            image_processor=transformers.Qwen2VLImageProcessor(**parts),
            tokenizer=tokenizer,
            video_processor=getattr(transformers, video_class_name)(**parts),
            chat_template=tokenizer.chat_template,
        )

    return build


def llava(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """LLaVA-1.5: one square crop."""
    return transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": size.image_px}, crop_size=_square(size)),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


def llava_next(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """LLaVA-NeXT: an overview and the tiles of the best-fitting grid."""
    return transformers.LlavaNextProcessor(
        image_processor=transformers.LlavaNextImageProcessor(
            size={"shortest_edge": size.image_px},
            crop_size=_square(size),
            image_grid_pinpoints=grid(size),
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


def llava_onevision(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """LLaVA-OneVision: an overview and tiles, no crop."""
    return transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(size=_square(size), image_grid_pinpoints=grid(size)),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=_square(size)),
        num_image_tokens=(size.image_px // PATCH_PX) ** 2,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )


def _tiles(size: Size) -> dict[str, Any]:
    return {"size": {"longest_edge": 2 * size.image_px}, "max_image_size": {"longest_edge": size.image_px}}


def idefics3(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """Idefics3: tiles in rows and columns, then the whole picture."""
    return transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(**_tiles(size)),
        tokenizer=tokenizer,
        image_seq_len=tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


def smolvlm(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """SmolVLM: as Idefics3, and video."""
    sampling = {"fps": 1, "max_frames": 8, "video_size": {"longest_edge": size.image_px}}
    return transformers.SmolVLMProcessor(
        image_processor=transformers.SmolVLMImageProcessor(**_tiles(size)),
        tokenizer=tokenizer,
        video_processor=transformers.SmolVLMVideoProcessor(
            size={"longest_edge": size.image_px},
            max_image_size={"longest_edge": size.image_px},
            video_sampling=sampling,
            num_frames=sampling["max_frames"],
            fps=sampling["fps"],
        ),
        image_seq_len=tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


def internvl(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """InternVL: up to four tiles and an overview."""
    return transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(
            size=_square(size), crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(size=_square(size)),
        image_seq_length=tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


def gemma3(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """Gemma 3: one square, no pan and scan."""
    return transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size=_square(size)),
        tokenizer=tokenizer,
        image_seq_length=tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


def paligemma(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """PaliGemma: one square; the processor puts image tokens and <bos> before the text itself."""
    images = transformers.SiglipImageProcessor(size=_square(size))
    images.image_seq_length = (size.image_px // PATCH_PX) ** 2
    return transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)


def mistral3(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    """Mistral Small 3.1: rows of image tokens with a break after each."""
    return transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(
            size={"longest_edge": 4 * size.image_px}, patch_size={"height": PATCH_PX, "width": PATCH_PX}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        spatial_merge_size=2,
        chat_template=tokenizer.chat_template,
    )
