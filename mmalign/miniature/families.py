"""The families a miniature can be of: special tokens, chat template, configuration, processor. One table.

Configurations are plain dictionaries, so that a family reads as what differs from the others, and a new version of
transformers that adds a field does not break them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast, ProcessorMixin

from mmalign.miniature import chat_templates
from mmalign.miniature.sizes import Size

PATCH_PX = 14
TokenIds = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What makes a family.

    Args:
        model_type: transformers' name of the architecture.
        tokens: special tokens by tokenizer attribute; "eos_token" and "pad_token" are required.
        others: further special tokens.
        chat_template: given the size; None for families of base models that have none.
        config: `(size, token text -> id) -> fields` beside `text_config`.
        text: fields of the language model beside the common ones.
        processor: None for text-only families, whose processor is the tokenizer.
        turn_end: text that ends a turn, where it is not the "eos_token".
    """

    model_type: str
    tokens: Mapping[str, str]
    chat_template: Callable[[Size], str | None]
    text: Callable[[Size], dict[str, Any]]
    config: Callable[[Size, TokenIds], dict[str, Any]] | None = None
    processor: Callable[[PreTrainedTokenizerFast, Size], ProcessorMixin] | None = None
    others: tuple[str, ...] = ()
    turn_end: str | None = None
    text_extra: Mapping[str, Any] = field(default_factory=dict)


def decoder_fields(size: Size, token_ids: TokenIds, tokens: Mapping[str, str], tokenizer_length: int) -> dict[str, Any]:
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


# ---- vision towers -------------------------------------------------------------------------------------------------


def _tower(size: Size, model_type: str, **more: Any) -> dict[str, Any]:
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


def _qwen_tower(size: Size, **more: Any) -> dict[str, Any]:
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


