"""One optimiser step: count first, divide once, look before the leap.

The loss of a step is  sum over terms of weight * sum(values) / sum(counts)  with both sums over all micro-batches of
all ranks. The counts depend on the rows alone, so they are added up before the first forward; each micro-batch then
contributes its final share of the gradient. Cutting a step into other micro-batches, or dealing it to other ranks,
changes rounding only. An objective that compares across the step (`whole_step`) is shown all of it before the first
loss, at the price of one more forward where a rank has several micro-batches. A loss or gradient that is not finite
stops the run before it can reach the weights; only DeepSpeed, which steps inside its backward pass, has stepped by
then, and --resume goes on from the checkpoint before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn

from mmalign.engine.logps import GroupLogps
from mmalign.engine.moving_reference import MovingReference
from mmalign.engine.reference import NoReference, Reference
from mmalign.engine.token_terms import LogPurity
from mmalign.engine.tree import TreeBatch
from mmalign.engine.vision_memo import VisionMemo
from mmalign.errors import TrainingError
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import Objective
from mmalign.objectives.terms import Memory, StepFacts
from mmalign.train.beside import NO_SOURCES, Beside, Sources, look_up
from mmalign.train.groups import facts_of, groups_of
from mmalign.train.loader import LoadedBatch
from mmalign.train.metrics import Totals
from mmalign.train.noise import RandomState, drawing_from, random_state
from mmalign.train.optim import fill_gradients, set_learning_rate
from mmalign.train.survey import collect, told


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Everything that a step moves or asks.

    Args:
        accelerator: knows device, precision and ranks.
        policy: as `accelerator.prepare` returned it.
        reference: gives token log-probs without gradient, or None where the objective needs none.
        vision: lets frozen vision towers speak once per batch.
        objective: what is minimised.
        sources: what is asked beside policy and reference.
        optimizer: as `accelerator.prepare` returned it; None where nothing is trained.
        max_grad_norm: longest gradient; None never clips.
        memory: what the objective remembers from step to step, by part; the same on all ranks, changed by every step.
        following: the reference, where it follows the policy.
    """

    accelerator: Accelerator
    policy: nn.Module
    reference: Reference
    vision: VisionMemo
    objective: Objective
    sources: Sources = NO_SOURCES
    optimizer: torch.optim.Optimizer | None = None
    max_grad_norm: float | None = None
    memory: dict[str, Memory] = field(default_factory=dict)
    following: MovingReference | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One micro-batch as an objective sees it; a filler counts for nothing.

    Args:
        noise: what the policy's forward drew its dropout from.
    """

    policy: GroupLogps
    reference: GroupLogps | None
    facts: GroupFacts
    is_filler: bool
    noise: RandomState
    beside: Beside = Beside()

    def survey(self, objective: Objective) -> dict[str, Tensor]:
        """Return what `objective` wants known of it."""
        return objective.survey(self.policy, self.reference, self.facts)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is kept of a micro-batch between its survey and its loss: what the reference and tables said of it.

    Args:
        noise: what the policy's forward drew its dropout from.
    """

    reference: GroupLogps | None
    beside: Beside
    noise: RandomState

    @classmethod
    def of(cls, scored: Scored) -> Asked:
        """Return this of a micro-batch whose policy is asked again."""
        return cls(reference=scored.reference, beside=scored.beside, noise=scored.noise)


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
    seen, steps = look_first(learner, loaded)
    metrics, losses, surveys = Totals(), [], []
    for position, one in enumerate(loaded):
        last = position == len(loaded) - 1
        accelerator.sync_gradients = last  # DeepSpeed steps inside the backward pass that synchronises
        with nullcontext() if last else accelerator.no_sync(learner.policy):
            scored = forward(learner, one, seen[position])
            output = learner.objective(scored.policy, scored.reference, scored.facts, steps[position])
            loss = output.loss(totals)
            losses.append(loss.detach())
            # Ranks average their gradients, while the sums over ranks are meant.
            accelerator.backward(_with_gradient(loss, scored.policy) * accelerator.num_processes)
        metrics.add(output.metrics, counted=not one.is_filler)
        surveys.append(scored.survey(learner.objective) if learner.memory else {})
    together, _ = collect(accelerator, surveys)
    norm = _clip(learner) / accelerator.num_processes
    facts = [torch.stack(losses).sum(), norm, *_facts(loaded), float(signalled)]
    means, (loss, grad_norm, num_tokens, refused_rows, signalled_ranks) = metrics.reduce(accelerator, facts)
    _require_finite(accelerator, loaded, losses, step=step, loss=loss, grad_norm=grad_norm)
    if accelerator.distributed_type != DistributedType.DEEPSPEED:  # which keeps gradients to itself
        fill_gradients(learner.optimizer)
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    if learner.following is not None:
        means["reference_moves"] = float(learner.following.moves(step))
        learner.following.after_step(step)
    learner.memory.update(learner.objective.remember(learner.memory, together))
    return StepReport(
        metrics={"loss": loss, **means, "grad_norm": grad_norm, "learning_rate": learning_rate},
        num_tokens=int(num_tokens),
        refused_rows=int(refused_rows),
        signalled_ranks=int(signalled_ranks),
    )


