"""What may be asked of the policy beside its log-probs: numbers per response token, computed inside its forward.

Each term reads the next-token distributions of all response tokens and answers under its name. Inside the forward,
because DDP, FSDP and autocast wrap that, and sharded weights are whole only there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from mmalign.engine.distributions import Distributions, chosen_logps, kl_from, most_probable
from mmalign.engine.head import head_log_purity, head_logps
from mmalign.engine.tree import TreeBatch, likeliest_places, places_in_view, places_of_rows
from mmalign.errors import ModelError


class TokenTerm(Protocol):
    """Distributions of N response tokens in, numbers out."""

    name: str

    def __call__(self, own: Distributions, batch: TreeBatch) -> Tensor:
        """Return [B, K, R, ...], 0 where there is no token."""


@dataclass(frozen=True)
class LogPurity:
    """log sum_v p(v)^2 of the distribution of every token, without gradient."""

    name: str = "log_purity"

    def __call__(self, own: Distributions, batch: TreeBatch) -> Tensor:
        """Return [B, K, R], 0 outside the responses of rows as they are."""
        places = places_of_rows(batch)
        return _cells_of(places, batch, head_log_purity(replace(own, hidden=own.hidden[places])))


@dataclass(frozen=True)
class States:
    """The hidden states that the head reads (logits of a model whose head is not known), as they are: [N, D]."""

    name: str = "states"

    def __call__(self, own: Distributions, batch: TreeBatch) -> Tensor:
        """Return [N, D], without gradient."""
        return own.hidden.detach()


@dataclass(frozen=True)
class ReferenceKl:
    """KL(reference || policy) of every token, with gradient.

    Args:
        states: what `States` said of the reference for the same batch.
        read: makes distributions of them; called where sharded weights are whole.
    """

    states: Tensor
    read: Callable[[Tensor], Distributions]
    name: str = "reference_kl"

    def __call__(self, own: Distributions, batch: TreeBatch) -> Tensor:
        """Return [B, K, R], 0 outside the responses of rows as they are."""
        places = places_of_rows(batch)
        ours = replace(own, hidden=own.hidden[places])
        return _cells_of(places, batch, kl_from(self.read(self.states[places]), ours))


@dataclass(frozen=True)
class ChosenLogps:
    """Log-probs of k chosen tokens at every place, and of all others together, with gradient.

    Args:
        ids: int64 [B, K, R, k].
    """

    ids: Tensor
    name: str = "student_logps"

    def __call__(self, own: Distributions, batch: TreeBatch) -> Tensor:
        """Return [B, K, R, k + 1]."""
        return cells(batch, chosen_logps(own, self.ids[batch.response_mask]))


@dataclass(frozen=True)
class LogitGain:
    """Log-prob of every token under the softmax of its logits minus its logits in a view, with gradient through both.

    A head is linear: of the difference of hidden states it makes, without its bias, the difference of logits.

    Args:
        view: name; all responses that are read in it are read in the row too.
    """

    view: str
    name: str = "gained_logps"

    def __call__(self, own: Distributions, batch: TreeBatch) -> Tensor:
        """Return [B, K, R], 0 outside the rows as they are.

        Raises:
            ModelError: the model bends its logits.
        """
        require_uncapped(own.softcap)
        seen, there = places_in_view(batch, self.view)
        difference = replace(own, hidden=own.hidden[seen] - own.hidden[there], bias=None)
        gained = head_logps(difference, batch.targets[seen])
        return _cells_of(seen, batch, gained)


def require_uncapped(softcap: float | None) -> None:
    """Check that differences of logits are those of hidden states.

    Raises:
        ModelError: the model bends its logits.
    """
    if softcap is not None:
        raise ModelError(
            f"this model caps its logits (at {softcap:g}), so that what a prompt adds to them is not linear in hidden "
            "states; use an objective other than nextquill, or history_weight: 0"
        )


def with_likeliest(own: Distributions, batch: TreeBatch) -> tuple[Distributions, Tensor]:
    """Return the distributions and the tokens [N] whose log-probs a batch is about.

    They are those of its response tokens, but for views that ask for likeliest tokens (`View.likeliest`): there the
    token that the view makes likeliest stands in the place of the response's, under the distribution of the row.
    """
    if not any(view.likeliest for view in batch.views):
        return own, batch.targets
    seen, asked = likeliest_places(batch)
    vocabulary = own.hidden.shape[1] if own.weight is None else len(own.weight)
    likeliest = most_probable(replace(own, hidden=own.hidden[asked]), 1, vocabulary).squeeze(1)
    measured = replace(own, hidden=own.hidden.index_copy(0, asked, own.hidden[seen]))
    return measured, batch.targets.index_copy(0, asked, likeliest)


def _cells_of(places: Tensor, batch: TreeBatch, values: Tensor) -> Tensor:
    """Return values [M] of some of the N response tokens in their places [B, K, R]; 0 elsewhere."""
    return cells(batch, values.new_zeros(len(batch.target_rows)).index_copy(0, places, values))


def cells(batch: TreeBatch, values: Tensor) -> Tensor:
    """Return values [N, ...] of response tokens in their places [B, K, R, ...]; 0 elsewhere."""
    mask = batch.response_mask
    places = torch.zeros(*mask.shape, *values.shape[1:], dtype=values.dtype, device=values.device)
    wide = mask.reshape(*mask.shape, *[1] * (values.dim() - 1))
    return places.masked_scatter(wide.expand_as(places), values)
