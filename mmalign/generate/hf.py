"""Answers of a model that is in memory, many at a time, every prompt computed once for all its answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmalign.engine.families import family_of
from mmalign.engine.load import load_model
from mmalign.engine.policy import Policy
from mmalign.engine.tokenise import PromptTree, Tokeniser, load_processor
from mmalign.errors import ModelError, RowError
from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference
from mmalign.formats.prompt import Prompt
from mmalign.generate.answers import Generated, OnRefused
from mmalign.generate.branches import Branch, Ends
from mmalign.generate.plain import answer_plainly
from mmalign.generate.sampling import GREEDY, Sampling, seed_of
from mmalign.generate.shared_prefix import answer_shared
from mmalign.modalities.fetch import MediaLimits

__all__ = ["LocalSampler", "Sampling"]


class LocalSampler:
    """A `Sampler` over a model in memory.

    Args:
        model: a policy, or a transformers or peft model; left in the mode in which it came.
        tokeniser: of the same model; its `max_length` bounds prompts, and shrinks media to fit.
        name: how rows call the model.
        answers_at_once: answers that grow together.
        shared_prefix: compute every prompt once for all its answers; None does so for every family that the engine
            knows, False repeats it.

    Raises:
        ModelError: `shared_prefix` is asked of a model that the engine does not know.
    """

    def __init__(
        self,
        model: nn.Module,
        tokeniser: Tokeniser,
        *,
        name: str = "",
        answers_at_once: int = 16,
        shared_prefix: bool | None = None,
    ) -> None:
        self.model = model.model if isinstance(model, Policy) else model
        self.tokeniser, self.name, self.answers_at_once = tokeniser, name, answers_at_once
        if shared_prefix and not tokeniser.family.known:
            raise ModelError(
                f"{tokeniser.family.name} cannot share a prompt among answers: {tokeniser.family.no_tree}; "
                "leave shared_prefix out"
            )
        self.shares_prefix = tokeniser.family.known if shared_prefix is None else shared_prefix
        self.tokens_made = 0

    @classmethod
    def load(
        cls,
        path: str | Path,
        limits: Mapping[MediaKind, MediaLimits],
        *,
        max_length: int | None = None,
        device: torch.device | str = "cpu",
        answers_at_once: int = 16,
        **how: Any,
    ) -> LocalSampler:
        """Load a model, or an adapter with its model, and its processor.

        Args:
            path: directory or hub id.
            limits: of every kind of media.
            max_length: bound on prompts in tokens.
            how: as in `load_model`.
        """
        model = load_model(path, **how)
        processor = load_processor(path, trust_remote_code=how.get("trust_remote_code", False))
        tokeniser = Tokeniser(processor, family_of(model.config), limits, max_length=max_length)
        movable = how.get("quantize") is None  # quantised models have their device
        model = model.to(device) if movable else model
        return cls(model, tokeniser, name=str(path), answers_at_once=answers_at_once)

    def sample(
        self,
        prompts: Iterable[Prompt | Preference],
        *,
        n: int = 1,
        sampling: Sampling = GREEDY,
        seed: int = 0,
        on_refused: OnRefused | None = None,
    ) -> Iterator[Generated]:
        """Yield n answers for every prompt; see `answers.Sampler`."""
        ends = Ends(self.tokeniser.tokenizer, self._end_ids(), sampling)
        trees = self._tokenised(map(Prompt.of, prompts), sampling, on_refused)
        for batch in _batches(trees, max(1, self.answers_at_once // n)):
            branches = [
                [Branch(seed_of(seed, prompt.id, number), tree.prompt_ids.tolist()) for number in range(n)]
                for prompt, tree in batch
            ]
            self._answer([tree for _, tree in batch], branches, sampling, ends)
            for (prompt, _), row in zip(batch, branches, strict=True):
                self.tokens_made += sum(len(branch.ids) for branch in row)
                yield Generated(prompt=prompt, samples=tuple(map(ends.sample, row)), model=self.name, seed=seed)

    def _tokenised(
        self, prompts: Iterable[Prompt], sampling: Sampling, on_refused: OnRefused | None
    ) -> Iterator[tuple[Prompt, PromptTree]]:
        for prompt in prompts:
            try:
                tree = self.tokeniser.prompt(prompt)
                self._require_room(len(tree.prompt_ids), sampling)
            except RowError as error:
                if on_refused is None:
                    raise
                on_refused(prompt, error)
                continue
            yield prompt, tree

    def _require_room(self, prompt_tokens: int, sampling: Sampling) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is not None and prompt_tokens + sampling.max_new_tokens > context:
            raise RowError(
                "prompt leaves no room for an answer",
                field="prompt",
                value=prompt_tokens,
                hint=f"the model's context is {context} tokens and an answer may take {sampling.max_new_tokens}; lower "
                "data.max_length, which shrinks media and drops old turns, or sampling.max_new_tokens",
            )

    def _answer(
        self, trees: Sequence[PromptTree], branches: Sequence[Sequence[Branch]], sampling: Sampling, ends: Ends
    ) -> None:
        way = answer_shared if self.shares_prefix else answer_plainly
        how = {"pad_id": self.tokeniser.pad_id, "at_once": self.answers_at_once}
        with torch.no_grad(), _evaluating(self.model):
            way(self.model, self.tokeniser.family, trees, branches, sampling, ends, **how)

    def _end_ids(self) -> list[int]:
        """Return every token that ends an answer: by the model's own settings, its tokenizer, its chat template."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ids = [*(own if isinstance(own, list) else [own])]
        ids += [self.tokeniser.tokenizer.eos_token_id, self.tokeniser.turn_end_id]
        return [token for token in ids if token is not None]


def _batches(items: Iterable[tuple[Prompt, PromptTree]], size: int) -> Iterator[list[tuple[Prompt, PromptTree]]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
