"""The training loop: load, learn, evaluate, write, save, and stop when asked to."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from mmalign.config.schema import DataConfig, TrainConfig
from mmalign.sources.quarantine import Quarantine
from mmalign.train.checkpoint import Position, place_of
from mmalign.train.held_out import Evaluation, evaluate
from mmalign.train.interrupt import Interrupted, StopRequest, stop_requests
from mmalign.train.loader import BatchReader, load_ahead
from mmalign.train.metrics import MetricsFile
from mmalign.train.optim import Schedule
from mmalign.train.progress import TrainingBar
from mmalign.train.reliance import Looking, image_reliance
from mmalign.train.resume import save_checkpoint
from mmalign.train.rows import PreparedRows
from mmalign.train.rundir import RunDirectory
from mmalign.train.sampler import MicroBatch, StepSampler
from mmalign.train.step import Learner, train_step
from mmalign.train.vanished import record, require_few


@dataclass(frozen=True)
class Split:
    """Rows of one split, in the order in which they are read.

    Args:
        reader: opens them.
        sampler: orders and cuts them.
        learner: what scores them (held-out rows may have a reference table of their own).
    """

    reader: BatchReader
    sampler: StepSampler
    learner: Learner


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a run does step by step.

    Args:
        train: rows to learn from.
        held_out: rows to evaluate on, or None.
        looking: those of them on which image reliance is measured, or None.
        config: the recipe's `train` section.
        data: its `data` section.
        total_steps: length of the run.
        schedule: step -> learning rate.
        run: where everything is written.
        identity: facts that a continuation must share.
    """

    train: Split
    held_out: Split | None
    looking: Looking | None = None
    config: TrainConfig
    data: DataConfig
    total_steps: int
    schedule: Schedule
    run: RunDirectory
    identity: Mapping[str, Any]


def train(course: Course, start: Position) -> Position:
    """Take the steps from `start` to the end and leave a checkpoint there.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved first.
        TrainingError: a loss or gradient was not finite.
        CheckpointError: a checkpoint could not be written.
        DataError: too many rows could not be loaded.
    """
    config, learner, sampler = course.config, course.train.learner, course.train.sampler
    accelerator = learner.accelerator
    rank, main = accelerator.process_index, accelerator.is_main_process
    batches = load_ahead(course.train.reader, _plan(course, start.step, rank), course.data.num_workers)
    refused = Quarantine(course.run.quarantine, max_share=1.0)
    metrics_file = MetricsFile(course.run.metrics, start.step) if main else nullcontext()
    unit, every = _unit(course.train.reader.rows), config.logging_steps
    bar = TrainingBar(course.total_steps, start.step, unit=unit, logging_steps=every, shown=main)
    position = start
    learner.policy.train()
    with stop_requests() as stop, closing(batches), closing(refused), metrics_file, bar:
        for step in range(start.step + 1, course.total_steps + 1):
            # 1. Load this rank's micro-batches of the step.
            began = time.perf_counter()
            loaded = [next(batches) for _ in sampler.micro_batches(step - 1, rank)]
            data_time_s = time.perf_counter() - began
            for one in loaded:
                record(one.refused, refused)

            # 2. Learn from them.
            report = train_step(
                learner,
                loaded,
                step=step,
                learning_rate=course.schedule(step - 1),
                signalled=stop.number is not None,
            )
            position = Position(
                step=step,
                num_tokens=position.num_tokens + report.num_tokens,
                refused_rows=position.refused_rows + report.refused_rows,
            )
            step_time_s = time.perf_counter() - began
            _require_rows(course, position)

            # 3. Evaluate when it is time.
            held_out, stopping = {}, report.signalled_ranks > 0
            if course.held_out is not None and _is_due(step, config.eval_steps, course.total_steps):
                evaluation = _evaluate(course, course.held_out, step, refused, stop)
                held_out, stopping = evaluation.metrics, stopping or evaluation.signalled_ranks > 0

            # 4. Say what happened.
            line = {
                "step": step,
                **report.metrics,
                "epoch": step / sampler.steps_per_epoch,
                "num_tokens": position.num_tokens,
                "step_time_s": step_time_s,
                "data_time_s": data_time_s,
                **held_out,
            }
            if main:
                metrics_file.write(line)
                bar.advance(step, len(sampler.rows(step - 1)), line)
            if config.report_to and (step % every == 0 or held_out):
                accelerator.log({name: value for name, value in line.items() if name != "step"}, step=step)

            # 5. Save when it is time, when asked to stop, and at the end.
            if stopping or _is_due(step, config.save_steps, course.total_steps):
                if main:
                    metrics_file.sync()
                save_checkpoint(learner, course.run.checkpoints, position, course.identity, config.save_total_limit)
            if stopping:
                interrupted = Interrupted(stop.number or signal.SIGTERM, place_of(course.run.checkpoints, position))
                accelerator.print(interrupted)
                accelerator.end_training()
                raise interrupted
    return position


def _plan(course: Course, first: int, rank: int) -> Iterator[MicroBatch]:
    for step in range(first, course.total_steps):
        yield from course.train.sampler.micro_batches(step, rank)


def _is_due(step: int, every: int | None, total_steps: int) -> bool:
    """Say whether something that happens every so many steps, and at the end, happens now."""
    return step == total_steps or (every is not None and step % every == 0)


def _unit(rows: PreparedRows) -> str:
    """Return what the rate on the bar counts: pairs when every row is one."""
    return "pairs" if rows.responses_per_row == (2, 2) else "rows"


def _evaluate(course: Course, split: Split, step: int, refused: Quarantine, stop: StopRequest) -> Evaluation:
    found = evaluate(
        split.learner, split.reader, split.sampler, num_workers=course.data.num_workers, refused=refused, stop=stop
    )
    require_few(
        f"evaluation after step {step}",
        found.refused_rows,
        rows=len(split.reader.rows),
        max_share=course.data.max_refused_share,
        quarantine=course.run.quarantine,
    )
    if course.looking is None:
        return found
    reliance = image_reliance(split.learner, course.looking, num_workers=course.data.num_workers)
    return replace(found, metrics={**found.metrics, **reliance})


def _require_rows(course: Course, position: Position) -> None:
    require_few(
        f"step {position.step}",
        position.refused_rows,
        rows=len(course.train.reader.rows),
        epochs=max(1.0, position.step / course.train.sampler.steps_per_epoch),
        max_share=course.data.max_refused_share,
        quarantine=course.run.quarantine,
    )
