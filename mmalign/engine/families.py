"""What each model family needs to be computed as a prompt tree: one literal table, read by the whole engine.

A model is a text decoder (`Backbone`), alone or inside a vision-language wrapper (`Family`). Both tables are literal on
purpose: a family is here because `tests/engine/test_tree_families.py` proves that its tree equals separate rows. A
model that is not in the tables still trains, as separate rows (`flat`), and the run says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

PART_NAMES = ("vision", "projector", "language")

_STATE_IS_CARRIED = "its recurrent or convolutional layers carry state from one response into the next"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A text decoder.

    Args:
        masks: "single" when its forward takes one prepared mask for all layers, "by_layer" when it takes a dict keyed
            by the `layer_types` of its config.
        logit_factor: name of the config entry its language-model head multiplies logits by.
        logit_divisor: name of the config entry its language-model head divides logits by.
        softcap: its language-model head applies `final_logit_softcapping` of the text config.
    """

    masks: Literal["single", "by_layer"] = "single"
    logit_factor: str | None = None
    logit_divisor: str | None = None
    softcap: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """A model family as the engine sees it.

    Args:
        name: `model_type` of its config.
        media_inputs: processor outputs that the vision side reads; tensors of one row are put together with those of
            the next on dimension 0, filled up in the others.
        media_per_row: these tensors are [rows, images, ...], and a row without media is a row of zeros (Idefics3).
        token_types: name under which forward takes token types when rows are separate and native.
        videos: how a video goes in: not at all; "apart" from pictures, with inputs and a placeholder of its own; or its
            frames "as_pictures", with the pictures' inputs and placeholder, in the order of the prompt.
        frame_pooling: how many of the tokens that a picture would have become one in a frame of a video.
        equal_videos: its code wants the videos of a batch equally long; shorter ones are filled up
            (`ragged_videos.py`).
        reads_normalised: where its config reads the last layer of the tower, it reads what the last normalisation makes
            of it.
        bidirectional: which tokens see each other in both directions: none, every image within itself, the prompt.
        positions: "from_zero", "from_one" (PaliGemma) or "mrope" (three axes, from `get_rope_index` on the prompt).
        softcap: the language-model head applies `final_logit_softcapping` of the text config.
        vision, projector, language: parts, as prefixes of parameter names; the longest prefix that fits wins.
        no_tree: why it cannot be computed as a tree; None when it can.
        known: the engine may call the inner model and apply the language-model head by itself.
    """

    name: str
    media_inputs: tuple[str, ...] = ()
    media_per_row: bool = False
    token_types: Literal["mm_token_type_ids", "token_type_ids"] | None = None
    videos: Literal["none", "apart", "as_pictures"] = "none"
    frame_pooling: int = 1
    equal_videos: bool = False
    reads_normalised: bool = False
    bidirectional: Literal["none", "images", "prompt"] = "none"
    positions: Literal["from_zero", "from_one", "mrope"] = "from_zero"
    softcap: bool = False
    vision: tuple[str, ...] = ()
    projector: tuple[str, ...] = ()
    language: tuple[str, ...] = ("model", "lm_head")
    no_tree: str | None = None
    known: bool = True

    @property
    def has_vision(self) -> bool:
        """True for vision-language models."""
        return bool(self.media_inputs)

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return the parts this family has: name -> prefixes of parameter names."""
        return {name: getattr(self, name) for name in PART_NAMES if getattr(self, name)}


BACKBONES: dict[str, Backbone] = {
    "cohere": Backbone(logit_factor="logit_scale"),
    "gemma": Backbone(),
    "gemma2": Backbone(masks="by_layer", softcap=True),
    "gemma3_text": Backbone(masks="by_layer", softcap=True),
    "granite": Backbone(logit_divisor="logits_scaling"),
    "llama": Backbone(),
    "mistral": Backbone(),
    "olmo2": Backbone(),
    "phi3": Backbone(),
    "qwen2": Backbone(masks="by_layer"),
    "qwen2_vl_text": Backbone(masks="by_layer"),
    "qwen2_5_vl_text": Backbone(masks="by_layer"),
    "qwen3": Backbone(masks="by_layer"),
    "qwen3_moe": Backbone(),
    "qwen3_vl_text": Backbone(),
    "smollm3": Backbone(masks="by_layer"),
    "starcoder2": Backbone(),
}

_QWEN = Family(
    name="qwen2_vl",
    media_inputs=("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"),
    token_types="mm_token_type_ids",
    videos="apart",
    positions="mrope",
    vision=("model.visual",),
    projector=("model.visual.merger",),
    language=("model.language_model", "lm_head"),
)
_LLAVA = Family(
    name="llava",
    media_inputs=("pixel_values", "image_sizes"),
    vision=("model.vision_tower",),
    projector=("model.multi_modal_projector",),
    language=("model.language_model", "lm_head"),
)
_LLAVA_NEXT = replace(_LLAVA, name="llava_next", projector=("model.multi_modal_projector", "model.image_newline"))
_IDEFICS3 = Family(
    name="idefics3",
    media_inputs=("pixel_values", "pixel_attention_mask"),
    media_per_row=True,
    vision=("model.vision_model",),
    projector=("model.connector",),
    language=("model.text_model", "lm_head"),
)
_GEMMA3 = replace(
    _LLAVA, name="gemma3", media_inputs=("pixel_values",), token_types="token_type_ids", bidirectional="images"
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _QWEN,
        replace(_QWEN, name="qwen2_5_vl"),
        replace(_QWEN, name="qwen3_vl", projector=("model.visual.merger", "model.visual.deepstack_merger_list")),
        _LLAVA,
        _LLAVA_NEXT,
        replace(
            _LLAVA_NEXT,
            name="llava_onevision",
            media_inputs=("pixel_values", "image_sizes", "batch_num_images", "pixel_values_videos"),
            videos="apart",
            frame_pooling=4,
            equal_videos=True,
        ),
        _IDEFICS3,
        replace(_IDEFICS3, name="smolvlm", videos="as_pictures"),
        replace(_LLAVA, name="internvl", media_inputs=("pixel_values",), videos="as_pictures", reads_normalised=True),
        replace(_LLAVA, name="mistral3"),
        _GEMMA3,
        replace(_GEMMA3, name="paligemma", bidirectional="prompt", positions="from_one", softcap=True),
    )
}

_FLAT_ONLY: dict[str, str] = {
    "lfm2": _STATE_IS_CARRIED,
    "lfm2_vl": _STATE_IS_CARRIED,
    "mamba": _STATE_IS_CARRIED,
    "mllama": "its image cross-attention takes a mask of its own",
    "qwen3_5": _STATE_IS_CARRIED,
    "qwen3_next": _STATE_IS_CARRIED,
}


def backbone_of(config: Any) -> Backbone | None:
    """Return the text decoder of a transformers config, None when it is not in the table."""
    return BACKBONES.get(config.get_text_config().model_type)


def family_of(config: Any) -> Family:
    """Return the family of a transformers config.

    A model that is not in the tables gets a family whose `no_tree` says so and whose `known` is False: it runs as
    separate rows through its own top-level forward.
    """
    model_type, text_type = config.model_type, config.get_text_config().model_type
    backbone = backbone_of(config)
    if model_type in FAMILIES and backbone is not None:
        return _refined(FAMILIES[model_type], config)
    if model_type in BACKBONES:
        return Family(name=model_type, softcap=BACKBONES[model_type].softcap)
    if model_type in FAMILIES:
        reason = f"its text decoder {text_type!r} is not in the table of engine/families.py"
        return replace(FAMILIES[model_type], no_tree=reason, known=False)
    reason = _FLAT_ONLY.get(model_type, f"model type {model_type!r} is not in the table of engine/families.py")
    return Family(name=model_type, no_tree=reason, known=False, media_inputs=_guess_media_inputs(config))


def media_token_ids(config: Any) -> tuple[int | None, int | None]:
    """Return the ids of the image and the video placeholder token, None where the model has none."""

    def named(kind: str) -> int | None:
        token_id = getattr(config, f"{kind}_token_id", None)
        return getattr(config, f"{kind}_token_index", None) if token_id is None else token_id

    return named("image"), named("video")


def families_with_videos() -> tuple[str, ...]:
    """Return the names of the families through which videos go."""
    return tuple(name for name, family in FAMILIES.items() if family.videos != "none")


def _refined(family: Family, config: Any) -> Family:
    """Return the family with what only the config tells."""
    if family.name == "paligemma" and config.get_text_config().model_type != "gemma":
        reason = "PaliGemma 2 mixes windowed and full layers, but its forward takes one mask for all of them"
        return replace(family, no_tree=reason)
    return family


def _guess_media_inputs(config: Any) -> tuple[str, ...]:
    """Return the media inputs that unknown vision-language models most often have."""
    if getattr(config, "vision_config", None) is None:
        return ()
    return ("pixel_values", "image_sizes", "image_grid_thw", "pixel_attention_mask")
