"""Synthetic log-probs for objectives: groups of responses with prime lengths and nothing readable under the mask."""

from __future__ import annotations

import torch

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts


def logps_of(sums_and_lengths, *, dtype=torch.float64) -> GroupLogps:
    """Return log-probs whose sums are given: [[(sum, length), ...], ...], spread evenly over the tokens."""
    longest = max(length for group in sums_and_lengths for _, length in group)
    responses = max(len(group) for group in sums_and_lengths)
    token_logps = torch.full((len(sums_and_lengths), responses, longest), torch.nan, dtype=dtype)
    mask = torch.zeros(token_logps.shape, dtype=torch.bool)
    for b, group in enumerate(sums_and_lengths):
        for k, (total, length) in enumerate(group):
            token_logps[b, k, :length] = total / length
            mask[b, k, :length] = True
    return GroupLogps(token_logps, mask)


def facts_of(levels, *, weight=None, dtype=torch.float64) -> GroupFacts:
    """Return the facts of groups with these levels; shorter groups miss their last responses."""
    responses = max(len(group) for group in levels)
    padded = torch.tensor([list(group) + [-7] * (responses - len(group)) for group in levels])
    exists = torch.tensor([[k < len(group) for k in range(responses)] for group in levels])
    weights = torch.ones(len(levels), dtype=dtype) if weight is None else torch.tensor(weight, dtype=dtype)
    return GroupFacts(padded, weights, torch.full((len(levels),), torch.nan, dtype=dtype), exists)


def random_batch(seed=0, *, groups=5, responses=2, longest=11, dtype=torch.float64):
    """Return policy, reference, facts of strictly ranked groups with random log-probs and lengths 1 to `longest`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (groups, responses), generator=generator)
    mask = torch.arange(longest) < lengths[..., None]

    def draw() -> GroupLogps:
        logps = -torch.rand((groups, responses, longest), generator=generator, dtype=dtype) * 3 - 0.05
        return GroupLogps(logps.masked_fill(~mask, torch.nan), mask)

    return draw(), draw(), facts_of([range(responses)] * groups, dtype=dtype)


def step_loss(objective, policy, reference, facts):
    """Return the loss of a step that consists of this one batch."""
    totals = {name: counts.sum() for name, counts in objective.counts(facts, policy.lengths()).items()}
    return objective(policy, reference, facts).loss(totals)
