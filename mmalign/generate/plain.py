"""The plain way: transformers' own `generate` on rows that repeat their prompt, for models the engine does not know.

Tokens are chosen and answers ended by the same code as with a shared prefix (`branches.py`); `generate` only runs the
model. That makes it the yardstick for `shared_prefix.py`, in tests and in `tools/bench_generate.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor, StoppingCriteria

from mmalign.engine.families import Family
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.tokenise import PromptTree
from mmalign.engine.tree import collate_media
from mmalign.generate.branches import Branch, Ends, grow
from mmalign.generate.sampling import Sampling
from mmalign.generate.shared_prefix import left_padded, token_types

_TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")


class _Choosing(LogitsProcessor):
    """Leaves `generate` the one token that each branch takes."""

    def __init__(self, branches: Sequence[Branch], sampling: Sampling, ends: Ends) -> None:
        self._branches, self._sampling, self._ends = branches, sampling, ends

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [L, V] that are finite at one token each."""
        tokens = grow(self._branches, scores, self._sampling, self._ends)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)


class _Over(StoppingCriteria):
    """Tells `generate` which branches are over."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._branches = branches

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> Tensor:
        """Return bool [L]."""
        return torch.tensor([branch.finish is not None for branch in self._branches], device=input_ids.device)


def answer_plainly(
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
    """Grow the branches of every prompt to their ends; arguments as in `shared_prefix.answer_shared`."""
    device = next(model.parameters()).device
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    pairs = [(tree, branch) for tree, row in zip(trees, branches, strict=True) for branch in row]
    for start in range(0, len(pairs), at_once):
        some = pairs[start : start + at_once]
        growing = [branch for _, branch in some]
        made = prompt_inputs([tree for tree, _ in some], family, pad_id)
        inputs = {name: tensor.to(device) for name, tensor in made.items()}
        with ragged_videos(base.base_model):
            model.generate(
                **inputs,
                max_new_tokens=sampling.max_new_tokens,
                do_sample=False,
                num_beams=1,
                repetition_penalty=1.0,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=pad_id,
                logits_processor=[_Choosing(growing, sampling, ends)],
                stopping_criteria=[_Over(growing)],
            )


def prompt_inputs(trees: Sequence[PromptTree], family: Family, pad_id: int) -> dict[str, Tensor]:
    """Return what `generate` takes: prompts padded on the left, media put together in the order of the rows."""
    prompts = [tree.prompt_ids for tree in trees]
    media, _ = collate_media([tree.media for tree in trees], family)
    inputs = {
        "input_ids": left_padded(prompts, pad_id),
        "attention_mask": left_padded([torch.ones_like(prompt) for prompt in prompts], 0),
        **media,
    }
    for name in _TOKEN_TYPES:
        inputs |= token_types(trees, name)
    return inputs
