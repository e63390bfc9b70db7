"""Answers of a model that is in memory, by transformers' own `generate`, many prompts at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.tokenise import PromptTree, Tokeniser
from mmalign.engine.tree import collate_media
from mmalign.errors import ConfigError
from mmalign.formats.preference import Preference


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Args:
        max_new_tokens: an answer that does not end by then is cut.
        temperature: 0 takes the most probable token; 1 samples from the model's own distribution.
        top_p: sample from the smallest set of tokens that has this probability.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"sampling needs max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1, got {self.max_new_tokens}, "
                f"{self.temperature} and {self.top_p}"
            )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for `generate`. Every filter is named: model directories carry defaults of their own."""
        common = {"max_new_tokens": self.max_new_tokens, "num_beams": 1, "repetition_penalty": 1.0}
        if self.temperature == 0:
            return {**common, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {**common, "do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


def answer(
    model: nn.Module,
    tokeniser: Tokeniser,
    rows: Iterable[Preference],
    sampling: Sampling,
    *,
    batch_size: int = 16,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> list[str]:
    """Return the model's answer to the prompt of every row; the responses of the rows are not shown to it.

    Args:
        model: transformers (or peft) model; left in the mode in which it came.
        tokeniser: of the same model.
        rows: prompts with their media.
        batch_size: prompts per call of `generate`; answers do not depend on it when temperature is 0.
        seed: every batch samples from `seed` + its number; the global random state is left alone.
        on_batch: told the number of prompts done after every batch.

    Raises:
        RowError: a row cannot be rendered or its media cannot be read.
    """
    was_training = model.training
    model.eval()
    answers: list[str] = []
    try:
        for number, batch in enumerate(_batches(rows, batch_size)):
            answers += _answer_batch(model, tokeniser, [tokeniser(row) for row in batch], sampling, seed + number)
            if on_batch is not None:
                on_batch(len(answers))
    finally:
        model.train(was_training)
    return answers


def _batches(rows: Iterable[Preference], size: int) -> Iterator[list[Preference]]:
    iterator = iter(rows)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


@torch.no_grad()
def _answer_batch(
    model: nn.Module, tokeniser: Tokeniser, trees: Sequence[PromptTree], sampling: Sampling, seed: int
) -> list[str]:
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in _inputs(trees, tokeniser).items()}
    inner = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), ragged_videos(inner):
        torch.manual_seed(seed)
        ids = model.generate(**inputs, **sampling.arguments(), pad_token_id=tokeniser.pad_id)
    new_ids = ids[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokeniser.tokenizer.batch_decode(new_ids, skip_special_tokens=True)]


def _inputs(trees: Sequence[PromptTree], tokeniser: Tokeniser) -> dict[str, Tensor]:
    """Return what `generate` takes: prompts padded on the left, media put together in the order of the rows."""
    prompts = [tree.prompt_ids for tree in trees]
    per_token = {name: [_extra(tree, name) for tree in trees] for name in ("mm_token_type_ids", "token_type_ids")}
    media, _ = collate_media([tree.media for tree in trees], tokeniser.family)
    return {
        "input_ids": _left_padded(prompts, tokeniser.pad_id),
        "attention_mask": _left_padded([torch.ones_like(prompt) for prompt in prompts], 0),
        **{name: _left_padded(rows, 0) for name, rows in per_token.items() if all(row is not None for row in rows)},
        **media,
    }


def _extra(tree: PromptTree, name: str) -> Tensor | None:
    return tree.mm_token_type_ids if name == "mm_token_type_ids" else tree.prompt_extra.get(name)


def _left_padded(rows: Sequence[Tensor], fill: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.stack([pad(row, (longest - len(row), 0), value=fill) for row in rows])
