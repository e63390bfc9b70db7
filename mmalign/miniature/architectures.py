"""Configurations of the families, as plain dictionaries: what the parts of a miniature are built from.

A family reads as what differs from the others, and a version of transformers that adds a field breaks none of them.
Every `<family>(size, ids)` returns the fields beside `text_config`; `ids` maps the text of a token to its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmalign.miniature.sizes import Size

PATCH_PX = 14
SLIDING_WINDOW_TOKENS = 16
TokenIds = Mapping[str, int]
Fields = dict[str, Any]
TextFields = Callable[[Size], Fields]


def decoder_fields(size: Size, token_ids: TokenIds, tokens: Mapping[str, str], tokenizer_length: int) -> Fields:
    """Return the fields that every language model has."""
    return {
        "vocab_size": max(size.vocabulary, tokenizer_length),
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads,
        "head_dim": size.head_dim,
        "max_position_embeddings": 32_768,
        "initializer_range": size.initializer_range,
        "bos_token_id": token_ids[tokens["bos_token"]] if "bos_token" in tokens else None,
        "eos_token_id": token_ids[tokens["eos_token"]],
        "pad_token_id": token_ids[tokens["pad_token"]],
    }


def plain(model_type: str, **fields: Any) -> TextFields:
    """Return text fields that say no more than the type of the language model."""
    return lambda size: {"model_type": model_type, **fields}


def gemma_text(model_type: str) -> TextFields:
    """Return the text fields of a Gemma language model."""

    def build(size: Size) -> Fields:
        # One sliding and one full layer at the least, so that both kinds of mask are met in two layers.
        kinds = ["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(size.layers)]
        return {
            "model_type": model_type,
            "layer_types": kinds,
            "sliding_window": SLIDING_WINDOW_TOKENS,
            "query_pre_attn_scalar": size.head_dim,
        }

    return build


def mrope(size: Size, **more: Any) -> Fields:
    """Return Qwen's rotary positions over time, height and width, in sections."""
    rope = {"rope_type": "default", "rope_theta": size.rope_theta, "mrope_section": size.mrope_section, **more}
    return {"rope_parameters": rope}


def _tower(size: Size, model_type: str, **more: Any) -> Fields:
    return {
        "model_type": model_type,
        "hidden_size": size.vision_hidden,
        "intermediate_size": size.vision_intermediate,
        "num_hidden_layers": size.vision_layers,
        "num_attention_heads": size.vision_heads,
        "image_size": size.image_px,
        "patch_size": PATCH_PX,
        "initializer_range": size.initializer_range,
        **more,
    }


def _qwen_tower(size: Size, **more: Any) -> Fields:
    return {
        "depth": size.vision_layers,
        "num_heads": size.vision_heads,
        "in_channels": 3,
        "patch_size": PATCH_PX,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": size.initializer_range,
        **more,
    }


def tokens_per_tile(size: Size) -> int:
    """Return the image tokens of one square tile after 2 x 2 patches became one token."""
    return (size.image_px // PATCH_PX) ** 2 // 4


def grid(size: Size) -> list[list[int]]:
    """Return the resolutions of two or more tiles that the LLaVA successors choose from."""
    side, double = size.image_px, 2 * size.image_px
    return [[side, double], [double, side], [double, double]]


def _qwen_media_ids(ids: TokenIds) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def qwen2_vl(size: Size, ids: TokenIds) -> Fields:
    """Qwen2-VL: full attention in the tower, a merger of 2 x 2 patches."""
    tower = _qwen_tower(size, embed_dim=size.vision_hidden, hidden_size=size.hidden, mlp_ratio=2)
    return {"vision_config": tower, **_qwen_media_ids(ids)}


def qwen2_5_vl(size: Size, ids: TokenIds) -> Fields:
    """Qwen2.5-VL: windows in the tower but in the last block; widths of their own."""
    tower = _qwen_tower(
        size,
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_intermediate,
        out_hidden_size=size.hidden,
        window_size=4 * PATCH_PX,
        fullatt_block_indexes=[size.vision_layers - 1],
    )
    return {"vision_config": tower, **_qwen_media_ids(ids)}


def qwen3_vl(size: Size, ids: TokenIds) -> Fields:
    """Qwen3-VL: learned positions in the tower, features of its first block added to early text layers."""
    tower = _qwen_tower(
        size,
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_intermediate,
        out_hidden_size=size.hidden,
        num_position_embeddings=64,
        deepstack_visual_indexes=[0],
    )
    return {"vision_config": tower, **_qwen_media_ids(ids)}


def llava(size: Size, ids: TokenIds) -> Fields:
    """LLaVA-1.5: CLIP without its last layer and without the class token."""
    return {
        "vision_config": _tower(size, "clip_vision_model", projection_dim=size.vision_hidden),
        "image_token_index": ids["<image>"],
        "image_seq_length": (size.image_px // PATCH_PX) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def llava_next(size: Size, ids: TokenIds) -> Fields:
    """LLaVA-NeXT: LLaVA on several tiles of one picture."""
    return {**llava(size, ids), "image_grid_pinpoints": grid(size)}


def llava_onevision(size: Size, ids: TokenIds) -> Fields:
    """LLaVA-OneVision: SigLIP on several tiles, a Qwen2 language model."""
    return {
        "vision_config": _tower(size, "siglip_vision_model", vision_use_head=False),
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": grid(size),
        "vision_aspect_ratio": "anyres_max_9",
    }


def idefics(model_type: str, pad_token: str) -> Callable[[Size, TokenIds], Fields]:
    """Idefics3 and SmolVLM: a tower on square tiles, 2 x 2 features shuffled into one token."""

    def build(size: Size, ids: TokenIds) -> Fields:
        tower = _tower(size, f"{model_type}_vision")
        # These two repeat the padding token outside the text fields.
        return {
            "vision_config": tower,
            "image_token_id": ids["<image>"],
            "pad_token_id": ids[pad_token],
            "scale_factor": 2,
        }

    return build


def internvl(size: Size, ids: TokenIds) -> Fields:
    """InternVL: a tower with a class token, features shuffled into a quarter as many tokens."""
    side = [size.image_px, size.image_px]
    return {
        "vision_config": _tower(size, "internvl_vision", image_size=side, patch_size=[PATCH_PX, PATCH_PX]),
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": tokens_per_tile(size),
        "downsample_ratio": 0.5,
    }


def gemma3(size: Size, ids: TokenIds) -> Fields:
    """Gemma 3: SigLIP pooled to few tokens, image tokens see each other both ways."""
    return {
        "vision_config": _tower(size, "siglip_vision_model", vision_use_head=False),
        "mm_tokens_per_image": tokens_per_tile(size),
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "initializer_range": size.initializer_range,
    }


def paligemma(size: Size, ids: TokenIds) -> Fields:
    """PaliGemma: SigLIP, a prompt that sees itself both ways."""
    return {
        "vision_config": _tower(size, "siglip_vision_model", vision_use_head=False),
        "image_token_index": ids["<image>"],
        "projection_dim": size.hidden,
        "hidden_size": size.hidden,
    }


def mistral3(size: Size, ids: TokenIds) -> Fields:
    """Mistral Small 3.1: Pixtral on pictures of any shape, 2 x 2 patches merged."""
    tower = _tower(size, "pixtral", image_size=4 * size.image_px, head_dim=size.vision_hidden // size.vision_heads)
    return {
        "vision_config": tower,
        "image_token_index": ids["[IMG]"],
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
    }
