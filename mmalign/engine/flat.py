"""Separate rows: [prompt | one response], each with its own copy of the prompt and its media.

This is what other trainers compute. Here it serves models that cannot be a tree, and tests as the yardstick: positions,
masks and token types are the model's own, from a plain 2-D mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign.engine.families import Family
from mmalign.engine.forward import ModelCall
from mmalign.engine.masks import token_types
from mmalign.engine.tree import TreeBatch


def flat_call(batch: TreeBatch, family: Family, config: Any) -> ModelCall:
    """Return the call that computes every response in a row of its own.

    Rows without a response (a group with fewer than K) do not exist; the others stand group by group.
    """
    exists = batch.response_lengths > 0
    group, response = exists.nonzero(as_tuple=True)
    source, valid = _source_columns(batch, group, response)
    inputs = {
        "input_ids": batch.input_ids[group[:, None], source].masked_fill(~valid, _padding_id(batch)),
        "attention_mask": valid.long(),
    }
    if family.token_types is not None:
        inputs[family.token_types] = _native_token_types(batch, family, config, group, source).masked_fill(~valid, 0)
    row_of_response = (exists.flatten().cumsum(0) - 1).view_as(exists)
    b, k, offset = batch.response_mask.nonzero(as_tuple=True)
    return ModelCall(
        inputs=inputs,
        media=_repeat_media(batch, exists.sum(1).tolist()),
        rows=row_of_response[b, k],
        columns=batch.prompt_lengths[b] + offset - 1,
    )


def _source_columns(batch: TreeBatch, group: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Return the column of the tree that each cell of the separate rows comes from, and which cells are real."""
    prompt = batch.prompt_lengths[group][:, None]
    length = prompt + batch.response_lengths[group, response][:, None]
    start = batch.response_starts[group, response][:, None]
    columns = torch.arange(int(length.max()), device=batch.input_ids.device)[None]
    valid = columns < length
    source = torch.where(columns < prompt, columns, start + columns - prompt)
    return source.masked_fill(~valid, 0), valid


def _padding_id(batch: TreeBatch) -> int:
    """Return an id to pad with that is no media placeholder: the last token of some response."""
    return int(batch.targets[-1])


def _native_token_types(batch: TreeBatch, family: Family, config: Any, group: Tensor, source: Tensor) -> Tensor:
    """Return token types as the family's processor would: by medium, or 1 for what follows the prompt (PaliGemma)."""
    if family.bidirectional == "prompt":
        types = (batch.segment > 0).long()
    else:
        types = token_types(batch, config)
    return types[group[:, None], source]


def _repeat_media(batch: TreeBatch, copies: list[int]) -> dict[str, Tensor]:
    """Repeat every row's media once for each of its responses."""
    repeated = {}
    for name, tensor in batch.media.items():
        pieces = tensor.split(list(batch.media_sizes[name]))
        repeated[name] = torch.cat([piece for piece, n in zip(pieces, copies, strict=True) for _ in range(n)])
    return repeated