def _tokens_per_tile(size: Size) -> int:
    """Image tokens of one square tile after 2 x 2 patches became one token."""
    return (size.image_px // PATCH_PX) ** 2 // 4


def _grid(size: Size) -> list[list[int]]:
    side, double = size.image_px, 2 * size.image_px
    return [[side, double], [double, side], [double, double]]


# ---- Qwen ----------------------------------------------------------------------------------------------------------

_CHATML = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_QWEN_OTHERS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def _mrope(size: Size, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": size.mrope_section, **more}}


def _qwen_media_ids(ids: TokenIds) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _qwen2_vl(size: Size, ids: TokenIds) -> dict[str, Any]:
    tower = _qwen_tower(size, embed_dim=size.vision_hidden, hidden_size=size.hidden, mlp_ratio=2)
    return {"vision_config": tower, **_qwen_media_ids(ids)}


def _qwen2_5_vl(size: Size, ids: TokenIds) -> dict[str, Any]:
    tower = _qwen_tower(
        size,
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_intermediate,
        out_hidden_size=size.hidden,
        window_size=4 * PATCH_PX,
        fullatt_block_indexes=[size.vision_layers - 1],
    )
    return {"vision_config": tower, **_qwen_media_ids(ids)}


def _qwen3_vl(size: Size, ids: TokenIds) -> dict[str, Any]:
    tower = _qwen_tower(
        size,
        hidden_size=size.vision_hidden,
        intermediate_size=size.vision_intermediate,
        out_hidden_size=size.hidden,
        num_position_embeddings=64,
        deepstack_visual_indexes=[0],
    )
    return {"vision_config": tower, **_qwen_media_ids(ids)}


def _qwen_processor(class_name: str, video_class_name: str):
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


def _qwen_template(size: Size) -> str:
    return chat_templates.QWEN_VL if size.default_system_turn else chat_templates.QWEN_VL_WITHOUT_SYSTEM


# ---- LLaVA ---------------------------------------------------------------------------------------------------------

_SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def _llava(size: Size, ids: TokenIds) -> dict[str, Any]:
    return {
        "vision_config": _tower(size, "clip_vision_model", projection_dim=size.vision_hidden),
        "image_token_index": ids["<image>"],
        "image_seq_length": (size.image_px // PATCH_PX) ** 2,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def _llava_next(size: Size, ids: TokenIds) -> dict[str, Any]:
    return {**_llava(size, ids), "image_grid_pinpoints": _grid(size)}


def _llava_onevision(size: Size, ids: TokenIds) -> dict[str, Any]:
    return {
        "vision_config": _tower(size, "siglip_vision_model", vision_use_head=False),
        "image_token_index": ids["<image>"],
        "video_token_index": ids["<video>"],
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "image_grid_pinpoints": _grid(size),
        "vision_aspect_ratio": "anyres_max_9",
    }


def _llava_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    square = {"height": size.image_px, "width": size.image_px}
    return transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": size.image_px}, crop_size=square),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


def _llava_next_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    return transformers.LlavaNextProcessor(
        image_processor=transformers.LlavaNextImageProcessor(
            size={"shortest_edge": size.image_px},
            crop_size={"height": size.image_px, "width": size.image_px},
            image_grid_pinpoints=_grid(size),
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )


def _llava_onevision_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    square = {"height": size.image_px, "width": size.image_px}
    return transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=_grid(size)),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=square),
        num_image_tokens=(size.image_px // PATCH_PX) ** 2,
        vision_feature_select_strategy="full",
        chat_template=tokenizer.chat_template,
    )


# ---- Idefics3, SmolVLM ---------------------------------------------------------------------------------------------

_IDEFICS_OTHERS = ("<fake_token_around_image>", "<image>", "<global-img>", "<|im_start|>") + tuple(
    f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)
)


def _idefics(model_type: str):
    def build(size: Size, ids: TokenIds) -> dict[str, Any]:
        tower = _tower(size, f"{model_type}_vision")
        return {"vision_config": tower, "image_token_id": ids["<image>"], "scale_factor": 2}

    return build


def _tiles(size: Size) -> dict[str, Any]:
    return {"size": {"longest_edge": 2 * size.image_px}, "max_image_size": {"longest_edge": size.image_px}}


def _idefics3_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    return transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(**_tiles(size)),
        tokenizer=tokenizer,
        image_seq_len=_tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


def _smolvlm_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
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
        image_seq_len=_tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


# ---- InternVL, Gemma, Mistral 3 ------------------------------------------------------------------------------------


def _internvl(size: Size, ids: TokenIds) -> dict[str, Any]:
    side = [size.image_px, size.image_px]
    return {
        "vision_config": _tower(size, "internvl_vision", image_size=side, patch_size=[PATCH_PX, PATCH_PX]),
        "image_token_id": ids["<IMG_CONTEXT>"],
        "image_seq_length": _tokens_per_tile(size),
        "downsample_ratio": 0.5,
    }


def _internvl_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    square = {"height": size.image_px, "width": size.image_px}
    return transformers.InternVLProcessor(
        image_processor=transformers.GotOcr2ImageProcessor(
            size=square, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tokenizer,
        video_processor=transformers.InternVLVideoProcessor(size=square),
        image_seq_length=_tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
_GEMMA_TURNS = ("<start_of_turn>", "<end_of_turn>")
_GEMMA_WINDOW_TOKENS = 16


def _gemma_text(model_type: str):
    def build(size: Size) -> dict[str, Any]:
        # One sliding and one full layer at the least, so that both kinds of mask are met in two layers.
        kinds = ["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(size.layers)]
        return {
            "model_type": model_type,
            "layer_types": kinds,
            "sliding_window": _GEMMA_WINDOW_TOKENS,
            "query_pre_attn_scalar": size.head_dim,
        }

    return build


def _gemma3(size: Size, ids: TokenIds) -> dict[str, Any]:
    return {
        "vision_config": _tower(size, "siglip_vision_model", vision_use_head=False),
        "mm_tokens_per_image": _tokens_per_tile(size),
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "initializer_range": size.initializer_range,
    }


def _gemma3_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    return transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessor(size={"height": size.image_px, "width": size.image_px}),
        tokenizer=tokenizer,
        image_seq_length=_tokens_per_tile(size),
        chat_template=tokenizer.chat_template,
    )


def _paligemma(size: Size, ids: TokenIds) -> dict[str, Any]:
    return {
        "vision_config": _tower(size, "siglip_vision_model", vision_use_head=False),
        "image_token_index": ids["<image>"],
        "projection_dim": size.hidden,
        "hidden_size": size.hidden,
    }


def _paligemma_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    square = {"height": size.image_px, "width": size.image_px}
    images = transformers.SiglipImageProcessor(size=square)
    images.image_seq_length = (size.image_px // PATCH_PX) ** 2
    return transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)


def _mistral3(size: Size, ids: TokenIds) -> dict[str, Any]:
    tower = _tower(size, "pixtral", image_size=4 * size.image_px, head_dim=size.vision_hidden // size.vision_heads)
    return {
        "vision_config": tower,
        "image_token_index": ids["[IMG]"],
        "spatial_merge_size": 2,
        "vision_feature_layer": -1,
    }


def _mistral3_processor(tokenizer: PreTrainedTokenizerFast, size: Size) -> ProcessorMixin:
    return transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(
            size={"longest_edge": 4 * size.image_px}, patch_size={"height": PATCH_PX, "width": PATCH_PX}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        spatial_merge_size=2,
        chat_template=tokenizer.chat_template,
    )


# ---- the table -----------------------------------------------------------------------------------------------------


def _plain(model_type: str, **fields: Any):
    return lambda size: {"model_type": model_type, **fields}


def _template(text: str | None):
    return lambda size: text


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(
        model_type="qwen2_vl",
        tokens=_CHATML,
        others=_QWEN_OTHERS,
        chat_template=_qwen_template,
        text=_mrope,
        config=_qwen2_vl,
        processor=_qwen_processor("Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
    ),
    "qwen2_5_vl": Family(
        model_type="qwen2_5_vl",
        tokens=_CHATML,
        others=_QWEN_OTHERS,
        chat_template=_qwen_template,
        text=_mrope,
        config=_qwen2_5_vl,
        processor=_qwen_processor("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
    ),
    "qwen3_vl": Family(
        model_type="qwen3_vl",
        tokens=_CHATML,
        others=_QWEN_OTHERS,
        chat_template=_template(chat_templates.QWEN_VL_WITHOUT_SYSTEM),
        text=lambda size: _mrope(size, mrope_interleaved=True),
        config=_qwen3_vl,
        processor=_qwen_processor("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    ),
    "llava": Family(
        model_type="llava",
        tokens={**_SENTENCEPIECE, "image_token": "<image>"},
        chat_template=_template(chat_templates.LLAVA),
        text=_plain("llama"),
        config=_llava,
        processor=_llava_processor,
    ),
    "llava_next": Family(
        model_type="llava_next",
        tokens={**_SENTENCEPIECE, "image_token": "<image>"},
        chat_template=_template(chat_templates.LLAVA_NEXT),
        text=_plain("mistral", sliding_window=None),
        config=_llava_next,
        processor=_llava_next_processor,
    ),
    "llava_onevision": Family(
        model_type="llava_onevision",
        tokens={**_CHATML, "image_token": "<image>", "video_token": "<video>"},
        others=("<|im_start|>",),
        chat_template=_template(chat_templates.LLAVA_ONEVISION),
        text=_plain("qwen2"),
        config=_llava_onevision,
        processor=_llava_onevision_processor,
    ),
    "idefics3": Family(
        model_type="idefics3",
        tokens={"bos_token": "<|begin_of_text|>", "eos_token": "<end_of_utterance>", "pad_token": "<|end_of_text|>"},
        others=_IDEFICS_OTHERS,
        chat_template=_template(chat_templates.IDEFICS3),
        text=_plain("llama"),
        config=_idefics("idefics3"),
        processor=_idefics3_processor,
    ),
    "smolvlm": Family(
        model_type="smolvlm",
        tokens={
            "bos_token": "<|im_start|>",
            "eos_token": "<end_of_utterance>",
            "pad_token": "<|im_end|>",
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
        others=_IDEFICS_OTHERS,
        chat_template=_template(chat_templates.SMOLVLM),
        text=_plain("llama"),
        config=_idefics("smolvlm"),
        processor=_smolvlm_processor,
    ),
    "internvl": Family(
        model_type="internvl",
        tokens={
            **_CHATML,
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        others=("<|im_start|>",),
        chat_template=_template(chat_templates.INTERNVL),
        text=_plain("qwen2"),
        config=_internvl,
        processor=_internvl_processor,
    ),
    "gemma3": Family(
        model_type="gemma3",
        tokens={
            **_GEMMA,
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        others=_GEMMA_TURNS,
        turn_end="<end_of_turn>",
        chat_template=_template(chat_templates.GEMMA3),
        text=_gemma_text("gemma3_text"),
        config=_gemma3,
        processor=_gemma3_processor,
    ),
    "paligemma": Family(
        model_type="paligemma",
        tokens={**_GEMMA, "image_token": "<image>"},
        chat_template=_template(None),
        text=_plain("gemma"),
        config=_paligemma,
        processor=_paligemma_processor,
    ),
    "mistral3": Family(
        model_type="mistral3",
        tokens=_SENTENCEPIECE,
        others=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        chat_template=_template(chat_templates.MISTRAL3),
        text=_plain("mistral", sliding_window=None),
        config=_mistral3,
        processor=_mistral3_processor,
    ),
    "qwen2": Family(
        model_type="qwen2",
        tokens=_CHATML,
        others=("<|im_start|>",),
        chat_template=_template(chat_templates.QWEN_TEXT),
        text=_plain("qwen2"),
    ),
    "llama": Family(
        model_type="llama",
        tokens={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"},
        others=("<|start_header_id|>", "<|end_header_id|>"),
        chat_template=_template(chat_templates.LLAMA3),
        text=_plain("llama"),
    ),
    "gemma2": Family(
        model_type="gemma2",
        tokens=_GEMMA,
        others=_GEMMA_TURNS,
        turn_end="<end_of_turn>",
        chat_template=_template(chat_templates.GEMMA2),
        text=_gemma_text("gemma2"),
    ),
    "mistral": Family(
        model_type="mistral",
        tokens=_SENTENCEPIECE,
        others=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        chat_template=_template(chat_templates.MISTRAL),
        text=_plain("mistral", sliding_window=_GEMMA_WINDOW_TOKENS),
    ),
}
