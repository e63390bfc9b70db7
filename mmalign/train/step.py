"""One optimiser step: count first, divide once, look before the leap.

The loss of a step is  sum over terms of weight * sum(values) / sum(counts)  with both sums over all micro-batches of
all ranks. The counts depend on the rows alone, so they are added up before the first forward; each micro-batch then
contributes its final share of the gradient. Cutting a step into other micro-batches, or dealing it to other ranks,
changes rounding only. A loss or gradient that is not finite stops the run before it can reach the weights; only
DeepSpeed, which steps inside its backward pass, has stepped by then, and --resume goes on from the checkpoint before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn

from mmalign.engine.logps import GroupLogps
from mmalign.engine.reference import Reference
from mmalign.engine.tree import TreeBatch
from mmalign.engine.vision_memo import VisionMemo
from mmalign.errors import TrainingError
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import Objective, ObjectiveOutput
from mmalign.train.loader import LoadedBatch
from mmalign.train.metrics import Totals
from mmalign.train.optim import set_learning_rate


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Everything that a step moves or asks.

    Args:
        accelerator: knows device, precision and ranks.
        policy: as `accelerator.prepare` returned it.
        reference: gives token log-probs without gradient, or None where the objective needs none.
        vision: lets frozen vision towers speak once per batch.
        objective: what is minimised.
        optimizer: as `accelerator.prepare` returned it; None where nothing is trained.
        max_grad_norm: longest gradient; None never clips.
    """

    accelerator: Accelerator
    policy: nn.Module
    reference: Reference
    vision: VisionMemo
    objective: Objective
    optimizer: torch.optim.Optimizer | None = None
    max_grad_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step found, added up over all ranks.

    Args:
        metrics: loss, gradient norm and the objective's metrics.
        num_tokens: tokens computed, padding excluded.
        refused_rows: rows that could not be loaded.
        signalled_ranks: ranks that were asked to stop.
    """

    metrics: dict[str, float]
    num_tokens: int
    refused_rows: int
    signalled_ranks: int


def train_step(
    learner: Learner, loaded: Sequence[LoadedBatch], *, step: int, learning_rate: float, signalled: bool = False
) -> StepReport:
    """Take one optimiser step on the micro-batches of this rank; all ranks call it together.

    Args:
        loaded: this rank's micro-batches, as many as every other rank has.
        step: number of the step, for messages.
        learning_rate: of this step.
        signalled: whether this rank was asked to stop; travels with the metrics.

    Raises:
        TrainingError: loss or gradient norm is not finite; the weights are as they were before the step.
    """
    accelerator = learner.accelerator
    set_learning_rate(learner.optimizer, learning_rate)
    totals = count_over_ranks(learner, loaded)
    metrics, losses = Totals(), []
    for position, one in enumerate(loaded):
        last = position == len(loaded) - 1
        accelerator.sync_gradients = last  # DeepSpeed steps inside the backward pass that synchronises
        with nullcontext() if last else accelerator.no_sync(learner.policy):
            output, policy = score(learner, one)
            loss = output.loss(totals)
            losses.append(loss.detach())
            # Ranks average their gradients, while the sums over ranks are meant.
            accelerator.backward(_with_gradient(loss, policy) * accelerator.num_processes)
        metrics.add(output.metrics, counted=not one.is_filler)
    norm = _clip(learner) / accelerator.num_processes
    facts = [torch.stack(losses).sum(), norm, *_facts(loaded), float(signalled)]
    means, (loss, grad_norm, num_tokens, refused_rows, signalled_ranks) = metrics.reduce(accelerator, facts)
    _require_finite(accelerator, loaded, losses, step=step, loss=loss, grad_norm=grad_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    return StepReport(
        metrics={"loss": loss, **means, "grad_norm": grad_norm, "learning_rate": learning_rate},
        num_tokens=int(num_tokens),
        refused_rows=int(refused_rows),
        signalled_ranks=int(signalled_ranks),
    )


def score(learner: Learner, loaded: LoadedBatch) -> tuple[ObjectiveOutput, GroupLogps]:
    """Return what the objective says about one micro-batch, and the policy's log-probs."""
    batch = loaded.batch.to(learner.accelerator.device)
    with learner.vision.batch(batch):
        reference = _reference_logps(learner, loaded, batch)
        policy = _group(learner.policy(batch), batch)
    output = learner.objective(policy, None if reference is None else _group(reference, batch), facts_of(batch))
    return output, policy


