"""A batch of prompt trees as tensors: one row per prompt, its responses one after the other behind it.

    row = [prompt | response 1 | ... | response K | padding]

Every response sees the prompt and itself only (`masks.py`), so the row gives for each response what a row of its own
would give, and the prompt with its media is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmalign.engine.families import Family
from mmalign.engine.views import View

if TYPE_CHECKING:
    from mmalign.engine.tokenise import PromptTree

PADDING = -1
NOT_OF_THE_ROW = -1
"""Level where there is no response, or one that answers another prompt and is compared with nothing."""


@dataclass(frozen=True, kw_only=True)
class TreeBatch:
    """B prompts with up to K responses of up to R tokens, in rows of T columns, padded on the right.

    N is the number of response tokens of the whole batch; they are counted row by row, response by response.

    With V views (`views.py`) the batch holds B = (1 + V) * `groups` rows: the groups as they are, then all of them in
    the first view, and so on. A response that is not read of a view is empty there.

    Args:
        ids: id of every row.
        input_ids: int64 [B, T].
        segment: int64 [B, T]; 0 in the prompt, k in the k-th response (counted from 1), -1 in padding.
        index: int64 [B, T]; place of a token in its own stand-alone sequence (prompt + its response), 0 in padding.
        prompt_lengths: int64 [B].
        response_starts: int64 [B, K]; column of a response's first token (the prompt's length where there is none).
        response_lengths: int64 [B, K]; 0 where there is no response.
        response_mask: bool [B, K, R]; which cells of the returned log-probs are real tokens.
        target_rows: int64 [N]; row of every response token.
        target_columns: int64 [N]; its column.
        predicting_columns: int64 [N]; column whose logits predict it: the previous token of its response, or the last
            token of the prompt.
        media: collated processor outputs.
        media_sizes: for each of them, how many entries of dimension 0 belong to each row.
        media_keys: hash of every row's media, None for rows without.
        levels: int64 [B, K]; 0 is best, equal numbers are ties, `NOT_OF_THE_ROW` where no response of the row stands.
        weight: float32 [B].
        margin: float32 [B], nan where the row has none.
        scores: float32 [B, K] of the responses, nan where one has none.
        numbers: named scores, float64 [B, K] each, nan where a response has none; the names that any row has.
        token_weights: float32 [B, K, R] from spans (1 where a row has none), None when no row has spans.
        tags: free labels of every row.
        views: in which the groups stand behind the groups as they are.
    """

    ids: tuple[str, ...]
    input_ids: Tensor
    segment: Tensor
    index: Tensor
    prompt_lengths: Tensor
    response_starts: Tensor
    response_lengths: Tensor
    response_mask: Tensor
    target_rows: Tensor
    target_columns: Tensor
    predicting_columns: Tensor
    media: dict[str, Tensor]
    media_sizes: dict[str, tuple[int, ...]]
    media_keys: tuple[str | None, ...]
    levels: Tensor
    weight: Tensor
    margin: Tensor
    scores: Tensor
    numbers: dict[str, Tensor]
    token_weights: Tensor | None
    tags: tuple[dict, ...]
    views: tuple[View, ...] = ()

    @property
    def groups(self) -> int:
        """Return the number of groups, each of which has a row as it is and one for each view."""
        return len(self.ids) // (1 + len(self.views))

    @property
    def targets(self) -> Tensor:
        """Return the response tokens, int64 [N]."""
        return self.input_ids[self.target_rows, self.target_columns]

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens that are not padding."""
        return int((self.segment != PADDING).sum())

    def to(self, device: torch.device | str) -> TreeBatch:
        """Return the batch on another device."""
        moved = {f.name: _move(getattr(self, f.name), device) for f in fields(self)}
        return replace(self, **moved)


