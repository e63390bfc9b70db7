"""Token weights: which tokens of a pair count in a score, known from their places, or from a reward model.

A rule sees P pairs and returns weights [P, 2, T] that multiply the log-probs of policy and reference alike. Weights
that come with the rows (spans of a response: Mask-DPO's) are in `GroupLogps.token_weights` already, and are multiplied
with these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import partial

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.dense import TOKEN_REWARD

TokenRule = Callable[[GroupLogps, Tensor], Tensor]
"""P groups of two responses, of which mask and ids are read; seed int64 [P] -> weights [P, 2, T]."""

_SHORTEST_MATCH = 3
"""Fewer tokens that happen to stand in both responses are part of an edit."""


def weighted(logps: GroupLogps, weights: Tensor) -> GroupLogps:
    """Return `logps` with its token weights multiplied by `weights`."""
    weights = weights.to(logps.token_logps.dtype)
    own = logps.token_weights
    return replace(logps, token_weights=weights if own is None else own * weights)


def tail(alpha: float) -> TokenRule | None:
    """Return the rule that counts tokens beyond the length of the shorter response `alpha` times; None for alpha = 1.

    Source: LD-DPO, arXiv:2409.06411.
    """
    return None if alpha == 1 else partial(_tail, alpha=alpha)


def _tail(pairs: GroupLogps, seed: Tensor, alpha: float) -> Tensor:
    mask = pairs.mask
    shared = mask.sum(-1).amin(-1)[:, None, None]
    inside = torch.arange(mask.shape[-1], device=mask.device) < shared
    weights = torch.full(mask.shape, alpha, dtype=torch.float64, device=mask.device)
    return weights.masked_fill(inside, 1.0)


def edited(weight: float) -> TokenRule:
    """Return the rule that counts `weight` times what one response has and the other has not, token by token.

    Source: RLHF-V (DDPO), arXiv:2312.00849, eq. 2.
    """
    return partial(_edited, weight=weight)


def _edited(pairs: GroupLogps, seed: Tensor, weight: float) -> Tensor:
    weights = torch.ones(pairs.mask.shape, dtype=torch.float64)
    ids, mask = pairs.tokens.cpu(), pairs.mask.cpu()
    for pair in range(len(ids)):
        sides = [ids[pair, side][mask[pair, side]].tolist() for side in (0, 1)]
        for side, changed in enumerate(_changes(*sides)):
            weights[pair, side, changed] = weight
    return weights.to(pairs.mask.device)


def _changes(one: list[int], other: list[int]) -> tuple[list[int], list[int]]:
    """Return the places of each list that no common run of at least three tokens covers."""
    changed = set(range(len(one))), set(range(len(other)))
    for match in SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks():
        if match.size >= _SHORTEST_MATCH:
            changed[0].difference_update(range(match.a, match.a + match.size))
            changed[1].difference_update(range(match.b, match.b + match.size))
    return sorted(changed[0]), sorted(changed[1])


def equal_numbers(pairs: GroupLogps, seed: Tensor) -> Tensor:
    """Return weights that keep as many tokens of the longer response as the shorter has, drawn without replacement.

    The draw depends on the seed of the row and the place of the token alone: policy and reference, every rank and a
    resumed run draw the same.

    Source: SamPO, arXiv:2406.10957.
    """
    mask = pairs.mask
    shared = mask.sum(-1).amin(-1)[:, None, None]
    place = torch.arange(mask.shape[-1], device=mask.device)[None, None]
    ticket = scramble(scramble(seed)[:, None, None] + place).expand(mask.shape)
    ticket = ticket.masked_fill(~mask, torch.iinfo(torch.int64).max)
    rank = ticket.argsort(-1).argsort(-1)
    return (rank < shared).to(torch.float64)


@dataclass(frozen=True)
class RewardedTokens:
    """Counts tokens by a token-level reward g: 1 + scale g in the better response, 1 - scale g in the worse.

    Source: SAIL (Diagnose, Localize, Align), as in the authors' code.

    Args:
        scale: of the reward.
        positive: weights below 0 count as 0.
    """

    scale: float
    positive: bool
    dense = (TOKEN_REWARD,)

    def __call__(self, pairs: GroupLogps, seed: Tensor) -> Tensor:
        """Return weights [P, 2, T]."""
        reward = pairs.dense[TOKEN_REWARD].detach().masked_fill(~pairs.mask, 0.0)
        weights = 1 + self.scale * torch.stack([reward[:, 0], -reward[:, 1]], 1)
        return weights.clamp(min=0) if self.positive else weights


def scramble(number: Tensor) -> Tensor:
    """Return int64 values that look drawn at random, always the same for the same numbers (splitmix64)."""
    mixed = number + _wrapped(0x9E3779B97F4A7C15)
    mixed = (mixed ^ _shifted(mixed, 30)) * _wrapped(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ _shifted(mixed, 27)) * _wrapped(0x94D049BB133111EB)
    return mixed ^ _shifted(mixed, 31)


def _wrapped(unsigned: int) -> int:
    """Return a 64-bit constant as torch's signed integers hold it."""
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def _shifted(number: Tensor, bits: int) -> Tensor:
    """Return `number >> bits` with zeros coming in, as unsigned integers do."""
    return (number >> bits) & (2 ** (64 - bits) - 1)
