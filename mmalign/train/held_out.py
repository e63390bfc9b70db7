"""Evaluation on held-out rows while training: the training loss and metrics, without a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch

from mmalign.objectives.terms import StepFacts
from mmalign.sources.quarantine import Quarantine
from mmalign.train.beside import Beside
from mmalign.train.interrupt import StopRequest
from mmalign.train.loader import BatchReader, load_ahead
from mmalign.train.metrics import Totals
from mmalign.train.sampler import StepSampler
from mmalign.train.step import Learner, Scored, forward
from mmalign.train.survey import collect, told
from mmalign.train.vanished import record


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found, added up over all ranks.

    Args:
        metrics: `eval_loss` and the objective's metrics under `eval_...`; empty when no row could be loaded.
        refused_rows: rows that could not be loaded.
        signalled_ranks: ranks that were asked to stop by the end of it.
    """

    metrics: dict[str, float]
    refused_rows: int
    signalled_ranks: int


@torch.no_grad()
def evaluate(
    learner: Learner,
    reader: BatchReader,
    sampler: StepSampler,
    *,
    num_workers: int,
    refused: Quarantine,
    stop: StopRequest,
) -> Evaluation:
    """Return what the objective says about all rows; all ranks call it together.

    Args:
        learner: its policy is left in training mode, as found.
        reader: of the held-out rows.
        sampler: without shuffling; its steps cut the rows into batches for every rank.
        num_workers: processes that load ahead.
        refused: gets the rows that cannot be loaded.
        stop: looked at when all rows are read, so that the numbers are those of all rows.
    """
    rank = learner.accelerator.process_index
    plan = (batch for step in range(sampler.steps_per_epoch) for batch in sampler.micro_batches(step, rank))
    learner.policy.eval()
    metrics, refused_rows = Totals(), []

    def scored() -> Iterator[Scored]:
        for loaded in batches:
            record(loaded.refused, refused)
            refused_rows.extend(loaded.refused)
            yield replace(forward(learner, loaded), beside=Beside())

    with closing(load_ahead(reader, plan, num_workers)) as batches:
        sizes = [len(sampler.micro_batches(step, rank)) for step in range(sampler.steps_per_epoch)]
        for one, step in _with_step_facts(learner, scored(), sizes):
            output = learner.objective(one.policy, one.reference, one.facts, step)
            metrics.add(output.metrics, counted=not one.is_filler)
    learner.policy.train()
    sums = [float(len(refused_rows)), float(stop.number is not None)]
    means, (refused_over_ranks, signalled_ranks) = metrics.reduce(learner.accelerator, sums)
    if means:
        means["loss"] = sum(part.weight * means.get(f"loss/{part.name}", 0.0) for part in learner.objective.parts)
    return Evaluation(
        metrics={f"eval_{name}": value for name, value in means.items()},
        refused_rows=int(refused_over_ranks),
        signalled_ranks=int(signalled_ranks),
    )


def _with_step_facts(
    learner: Learner, scored: Iterator[Scored], sizes: Sequence[int]
) -> Iterator[tuple[Scored, dict[str, StepFacts]]]:
    """Yield scored micro-batches with what the objective is told beside them.

    An objective that compares across a step waits for the last of its micro-batches; until then all numbers that it
    reads of them are kept, and no hidden states.

    Args:
        sizes: number of this rank's micro-batches of each step.
    """
    if not learner.objective.whole_step:
        yield from ((one, told(learner.memory, {}, {})) for one in scored)
        return
    for size in sizes:
        kept = list(islice(scored, size))
        together, starts = collect(learner.accelerator, [one.survey(learner.objective) for one in kept])
        for one, start in zip(kept, starts, strict=True):
            yield one, told(learner.memory, together, start)
