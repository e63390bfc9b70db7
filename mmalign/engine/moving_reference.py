"""References that move: every so many steps they take over a share of the policy's weights (TR-DPO).

    reference <- (1 - share) reference + share policy

A share of 1 is a copy of the policy; less, on every step, an exponential moving average. What moves is what is trained.
Under full fine-tuning these are the weights that a `FrozenCopy` holds twice; with adapters they are the adapter's, and
the policy itself runs as its own reference with an earlier adapter in place (`EarlierAdapter`).

Source: TR-DPO, arXiv:2404.09656; TRL's SyncRefModelCallback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmalign.engine.distributions import Distributions
from mmalign.engine.policy import Policy
from mmalign.engine.reference import FrozenCopy
from mmalign.engine.token_terms import ReferenceKl, States
from mmalign.engine.tree import TreeBatch
from mmalign.errors import ModelError


class EarlierAdapter:
    """The policy with another state of its trained weights, at first those of now; no second model in memory."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.models: tuple[PreTrainedModel, ...] = (policy.base,)
        self.weights = {name: weight.detach().clone() for name, weight in trained_weights(policy).items()}

    @torch.no_grad()
    def __call__(self, batch: TreeBatch) -> Tensor:
        """Return the log-probs under these weights, without dropout."""
        with self._in_place():
            return self.policy(batch)

    @torch.no_grad()
    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Return log-probs and distributions under these weights; good until they move."""
        with self._in_place():
            logps, found = self.policy(batch, also=(States(),))
            # The head is taken along: by the time it is read, the policy's own weights are in place again.
            own = self.policy.distributions(found["states"])
            head = {"weight": _without_graph(own.weight), "bias": _without_graph(own.bias)}
        return logps, ReferenceKl(found["states"], partial(self._under, head))

    def _under(self, head: Mapping[str, Tensor | None], states: Tensor) -> Distributions:
        return replace(self.policy.distributions(states), **head)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Exchange the weights inside the block, without dropout there.

        Parameters stay the same objects: optimiser and ranks know them.
        """
        training = self.policy.training
        self.policy.eval()
        self._exchange()
        try:
            yield
        finally:
            self._exchange()
            self.policy.train(training)

    def _exchange(self) -> None:
        for name, weight in trained_weights(self.policy).items():
            weight.data, self.weights[name] = self.weights[name], weight.data


class MovingReference:
    """A reference that follows the policy.

    Args:
        reference: what scores; its weights are changed in place.
        policy: before it is wrapped.
        every_steps: number of optimiser steps between two moves.
        share: of the policy's weights that a move takes over, above 0 and at most 1.

    Raises:
        ModelError: a weight that is trained has no counterpart in the reference.
    """

    def __init__(
        self, reference: FrozenCopy | EarlierAdapter, policy: Policy, *, every_steps: int, share: float
    ) -> None:
        self._reference, self._policy = reference, policy
        self.every_steps, self.share = every_steps, share
        own, trained = self.weights, trained_weights(policy)
        missing = sorted(name for name in trained if name not in own or own[name].shape != trained[name].shape)
        if missing:
            raise ModelError(
                f"the reference cannot follow the policy: it has no weight such as {missing[0]}, which is trained; "
                "leave out model.reference_update, or take the start of the run as reference"
            )

    @property
    def models(self) -> tuple[PreTrainedModel, ...]:
        """The transformers models that a call runs."""
        return self._reference.models

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights that move, by the policy's names for them; a checkpoint holds them."""
        if isinstance(self._reference, EarlierAdapter):
            return self._reference.weights
        own, trained = dict(self._reference.policy.named_parameters()), trained_weights(self._policy)
        return {name: own[name].data for name in trained if name in own}

    def __call__(self, batch: TreeBatch) -> Tensor:
        """Return the log-probs under the reference as it stands."""
        return self._reference(batch)

    def with_distributions(self, batch: TreeBatch) -> tuple[Tensor, ReferenceKl]:
        """Return log-probs and distributions under the reference as it stands."""
        return self._reference.with_distributions(batch)

    def moves(self, step: int) -> int:
        """Return how often it has moved by the end of `step`."""
        return step // self.every_steps

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Move when it is time; call it on every rank once its optimiser has taken `step`, counted from 1."""
        if step % self.every_steps:
            return
        trained = trained_weights(self._policy)
        for name, weight in self.weights.items():
            weight.mul_(1.0 - self.share).add_(trained[name].data, alpha=self.share)


def _without_graph(weight: Tensor | None) -> Tensor | None:
    """Return a tensor on the same memory, which stays when a parameter is given another."""
    return None if weight is None else weight.detach()


def trained_weights(policy: Policy) -> dict[str, nn.Parameter]:
    """Return the parameters that training moves, by name."""
    return {name: weight for name, weight in policy.named_parameters() if weight.requires_grad}
