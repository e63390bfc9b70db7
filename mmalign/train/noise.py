"""The same random numbers twice: a forward that is run again for its gradient meets the dropout of the first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor


class RandomState(NamedTuple):
    """States of torch's generators of this process.

    Args:
        cpu: of the CPU.
        cuda: of the current CUDA device, None where the model does not run on one.
    """

    cpu: Tensor
    cuda: Tensor | None


def random_state(device: torch.device) -> RandomState:
    """Return the states that a forward on `device` draws from."""
    return RandomState(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)


@contextmanager
def drawing_from(state: RandomState | None, device: torch.device) -> Iterator[None]:
    """Draw from `state` inside the block, and afterwards go on as if nothing had been drawn; None changes nothing."""
    if state is None:
        yield
        return
    before = random_state(device)
    _set(state, device)
    try:
        yield
    finally:
        _set(before, device)


def _set(state: RandomState, device: torch.device) -> None:
    torch.set_rng_state(state.cpu)
    if state.cuda is not None:
        torch.cuda.set_rng_state(state.cuda, device)