def _reference_logps(learner: Learner, loaded: LoadedBatch, batch: TreeBatch) -> Tensor | None:
    if not learner.objective.needs_reference:
        return None
    if loaded.is_filler and not learner.reference.models:
        return torch.zeros(batch.response_mask.shape, device=batch.input_ids.device)  # no table knows fillers
    with learner.accelerator.autocast():
        return learner.reference(batch)


def count_over_ranks(learner: Learner, loaded: Sequence[LoadedBatch]) -> dict[str, float]:
    """Return for each term of the objective its counts, summed over all micro-batches of all ranks."""
    counts: dict[str, float] = {}
    for one in loaded:
        lengths = one.batch.response_lengths
        for name, values in learner.objective.counts(facts_of(one.batch), lengths).items():
            counts[name] = counts.get(name, 0.0) + (0.0 if one.is_filler else float(values.double().sum()))
    if learner.accelerator.num_processes > 1:
        sums = torch.tensor(list(counts.values()), dtype=torch.float64, device=learner.accelerator.device)
        counts = dict(zip(counts, learner.accelerator.reduce(sums, reduction="sum").tolist(), strict=True))
    return counts


def facts_of(batch: TreeBatch) -> GroupFacts:
    """Return what is known of the batch's groups before any forward."""
    return GroupFacts(
        levels=batch.levels, weight=batch.weight, margin=batch.margin, response_mask=batch.response_lengths > 0
    )


def _group(token_logps: Tensor, batch: TreeBatch) -> GroupLogps:
    return GroupLogps(token_logps=token_logps, mask=batch.response_mask, token_weights=batch.token_weights)


def _clip(learner: Learner) -> Tensor | float:
    """Scale the gradient down where it is too long; return its length over all ranks."""
    norm = learner.accelerator.clip_grad_norm_(learner.policy.parameters(), learner.max_grad_norm or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def _with_gradient(loss: Tensor, policy: GroupLogps) -> Tensor:
    """Let the backward pass reach every weight, also when no row of the step counts: other ranks wait for it."""
    return loss if loss.requires_grad else loss + 0.0 * policy.sums().sum()


def _facts(loaded: Sequence[LoadedBatch]) -> tuple[float, float]:
    counted = [one for one in loaded if not one.is_filler]
    return float(sum(one.batch.num_tokens for one in counted)), float(sum(len(one.refused) for one in loaded))


def _require_finite(
    accelerator: Accelerator,
    loaded: Sequence[LoadedBatch],
    losses: Sequence[Tensor],
    *,
    step: int,
    loss: float,
    grad_norm: float,
) -> None:
    """All ranks come to the same verdict, because both numbers are sums over ranks."""
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    bad = [one.batch.ids for one, value in zip(loaded, losses, strict=True) if not torch.isfinite(value)]
    suspects = bad or [one.batch.ids for one in loaded if not one.is_filler]
    ids = gather_object([name for names in suspects for name in names])
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        outcome = "DeepSpeed has taken the step inside its backward pass, so the weights in memory are spoilt"
    else:
        outcome = f"the step was not taken and the weights are those of step {step - 1}"
    raise TrainingError(
        f"step {step}: loss {loss}, gradient norm {grad_norm}; a number is not finite; {outcome}. Rows: "
        f"{', '.join(ids[:16])}. Look at them with `mmalign data show`, lower train.learning_rate, or use train.bf16: "
        "false; --resume goes on from the last checkpoint"
    )
