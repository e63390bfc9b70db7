"""Prompts with videos through a processor, one medium after the other.

A processor takes all media of a prompt in one call, but not all prompts: SmolVLM's loses the pictures of a prompt that
has videos too, InternVL's and LLaVA-OneVision's want all videos equally long. So every video is shown to the processor
by itself, and pictures together, as they are without videos. Where frames are pictures to the model, every medium comes
by itself and all are put in one line in the order of the prompt. What the processor takes in one call comes out the
same, token for token and pixel for pixel (`tests/engine/test_videos.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import Tensor

from mmalign.engine.families import Family
from mmalign.engine.media_inputs import LoadedMedia
from mmalign.engine.media_tokens import expand_prompt, soft_tokens
from mmalign.engine.tree import collate_media, concatenate
from mmalign.errors import ModelError

_MEDIA_TOKENS = "media_tokens"


def assemble(
    processor: Any, family: Family, prompt: str, media: LoadedMedia, picture_arguments: dict
) -> dict[str, Any]:
    """Return what the processor makes of a prompt with videos, with a leading dimension of 1.

    Args:
        prompt: rendered, with one placeholder per medium.
        picture_arguments: what the processor's call gets beside pictures.

    Raises:
        ModelError: this version of the processor makes other tokens than were counted, or a tensor of some media only.
    """
    expanded = expand_prompt(processor, prompt, media.arriving)
    ids = processor.tokenizer(expanded, add_special_tokens=False, return_tensors="pt")["input_ids"]
    pieces = list(_processed(processor, family, prompt, media, picture_arguments))
    made, counted = sum(int(piece.pop(_MEDIA_TOKENS)) for piece in pieces), _media_tokens(processor, ids)
    if made != counted:
        raise ModelError(
            f"{type(processor).__name__} makes {made} media tokens where {counted} are counted; transformers "
            f"{transformers.__version__} computes them in a way that engine/media_tokens.py does not know"
        )
    if family.media_per_row:
        tensors = _in_one_row(processor, pieces)
    else:
        tensors, _ = collate_media(pieces, family)
    types = {} if family.token_types is None else {family.token_types: _token_types(processor, ids)}
    return {"input_ids": ids, **types, **tensors}


def _in_one_row(processor: Any, pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors [1, images, ...] of media that are all pictures to the model, one behind the other."""
    names = {name for piece in pieces for name in piece}
    for name in sorted(names):
        if not all(name in piece for piece in pieces):
            raise ModelError(
                f"{type(processor).__name__} makes {name} of some media of a row and not of others, which cannot be "
                f"put together; transformers {transformers.__version__} does so, use another"
            )
    return {name: concatenate([piece[name][0] for piece in pieces])[None] for name in pieces[0]}


def _processed(
    processor: Any, family: Family, prompt: str, media: LoadedMedia, picture_arguments: dict
) -> Iterator[dict[str, Tensor]]:
    """Yield the processor's tensors for one medium after the other."""
    pictures, clips = iter(media.pictures), zip(media.frames, media.arriving.clips, strict=True)
    together = family.videos == "apart"
    if together and media.pictures:
        text = processor.image_token * len(media.pictures)
        yield _call(processor, family, text, images=[list(media.pictures)], **picture_arguments)
    tokens = (processor.video_token,) if together else (processor.video_token, processor.image_token)
    for placeholder in re.findall("|".join(map(re.escape, tokens)), prompt):
        if placeholder == processor.video_token:
            frames, clip = next(clips)
            how = {**clip.arguments(processor.video_processor), "video_metadata": [clip.metadata()]}
            yield _call(processor, family, placeholder, videos=[[frames]], videos_kwargs=how)
        else:
            yield _call(processor, family, placeholder, images=[[next(pictures)]], **picture_arguments)


def _call(processor: Any, family: Family, text: str, **media: Any) -> dict[str, Tensor]:
    made = processor(text=[text], add_special_tokens=False, return_tensors="pt", **media)
    tensors = {name: torch.as_tensor(made[name]) for name in family.media_inputs if name in made}
    return {**tensors, _MEDIA_TOKENS: torch.tensor(_media_tokens(processor, made["input_ids"]))}


def _media_tokens(processor: Any, ids: Tensor) -> int:
    soft_ids = processor.tokenizer.convert_tokens_to_ids(list(soft_tokens(processor)))
    return int(torch.isin(ids, torch.tensor(soft_ids)).sum())


def _token_types(processor: Any, ids: Tensor) -> Tensor:
    """Return 1 at the tokens of pictures, 2 at those of videos, else 0."""
    image_id, video_id = (
        processor.tokenizer.convert_tokens_to_ids(token) for token in (processor.image_token, processor.video_token)
    )
    return (ids == image_id).long() + 2 * (ids == video_id).long()
