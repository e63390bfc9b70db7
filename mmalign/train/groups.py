"""From a batch to what objectives read: facts of its groups, and numbers of their tokens, views beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from zlib import crc32

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.engine.tree import NOT_OF_THE_ROW, TreeBatch
from mmalign.objectives.comparison import GroupFacts


def facts_of(batch: TreeBatch) -> GroupFacts:
    """Return what is known of the batch's groups before any forward."""
    device, groups = batch.weight.device, slice(batch.groups)
    ids, tags = batch.ids[groups], batch.tags[groups]
    return GroupFacts(
        levels=batch.levels[groups],
        weight=batch.weight[groups],
        margin=batch.margin[groups],
        response_mask=(batch.response_lengths[groups] > 0) & (batch.levels[groups] != NOT_OF_THE_ROW),
        scores=batch.scores[groups],
        seed=torch.tensor([crc32(name.encode()) for name in ids], device=device),
        annotator=torch.tensor([crc32(one.get("annotator", "").encode()) for one in tags], device=device),
        numbers={name: values[groups] for name, values in batch.numbers.items()},
    )


def groups_of(
    token_logps: Tensor, batch: TreeBatch, dense: Mapping[str, Tensor] | None = None, log_purity: Tensor | None = None
) -> GroupLogps:
    """Return numbers of the rows of a batch as those of its groups, with their views."""
    mask = batch.response_mask
    tokens = torch.zeros(mask.shape, dtype=batch.targets.dtype, device=mask.device).masked_scatter(mask, batch.targets)
    rows = GroupLogps(token_logps, mask, batch.token_weights, tokens, log_purity, dense or {})
    own, *others = (
        rows.mapped(lambda value, start=start: value[start : start + batch.groups])
        for start in range(0, len(mask), batch.groups)
    )
    return replace(own, views={view.name: seen for view, seen in zip(batch.views, others, strict=True)})