def collate(trees: Sequence[PromptTree], family: Family, pad_id: int, views: Sequence[View] = ()) -> TreeBatch:
    """Put prompt trees together into one batch.

    Args:
        trees: at least one; they may differ in the number of responses, in every length and in whether they have media;
            with views, in the order that `TreeBatch` says.
        family: tells how media tensors of different rows are put together.
        pad_id: any id of the vocabulary that is no media placeholder; padding is never attended to.
        views: of the groups, in this order.

    Raises:
        ValueError: what a tree says of its responses is not of as many as it has.
    """
    for tree in trees:
        _require_one_count(tree)
    rows = [_row(tree) for tree in trees]
    lengths = _stack([torch.tensor([len(r) for r in tree.response_ids]) for tree in trees], 0)
    prompt_lengths = torch.tensor([len(tree.prompt_ids) for tree in trees])
    starts = prompt_lengths[:, None] + lengths.cumsum(1) - lengths
    mask = torch.arange(int(lengths.max()))[None, None] < lengths[..., None]
    target_rows, response, offset = mask.nonzero(as_tuple=True)
    target_columns = starts[target_rows, response] + offset
    first = offset == 0
    media, media_sizes = collate_media([tree.media for tree in trees], family)
    return TreeBatch(
        ids=tuple(tree.id for tree in trees),
        input_ids=_stack([row[0] for row in rows], pad_id),
        segment=_stack([row[1] for row in rows], PADDING),
        index=_stack([row[2] for row in rows], 0),
        prompt_lengths=prompt_lengths,
        response_starts=torch.where(lengths > 0, starts, prompt_lengths[:, None]),
        response_lengths=lengths,
        response_mask=mask,
        target_rows=target_rows,
        target_columns=target_columns,
        predicting_columns=torch.where(first, prompt_lengths[target_rows] - 1, target_columns - 1),
        media=media,
        media_sizes=media_sizes,
        media_keys=tuple(tree.media_key for tree in trees),
        levels=_stack([torch.tensor(tree.levels) for tree in trees], NOT_OF_THE_ROW),
        weight=torch.tensor([float(tree.weight) for tree in trees]),
        margin=torch.tensor([math.nan if tree.margin is None else float(tree.margin) for tree in trees]),
        scores=_stack([torch.tensor(tree.scores or [math.nan] * len(tree.levels)) for tree in trees], math.nan),
        numbers=_numbers(trees),
        token_weights=_token_weights(trees, mask),
        tags=tuple(dict(tree.tags) for tree in trees),
        views=tuple(views),
    )


def collate_media(
    media: Sequence[dict[str, Tensor]], family: Family
) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
    """Put the media tensors of several rows together, in the order of the rows.

    Returns:
        the collated tensors, and for each of them how many entries of dimension 0 every row has.
    """
    names = [name for name in family.media_inputs if any(name in row for row in media)]
    collated, sizes = {}, {}
    for name in names:
        tensors = [row.get(name) for row in media]
        if family.media_per_row:
            example = next(tensor for tensor in tensors if tensor is not None)
            nothing = example.new_zeros(1, 0, *example.shape[2:])
            tensors = [nothing if tensor is None else tensor for tensor in tensors]
        sizes[name] = tuple(0 if tensor is None else len(tensor) for tensor in tensors)
        fill = math.nan if family.equal_videos and name == "pixel_values_videos" else 0.0
        collated[name] = concatenate([tensor for tensor in tensors if tensor is not None], fill)
    return collated, sizes


def likeliest_places(batch: TreeBatch) -> tuple[Tensor, Tensor]:
    """Return where the likeliest tokens of views are asked about and where they are asked for, int64 [M] each.

    Places count the N response tokens of the batch. What is likeliest at `asked`, in a view, is measured at `seen`, the
    same token of the same response of the row as it is.
    """
    places = [places_in_view(batch, view.name) for view in batch.views if view.likeliest]
    return torch.cat([seen for seen, _ in places]), torch.cat([asked for _, asked in places])


