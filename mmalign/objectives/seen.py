"""The mean of all rewards seen in the steps before, as a memory of two numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign.objectives.terms import Memory


def nothing_seen() -> Memory:
    """Return a total and a count of nothing."""
    return {name: torch.zeros((), dtype=torch.float64) for name in ("reward_total", "reward_count")}


def with_rewards(memory: Memory, rewards: Tensor) -> Memory:
    """Return the memory after rewards [n] more."""
    return {
        "reward_total": memory["reward_total"] + rewards.sum().cpu(),
        "reward_count": memory["reward_count"] + rewards.numel(),
    }


def mean_seen(memory: Memory) -> Tensor:
    """Return the mean []; 0 before anything was seen."""
    return memory["reward_total"] / memory["reward_count"].clamp(min=1)
