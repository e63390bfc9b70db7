"""Evaluation on held-out rows while training: the training loss and metrics, without a step."""

from __future__ import annotations

from contextlib import closing

import torch

from mmalign.train.loader import BatchReader, load_ahead
from mmalign.train.metrics import Totals
from mmalign.train.sampler import StepSampler
from mmalign.train.step import Learner, score


@torch.no_grad()
def evaluate(learner: Learner, reader: BatchReader, sampler: StepSampler, num_workers: int) -> dict[str, float]:
    """Return `eval_loss` and the objective's metrics under `eval_...`, over all rows and ranks.

    Args:
        learner: its policy is left in training mode, as found.
        reader: of the held-out rows.
        sampler: without shuffling; its steps cut the rows into batches for every rank.
        num_workers: processes that load ahead.
    """
    rank = learner.accelerator.process_index
    plan = (batch for step in range(sampler.steps_per_epoch) for batch in sampler.micro_batches(step, rank))
    learner.policy.eval()
    metrics = Totals()
    with closing(load_ahead(reader, plan, num_workers)) as batches:
        for loaded in batches:
            output, _ = score(learner, loaded)
            metrics.add(output.metrics, counted=not loaded.is_filler)
    learner.policy.train()
    means, _ = metrics.reduce(learner.accelerator, [0.0])
    loss = sum(part.weight * means.get(f"loss/{part.name}", 0.0) for part in learner.objective.parts)
    return {"eval_loss": loss, **{f"eval_{name}": value for name, value in means.items()}}