def places_in_view(batch: TreeBatch, view: str) -> tuple[Tensor, Tensor]:
    """Return where the response tokens of a view stand in the rows as they are, and in the view, int64 [M] each.

    Places count the N response tokens of the batch.
    """
    mask, groups = batch.response_mask, batch.groups
    number = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
    number = number.masked_scatter(mask, torch.arange(int(mask.sum()), device=mask.device))
    place = 1 + [one.name for one in batch.views].index(view)
    rows = slice(place * groups, (place + 1) * groups)
    return number[:groups][mask[rows]], number[rows][mask[rows]]


def places_of_rows(batch: TreeBatch) -> Tensor:
    """Return which of the N response tokens are of a row's own responses, read as the row is: int64 [M].

    Left out are those of views, and of answers to other prompts.
    """
    own = batch.response_mask & (batch.levels != NOT_OF_THE_ROW)[..., None]
    own = own & (torch.arange(len(own), device=own.device) < batch.groups)[:, None, None]
    return own[batch.response_mask].nonzero().squeeze(1)


def _row(tree: PromptTree) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids, segments and stand-alone indices of one tree, each [P + R_1 + ... + R_K]."""
    prompt_length = len(tree.prompt_ids)
    ids, segments = [tree.prompt_ids], [torch.zeros(prompt_length, dtype=torch.long)]
    indices = [torch.arange(prompt_length)]
    for k, response in enumerate(tree.response_ids, start=1):
        ids.append(response)
        segments.append(torch.full((len(response),), k))
        indices.append(prompt_length + torch.arange(len(response)))
    return torch.cat(ids), torch.cat(segments), torch.cat(indices)


def _stack(rows: Sequence[Tensor], fill: int | float) -> Tensor:
    """Stack 1-D tensors, filled up on the right to the longest."""
    longest = max(len(row) for row in rows)
    return torch.stack([pad(row, (0, longest - len(row)), value=fill) for row in rows])


def concatenate(tensors: Sequence[Tensor], fill: float = 0.0) -> Tensor:
    """Concatenate on dimension 0; the other dimensions are filled up at their end to the largest.

    Frames of NaN that fill up a shorter video are left out before the vision tower (`ragged_videos.py`).
    """
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    filled = []
    for tensor in tensors:
        missing = [extent - have for extent, have in zip(largest, tensor.shape[1:], strict=True)]
        padding = [amount for extent in reversed(missing) for amount in (0, extent)]
        filled.append(pad(tensor, padding, value=fill) if any(missing) else tensor)
    return torch.cat(filled)


def _require_one_count(tree: PromptTree) -> None:
    """All that is said of responses is about the same ones: what is stacked apart would be filled up silently."""
    said = {"levels": tree.levels, "scores": tree.scores, "weights": tree.response_weights, **tree.numbers}
    for name, values in said.items():
        if values is not None and len(values) != len(tree.response_ids) and (values or name != "scores"):
            raise ValueError(f"row {tree.id}: {len(tree.response_ids)} responses, and {name} of {len(values)}")


def _numbers(trees: Sequence[PromptTree]) -> dict[str, Tensor]:
    """Return every named score that some row has, [B, K]; in fp64, since log-probs of whole answers are compared."""
    names = dict.fromkeys(name for tree in trees for name in tree.numbers)
    nothing = {len(tree.levels): (math.nan,) * len(tree.levels) for tree in trees}

    def row(tree: PromptTree, name: str) -> Tensor:
        return torch.tensor(tree.numbers.get(name, nothing[len(tree.levels)]), dtype=torch.float64)

    return {name: _stack([row(tree, name) for tree in trees], math.nan) for name in names}


def _token_weights(trees: Sequence[PromptTree], mask: Tensor) -> Tensor | None:
    """Return the weight of every response token [B, K, R], None when no row has spans."""
    if all(tree.response_weights is None for tree in trees):
        return None
    weights = mask.float()
    for b, tree in enumerate(trees):
        for k, row in enumerate(tree.response_weights or ()):
            weights[b, k, : len(row)] = row
    return weights


def _move(value: object, device: torch.device | str) -> object:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: _move(entry, device) for name, entry in value.items()}
    return value
