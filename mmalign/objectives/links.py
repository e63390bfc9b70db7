"""Links: from the margin of a pair to its loss, decreasing until the margin is large enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

Link = Callable[[Tensor], Tensor]


def logistic(margin: Tensor) -> Tensor:
    """Return -log sigmoid(m), the Bradley-Terry likelihood: log 2 at m = 0, about -m far below it."""
    return -F.logsigmoid(margin)


def hinge(margin: Tensor) -> Tensor:
    """Return max(0, 1 - m): no push once the margin is 1."""
    return F.relu(1 - margin)


def square(at: float) -> Link:
    """Return the link (m - at)^2: a margin to hit, not to exceed."""
    return partial(_square, at=at)


def _square(margin: Tensor, at: float) -> Tensor:
    return (margin - at) ** 2
