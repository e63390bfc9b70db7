"""Linear policies for tests of learning: log-probs are features times weights, trained as runs are, memory included."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build
from mmalign.train.survey import told


def as_logps(values: Tensor) -> GroupLogps:
    """Return one token a response, whose log-prob is the value."""
    return GroupLogps(values[..., None], torch.ones(*values.shape, 1, dtype=torch.bool))


def facts_of(groups: int, responses: int, numbers: dict[str, Tensor] | None = None) -> GroupFacts:
    """Return the facts of lists without ties."""
    return GroupFacts(
        levels=torch.arange(responses).expand(groups, responses),
        weight=torch.ones(groups),
        margin=torch.full((groups,), torch.nan),
        response_mask=torch.ones(groups, responses, dtype=torch.bool),
        scores=torch.full((groups, responses), torch.nan),
        seed=torch.arange(groups),
        annotator=torch.zeros(groups, dtype=torch.int64),
        numbers=numbers or {},
    )


def trained(
    spec: dict, score: Callable[[Tensor], Tensor], start: Tensor, facts: GroupFacts, *, steps: int, rate: float = 0.1
) -> Tensor:
    """Return the weights after `steps` steps of Adam on everything at once.

    Args:
        score: weights -> log-prob of every response, [groups, responses]; the reference is that of `start`.
    """
    objective, weights = build([spec]), start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([weights], lr=rate)
    memory, reference = objective.first_memory(), as_logps(score(start))
    for _ in range(steps):
        policy = as_logps(score(weights))
        survey = objective.survey(policy, reference, facts)
        counts = objective.counts(facts, policy.lengths())
        output = objective(policy, reference, facts, told(memory, survey, {}))
        output.loss({name: values.sum() for name, values in counts.items()}).backward()
        optimizer.step()
        optimizer.zero_grad()
        memory = objective.remember(memory, survey)
    return weights.detach()


def order_accuracy(weights: Tensor, truth: Tensor, pairs: Tensor) -> float:
    """Return the share of pairs [N, 2, F] that weights and truth put in the same order."""
    gap = pairs[:, 0] - pairs[:, 1]
    return ((gap @ weights > 0) == (gap @ truth > 0)).float().mean().item()


def choice_accuracy(weights: Tensor, truth: Tensor, options: Tensor) -> float:
    """Return the share of prompts [N, O, F] at which weights and truth choose the same option."""
    return ((options @ weights).argmax(1) == (options @ truth).argmax(1)).float().mean().item()
