"""Attention masks and positions of a prompt tree.

A 4-D mask is taken by transformers as it is: window, bidirectional image blocks and padding are then ignored unless
they stand in the mask. So the whole rule is here:

    allowed(query, key) = key is in the prompt or in the query's own response
                          and (key is not later than the query, or both are in one bidirectional block)
                          and the key is inside the query's window, counted in the stand-alone sequence
                          or key is query              (a padding row must see something)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmalign.engine.families import Family, backbone_of, media_token_ids
from mmalign.engine.tree import PADDING, TreeBatch


def token_types(batch: TreeBatch, config: Any) -> Tensor:
    """Return 1 at image placeholders of the prompts, 2 at video placeholders, else 0; int64 [B, T]."""
    types = torch.zeros_like(batch.input_ids)
    for kind, token_id in enumerate(media_token_ids(config), start=1):
        if token_id is not None:
            types[(batch.input_ids == token_id) & (batch.segment == 0)] = kind
    return types


def tree_attention_mask(
    batch: TreeBatch, family: Family, config: Any, *, additive_dtype: torch.dtype | None
) -> Tensor | dict[str, Tensor]:
    """Return the mask in the form the family's text decoder takes.

    Args:
        config: of the whole model.
        additive_dtype: None for a bool mask (sdpa: True = attend); a float dtype for an additive one (eager: 0 or the
            dtype's minimum; eager adds a bool mask to the scores without a word, which gives wrong numbers).

    Returns:
        [B, 1, T, T], or one such tensor for each layer type.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None)
    full = None
    masks: dict[str, Tensor] = {}
    by_layer = backbone_of(config).masks == "by_layer"
    kinds = set(text.layer_types) if by_layer else {"full_attention" if window is None else "sliding_attention"}
    for kind in kinds:
        cuts = kind == "sliding_attention" and int(batch.index.max()) >= window
        if cuts:
            masks[kind] = _as_given(_allowed(batch, family, config, window), additive_dtype)
        else:
            full = _as_given(_allowed(batch, family, config, None), additive_dtype) if full is None else full
            masks[kind] = full
    return masks if by_layer else next(iter(masks.values()))


def tree_positions(batch: TreeBatch, family: Family, inner: nn.Module) -> Tensor:
    """Return position ids: [B, T], or [3, B, T] for mRoPE.

    A response goes on from its prompt as it does in a row of its own.
    """
    if family.positions == "mrope" and batch.media:
        return _mrope_positions(batch, inner)
    positions = batch.index + (1 if family.positions == "from_one" else 0)
    return positions[None].expand(3, -1, -1) if family.positions == "mrope" else positions


def _allowed(batch: TreeBatch, family: Family, config: Any, window: int | None) -> Tensor:
    """Return the rule of this module as bool [B, 1, T, T]."""
    query_index, key_index = batch.index[:, :, None], batch.index[:, None, :]
    allowed = query_index >= key_index
    block = _bidirectional_blocks(batch, family, config)
    if block is not None:
        allowed |= (block[:, :, None] == block[:, None, :]) & (block != PADDING)[:, None, :]
    query_segment, key_segment = batch.segment[:, :, None], batch.segment[:, None, :]
    allowed &= (key_segment == query_segment) | (key_segment == 0)
    allowed &= key_segment != PADDING
    if window is not None:
        allowed &= query_index - key_index < window
    columns = torch.arange(batch.input_ids.shape[1], device=allowed.device)
    allowed[:, columns, columns] = True
    return allowed[:, None]


def _bidirectional_blocks(batch: TreeBatch, family: Family, config: Any) -> Tensor | None:
    """Return the number of the block a token belongs to, -1 outside of blocks; int64 [B, T]; None without blocks."""
    if family.bidirectional == "prompt":
        return torch.where(batch.segment == 0, 0, PADDING)
    if family.bidirectional == "images":
        is_image = token_types(batch, config) == 1
        begins = is_image & ~torch.nn.functional.pad(is_image, (1, 0))[:, :-1]
        return torch.where(is_image, begins.cumsum(1), PADDING)
    return None


def _as_given(allowed: Tensor, additive_dtype: torch.dtype | None) -> Tensor:
    if additive_dtype is None:
        return allowed
    additive = torch.zeros(allowed.shape, dtype=additive_dtype, device=allowed.device)
    return additive.masked_fill_(~allowed, torch.finfo(additive_dtype).min)


def _mrope_positions(batch: TreeBatch, inner: nn.Module) -> Tensor:
    """Return [3, B, T]: the model's own positions on the prompts, and counted on from where it puts the next token.

    That place is asked for, not computed: behind a video it is not the largest position plus one, because frames far
    apart in time have larger positions than the text that follows them. `get_rope_index` walks over tokens in Python,
    so it is given the prompts, each with the first token of its first response, on the CPU.
    """
    longest = int(batch.prompt_lengths.max()) + 1
    columns = torch.arange(longest, device=batch.input_ids.device)
    asked = (columns <= batch.prompt_lengths[:, None]).cpu()
    grids = {
        name: batch.media[name].cpu()
        for name in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        if name in batch.media
    }
    found, _ = inner.get_rope_index(
        input_ids=batch.input_ids[:, :longest].cpu(),
        mm_token_type_ids=token_types(batch, inner.config)[:, :longest].cpu(),
        attention_mask=asked.long(),
        **grids,
    )
    found = found.to(batch.index.device)
    next_position = found[0].gather(1, batch.prompt_lengths[:, None])
    positions = (batch.index - batch.prompt_lengths[:, None] + next_position)[None].repeat(3, 1, 1)
    inside = (batch.segment == 0)[:, :longest]
    positions[:, :, :longest] = torch.where(inside, found, positions[:, :, :longest])
    return positions.masked_fill_(batch.segment == PADDING, 0)
