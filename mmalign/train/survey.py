"""What an objective wants known of a whole step, collected from all micro-batches of all ranks.

Most objectives want nothing: a micro-batch gives its share of the loss by itself. Some compare across the step (AOT
sorts it, KTO takes a mean) and are told first; some remember (BCO's running mean) and are told afterwards. The
collected values are the same however rows were cut and dealt, but for their order, which no objective reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from mmalign.objectives.terms import Memory, StepFacts

Surveys = Mapping[str, Tensor]
"""Part of the objective -> [n, C]."""


def collect(accelerator: Accelerator, surveys: Sequence[Surveys]) -> tuple[dict[str, Tensor], list[dict[str, int]]]:
    """Put the surveys of a step together; all ranks call it together.

    Args:
        surveys: of this rank's micro-batches, in order.

    Returns:
        for each part the rows of all ranks, rank by rank; and for each micro-batch where its rows begin.
    """
    together: dict[str, Tensor] = {}
    starts: list[dict[str, int]] = [{} for _ in surveys]
    for name in surveys[0]:
        mine = torch.cat([survey[name] for survey in surveys])
        together[name], start = _from_all_ranks(accelerator, mine)
        for survey, place in zip(surveys, starts, strict=True):
            place[name] = start
            start += len(survey[name])
    return together, starts


def told(memory: Mapping[str, Memory], together: Surveys, starts: Mapping[str, int]) -> dict[str, StepFacts]:
    """Return what the parts of an objective are told about the step of one micro-batch, which begins at `starts`."""
    return {
        name: StepFacts(
            survey=together.get(name),
            start=starts.get(name, 0),
            memory=memory.get(name, {}),
        )
        for name in {**together, **memory}
    }


def _from_all_ranks(accelerator: Accelerator, mine: Tensor) -> tuple[Tensor, int]:
    """Return the rows of all ranks, and where those of this rank begin."""
    if accelerator.num_processes == 1:
        return mine, 0
    counts = accelerator.gather(torch.tensor([len(mine)], device=mine.device)).tolist()
    # Ranks exchange tables of one size; what fills them up is cut off again.
    filled = torch.zeros(max(counts), mine.shape[1], dtype=mine.dtype, device=mine.device)
    filled[: len(mine)] = mine
    tables = accelerator.gather(filled).split(max(counts)) if max(counts) else [mine] * len(counts)
    rows = torch.cat([table[:count] for table, count in zip(tables, counts, strict=True)])
    return rows, sum(counts[: accelerator.process_index])