def look_first(
    learner: Learner, loaded: Sequence[LoadedBatch]
) -> tuple[list[Scored | Asked | None], list[dict[str, StepFacts]]]:
    """Return what each micro-batch is told about its step, and what is scored by now; all ranks call it together.

    Nothing is scored for an objective that sees micro-batches one by one. A single micro-batch is scored with gradient,
    ready for its loss. Of several, what reference and tables said is kept, and nothing of the policy: gradients of all
    would not fit.
    """
    if not learner.objective.whole_step:
        nothing: list[Scored | Asked | None] = [None] * len(loaded)
        return nothing, [told(learner.memory, {}, {})] * len(loaded)
    alone, seen, surveys = len(loaded) == 1, [], []
    for one in loaded:
        with nullcontext() if alone else torch.no_grad():
            scored = forward(learner, one)
        surveys.append(scored.survey(learner.objective))
        seen.append(scored if alone else Asked.of(scored))
    together, starts = collect(learner.accelerator, surveys)
    return seen, [told(learner.memory, together, start) for start in starts]


def forward(learner: Learner, loaded: LoadedBatch, seen: Scored | Asked | None = None) -> Scored:
    """Return log-probs and facts of one micro-batch.

    Args:
        seen: what an earlier forward of the same micro-batch gave, or what is kept of it; only what is missing is
            computed, and with the same dropout, so that the loss is the one of what the step was told.
    """
    if isinstance(seen, Scored):
        return seen
    device = learner.accelerator.device
    batch = loaded.batch.to(device)
    with learner.vision.batch(batch):
        if seen is None:
            reference, beside = _reference_logps(learner, loaded, batch)
        else:
            reference, beside = seen.reference, seen.beside
        noise = random_state(device) if seen is None else seen.noise
        with drawing_from(None if seen is None else noise, device):
            policy = _policy_logps(learner, batch, beside)
    return Scored(
        policy=policy,
        reference=reference,
        facts=facts_of(batch),
        is_filler=loaded.is_filler,
        beside=beside,
        noise=noise,
    )


def _policy_logps(learner: Learner, batch: TreeBatch, beside: Beside) -> GroupLogps:
    asked = (*beside.asked, LogPurity()) if learner.objective.needs_purity else beside.asked
    if not asked:
        return groups_of(learner.policy(batch), batch, beside.known)
    token_logps, found = learner.policy(batch, also=asked)
    log_purity = found.pop(LogPurity.name, None)
    return groups_of(token_logps, batch, {**beside.known, **found}, log_purity)


def _reference_logps(learner: Learner, loaded: LoadedBatch, batch: TreeBatch) -> tuple[GroupLogps | None, Beside]:
    reference = learner.reference if learner.objective.needs_reference else NoReference()
    with learner.accelerator.autocast():
        logps, beside = look_up(learner.objective.dense, learner.sources, reference, batch, is_filler=loaded.is_filler)
    return None if logps is None else groups_of(logps, batch, beside.known), beside


def count_over_ranks(learner: Learner, loaded: Sequence[LoadedBatch]) -> dict[str, float]:
    """Return for each term of the objective its counts, summed over all micro-batches of all ranks."""
    counts: dict[str, float] = {}
    for one in loaded:
        lengths = one.batch.response_lengths[: one.batch.groups]
        for name, values in learner.objective.counts(facts_of(one.batch), lengths).items():
            counts[name] = counts.get(name, 0.0) + (0.0 if one.is_filler else float(values.double().sum()))
    if learner.accelerator.num_processes > 1:
        sums = torch.tensor(list(counts.values()), dtype=torch.float64, device=learner.accelerator.device)
        counts = dict(zip(counts, learner.accelerator.reduce(sums, reduction="sum").tolist(), strict=True))
    return counts


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
    groups = [one.batch.ids[: one.batch.groups] for one in loaded]
    bad = [ids for ids, value in zip(groups, losses, strict=True) if not torch.isfinite(value)]
    suspects = bad or [ids for ids, one in zip(groups, loaded, strict=True) if not one.is_filler]
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
