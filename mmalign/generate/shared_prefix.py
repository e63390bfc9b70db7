"""Many answers to a prompt that is computed once: keys and values of the prompt are made once and copied to N branches.

Prompts of different length stand in a batch padded on the left, so that windows of attention, which count columns, see
what they would see without padding. Positions are those of training (`masks.tree_positions`), also those with which an
answer goes on: behind a video whose frames lie far apart, transformers' own `generate` puts an answer elsewhere than
its own forward does.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmalign.engine.families import Family
from mmalign.engine.masks import tree_positions
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.tokenise import PromptTree
from mmalign.engine.tree import collate
from mmalign.generate.branches import Branch, Ends, grow
from mmalign.generate.sampling import Sampling


@dataclass(frozen=True, kw_only=True)
class _State:
    """Branches in the middle of their growth: L of them, C columns so far.

    Args:
        cache: transformers' keys and values, [L, heads, C, D] in every layer.
        logits: [L, V] for the next tokens.
        mask: int64 [L, C]; 0 in the padding before a prompt.
        positions: of the next tokens, [L, 1] or [3, L, 1].
    """

    cache: Any
    logits: Tensor
    mask: Tensor
    positions: Tensor

    def repeated(self, times: int, *, last: bool) -> _State:
        """Return `times` copies of every branch, one behind the other; `last` may use up the cache itself."""
        cache = self.cache if last else copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(times)
        return _State(
            cache=cache,
            logits=self.logits.repeat_interleave(times, dim=0),
            mask=self.mask.repeat_interleave(times, dim=0),
            positions=self.positions.repeat_interleave(times, dim=-2),
        )

    def only(self, places: Tensor) -> _State:
        """Return the branches at these places, int64 [M]."""
        self.cache.batch_select_indices(places)
        return replace(
            self, logits=self.logits[places], mask=self.mask[places], positions=self.positions[..., places, :]
        )


def answer_shared(
    model: nn.Module,
    family: Family,
    trees: Sequence[PromptTree],
    branches: Sequence[Sequence[Branch]],
    sampling: Sampling,
    ends: Ends,
    *,
    pad_id: int,
    at_once: int,
) -> None:
    """Grow the branches of every prompt to their ends.

    Args:
        model: with its language-model head, in evaluation mode; of a family that the engine knows.
        trees: B prompts without responses.
        branches: B times N.
        pad_id: any id that is no media placeholder.
        at_once: most branches that grow together; where N is larger, the prompt's keys and values serve several rounds.
    """
    prompt = _prefill(model, family, trees, pad_id)
    number, width = len(branches[0]), max(1, at_once // len(trees))
    for start in range(0, number, width):
        some = [branch for row in branches for branch in row[start : start + width]]
        state = prompt.repeated(min(width, number - start), last=start + width >= number)
        _grow_to_the_end(model, state, some, sampling, ends)


def _prefill(model: nn.Module, family: Family, trees: Sequence[PromptTree], pad_id: int) -> _State:
    """Compute prompts and their media; return where answers begin."""
    device = next(model.parameters()).device
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    # One token stands for an answer, so that the engine says where answers go on.
    batch = collate(
        [replace(tree, response_ids=(torch.tensor([pad_id]),), levels=(0,)) for tree in trees], family, pad_id
    ).to(device)
    positions, lengths = tree_positions(batch, family, base.base_model), batch.prompt_lengths
    source = torch.arange(int(lengths.max()), device=device)[None] - (lengths.max() - lengths)[:, None]
    real, source = source >= 0, source.clamp(min=0)
    types = {} if family.token_types is None else token_types(trees, family.token_types)
    with ragged_videos(base.base_model):
        output = model(
            input_ids=batch.input_ids.gather(1, source).masked_fill(~real, pad_id),
            attention_mask=real.long(),
            position_ids=_along(positions, source).masked_fill(~real, 0),
            **{name: tensor.to(device) for name, tensor in types.items()},
            **batch.media,
            use_cache=True,
            logits_to_keep=1,
        )
    return _State(
        cache=output.past_key_values,
        logits=output.logits[:, -1],
        mask=real.long(),
        positions=_along(positions, lengths[:, None]),
    )


def _along(positions: Tensor, columns: Tensor) -> Tensor:
    """Return positions [..., B, T] at columns [B, C]."""
    return positions.gather(-1, columns.expand(*positions.shape[:-1], -1))


def _grow_to_the_end(
    model: nn.Module, state: _State, branches: Sequence[Branch], sampling: Sampling, ends: Ends
) -> None:
    while True:
        tokens = grow(branches, state.logits, sampling, ends)
        going_on = [place for place, branch in enumerate(branches) if branch.finish is None]
        if not going_on:
            return
        if 2 * len(going_on) <= len(branches):
            places = torch.tensor(going_on, device=tokens.device)
            state, tokens, branches = state.only(places), tokens[places], [branches[place] for place in going_on]
        mask = torch.cat([state.mask, state.mask.new_ones(len(branches), 1)], dim=1)
        output = model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=state.positions,
            past_key_values=state.cache,
            use_cache=True,
        )
        state = replace(
            state,
            cache=output.past_key_values,
            logits=output.logits[:, -1],
            mask=mask,
            positions=state.positions + 1,
        )


def token_types(trees: Sequence[PromptTree], name: str) -> dict[str, Tensor]:
    """Return the token types of prompts that are padded on the left, {} where their processor makes none."""
    rows = [tree.mm_token_type_ids if name == "mm_token_type_ids" else tree.prompt_extra.get(name) for tree in trees]
    return {} if any(row is None for row in rows) else {name: left_padded(rows, 0)}


def left_padded(rows: Sequence[Tensor], fill: int) -> Tensor:
    """Stack 1-D tensors, filled up on the left to the longest."""
    longest = max(len(row) for row in rows)
    return torch.stack([pad(row, (longest - len(row), 0), value=fill) for row in rows])
