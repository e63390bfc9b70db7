"""The families a miniature can be of: special tokens, chat template, configuration, processor. One table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmalign.miniature import architectures, chat_templates, processors
from mmalign.miniature.architectures import Fields, TextFields, TokenIds, plain
from mmalign.miniature.processors import ProcessorOf
from mmalign.miniature.sizes import Size


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
    text: TextFields
    config: Callable[[Size, TokenIds], Fields] | None = None
    processor: ProcessorOf | None = None
    others: tuple[str, ...] = ()
    turn_end: str | None = None


_CHATML = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_QWEN_OTHERS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

_SENTENCEPIECE = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

_IDEFICS_OTHERS = ("<fake_token_around_image>", "<image>", "<global-img>", "<|im_start|>") + tuple(
    f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)
)

_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
_GEMMA_TURNS = ("<start_of_turn>", "<end_of_turn>")


def _qwen_template(size: Size) -> str:
    return chat_templates.QWEN_VL if size.default_system_turn else chat_templates.QWEN_VL_WITHOUT_SYSTEM


def _template(text: str | None) -> Callable[[Size], str | None]:
    return lambda size: text


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(
        model_type="qwen2_vl",
        tokens=_CHATML,
        others=_QWEN_OTHERS,
        chat_template=_qwen_template,
        text=architectures.mrope,
        config=architectures.qwen2_vl,
        processor=processors.qwen("Qwen2VLProcessor", "Qwen2VLVideoProcessor"),
    ),
    "qwen2_5_vl": Family(
        model_type="qwen2_5_vl",
        tokens=_CHATML,
        others=_QWEN_OTHERS,
        chat_template=_qwen_template,
        text=architectures.mrope,
        config=architectures.qwen2_5_vl,
        processor=processors.qwen("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"),
    ),
    "qwen3_vl": Family(
        model_type="qwen3_vl",
        tokens=_CHATML,
        others=_QWEN_OTHERS,
        chat_template=_template(chat_templates.QWEN_VL_WITHOUT_SYSTEM),
        text=lambda size: architectures.mrope(size, mrope_interleaved=True),
        config=architectures.qwen3_vl,
        processor=processors.qwen("Qwen3VLProcessor", "Qwen3VLVideoProcessor"),
    ),
    "llava": Family(
        model_type="llava",
        tokens={**_SENTENCEPIECE, "image_token": "<image>"},
        chat_template=_template(chat_templates.LLAVA),
        text=plain("llama"),
        config=architectures.llava,
        processor=processors.llava,
    ),
    "llava_next": Family(
        model_type="llava_next",
        tokens={**_SENTENCEPIECE, "image_token": "<image>"},
        chat_template=_template(chat_templates.LLAVA_NEXT),
        text=plain("mistral", sliding_window=None),
        config=architectures.llava_next,
        processor=processors.llava_next,
    ),
    "llava_onevision": Family(
        model_type="llava_onevision",
        tokens={**_CHATML, "image_token": "<image>", "video_token": "<video>"},
        others=("<|im_start|>",),
        chat_template=_template(chat_templates.LLAVA_ONEVISION),
        text=plain("qwen2"),
        config=architectures.llava_onevision,
        processor=processors.llava_onevision,
    ),
    "idefics3": Family(
        model_type="idefics3",
        tokens={"bos_token": "<|begin_of_text|>", "eos_token": "<end_of_utterance>", "pad_token": "<|end_of_text|>"},
        others=_IDEFICS_OTHERS,
        chat_template=_template(chat_templates.IDEFICS3),
        text=plain("llama"),
        config=architectures.idefics("idefics3", pad_token="<|end_of_text|>"),
        processor=processors.idefics3,
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
        text=plain("llama"),
        config=architectures.idefics("smolvlm", pad_token="<|im_end|>"),
        processor=processors.smolvlm,
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
        text=plain("qwen2"),
        config=architectures.internvl,
        processor=processors.internvl,
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
        text=architectures.gemma_text("gemma3_text"),
        config=architectures.gemma3,
        processor=processors.gemma3,
    ),
    "paligemma": Family(
        model_type="paligemma",
        tokens={**_GEMMA, "image_token": "<image>"},
        chat_template=_template(None),
        text=plain("gemma"),
        config=architectures.paligemma,
        processor=processors.paligemma,
    ),
    "mistral3": Family(
        model_type="mistral3",
        tokens=_SENTENCEPIECE,
        others=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        chat_template=_template(chat_templates.MISTRAL3),
        text=plain("mistral", sliding_window=None),
        config=architectures.mistral3,
        processor=processors.mistral3,
    ),
    "qwen2": Family(
        model_type="qwen2",
        tokens=_CHATML,
        others=("<|im_start|>",),
        chat_template=_template(chat_templates.QWEN_TEXT),
        text=plain("qwen2"),
    ),
    "llama": Family(
        model_type="llama",
        tokens={"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"},
        others=("<|start_header_id|>", "<|end_header_id|>"),
        chat_template=_template(chat_templates.LLAMA3),
        text=plain("llama"),
    ),
    "gemma2": Family(
        model_type="gemma2",
        tokens=_GEMMA,
        others=_GEMMA_TURNS,
        turn_end="<end_of_turn>",
        chat_template=_template(chat_templates.GEMMA2),
        text=architectures.gemma_text("gemma2"),
    ),
    "mistral": Family(
        model_type="mistral",
        tokens=_SENTENCEPIECE,
        others=("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        chat_template=_template(chat_templates.MISTRAL),
        text=plain("mistral", sliding_window=architectures.SLIDING_WINDOW_TOKENS),
    ),
}
