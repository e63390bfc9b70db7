"""Answers while they grow: one branch each, with its own random numbers, and the rules by which it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmalign.generate.answers import Finish, Sample
from mmalign.generate.sampling import Sampling, is_endless

_TOKENS_BETWEEN_LOOKS = 8
_TOKENS_PER_CHARACTER = 4
"""A character takes at most so many tokens: a tokenizer that falls back to bytes needs four."""


@dataclass
class Branch:
    """One answer: its tokens so far, their log-probs, and why it ended; a repetition penalty reads `prompt_ids`."""

    seed: int
    prompt_ids: Sequence[int] = ()
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    finish: Finish | None = None

    def __post_init__(self) -> None:
        self._random = np.random.Generator(np.random.Philox(self.seed))

    def draw(self) -> float:
        """Return the random number of the next token, in [0, 1)."""
        return self._random.random()


class Ends:
    """Decides when an answer is over.

    Args:
        tokenizer: of the model.
        end_ids: tokens that end an answer.
        sampling: the other rules.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int], sampling: Sampling) -> None:
        self._tokenizer, self._end_ids, self._sampling = tokenizer, frozenset(end_ids), sampling
        longest = max((len(text) for text in sampling.stop), default=0)
        self._window = _TOKENS_PER_CHARACTER * (longest + 1)

    def reason(self, ids: list[int]) -> Finish | None:
        """Return why an answer of these tokens is over, None while it goes on."""
        if ids[-1] in self._end_ids:
            return "end"
        if self._stop_in(self._decoded(ids[-self._window :]) if self._window else "") is not None:
            return "stop"
        if len(ids) >= self._sampling.max_new_tokens:
            return "length"
        if len(ids) % _TOKENS_BETWEEN_LOOKS == 0 and is_endless(ids, self._sampling.endless_after_tokens):
            return "endless"
        return None

    def sample(self, branch: Branch) -> Sample:
        """Return what became of a branch."""
        text = self._decoded(branch.ids)
        place = self._stop_in(text)
        return Sample(
            text=(text if place is None else text[:place]).strip(),
            finish=branch.finish,
            seed=branch.seed,
            ids=tuple(branch.ids),
            logps=tuple(branch.logps),
        )

    def _decoded(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def _stop_in(self, text: str) -> int | None:
        places = [text.find(stop) for stop in self._sampling.stop if stop in text]
        return min(places, default=None)


def grow(branches: Sequence[Branch], logits: Tensor, sampling: Sampling, ends: Ends) -> Tensor:
    """Let every branch take its next token, and end those that are over.

    Args:
        branches: L of them; those that are over take a token without keeping it.
        logits: [L, V] for the next token of each.

    Returns:
        the tokens, int64 [L].
    """
    logits = logits.float()
    numbers = [0.0 if branch.finish else branch.draw() for branch in branches] if sampling.temperature else []
    tokens = choose(_penalised(logits, branches, sampling), sampling, torch.tensor(numbers, dtype=torch.float64))
    logps = logits.log_softmax(-1).gather(1, tokens[:, None]).squeeze(1)
    for branch, token, logp in zip(branches, tokens.tolist(), logps.tolist(), strict=True):
        if branch.finish is None:
            branch.ids.append(token)
            branch.logps.append(logp)
            branch.finish = ends.reason(branch.ids) if math.isfinite(logp) else "not_finite"
    return tokens


def _penalised(logits: Tensor, branches: Sequence[Branch], sampling: Sampling) -> Tensor:
    """Return logits [L, V] with those of tokens that a branch holds already made less probable."""
    if sampling.repetition_penalty == 1:
        return logits
    logits = logits.clone()
    for row, branch in zip(logits, branches, strict=True):
        held = torch.tensor(sorted({*branch.prompt_ids, *branch.ids}), device=row.device)
        values = row[held]
        penalty = sampling.repetition_penalty
        row[held] = torch.where(values < 0, values * penalty, values / penalty)
    return logits


def choose(logits: Tensor, sampling: Sampling, numbers: Tensor) -> Tensor:
    """Return the token that each random number picks from the filtered distribution, int64 [L].

    Tokens stand in the order of the vocabulary on the line from 0 to 1, so that rounding moves a choice only where a
    number falls within it onto the border between two tokens.

    Args:
        logits: float32 [L, V].
        sampling: temperature 0 takes the most probable token and reads no numbers.
        numbers: float64 [L] in [0, 1).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = probabilities.topk(sampling.top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    if sampling.top_p < 1:
        probabilities = _nucleus(probabilities / probabilities.sum(-1, keepdim=True), sampling.top_p)
    line = probabilities.cumsum(-1)
    picked = torch.searchsorted(line, numbers.to(line.device)[:, None] * line[:, -1:], right=True).squeeze(1)
    return picked.clamp(max=logits.shape[-1] - 1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return the distribution with all but the most probable tokens that have this probability together set to 0."""
    ordered, places = probabilities.sort(-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.masked_fill(torch.zeros_like(outside).scatter(-1, places, outside), 0.0)
