"""What a run leaves behind: the trained model, a manifest, a report, and what the curves say in words."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mmalign.config.schema import RecipeConfig
from mmalign.engine.parts import trainable_report
from mmalign.engine.policy import Policy
from mmalign.errors import CheckpointError
from mmalign.recipes.training import Rows
from mmalign.report.run_report import write_run_report
from mmalign.train import rundir, state
from mmalign.train.checkpoint import latest
from mmalign.train.diagnose import diagnose
from mmalign.train.loop import Course
from mmalign.train.metrics import read_metrics
from mmalign.train.rundir import RunDirectory
from mmalign.train.runtime import finish_trackers, is_sharded, start_trackers
from mmalign.train.step import Learner


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run left behind.

    Args:
        output_dir: the run directory.
        final_dir: the trained model or adapter.
        metrics: the lines of `metrics.jsonl`.
        findings: what the curves say in words; empty for a healthy run.
    """

    output_dir: Path
    final_dir: Path
    metrics: list[dict[str, Any]]
    findings: tuple[str, ...] = ()


def save_final(learner: Learner, processor: Any, run: RunDirectory) -> Path:
    """Write the trained model or adapter with its processor to `final/`, whole or not at all.

    Raises:
        CheckpointError: the disk is full or fails; the last checkpoint is whole.
    """
    accelerator = learner.accelerator
    policy: Policy = accelerator.unwrap_model(learner.policy)
    weights = accelerator.get_state_dict(learner.policy) if is_sharded(accelerator) else None
    if accelerator.is_main_process:
        unfinished = run.final.with_name(".final.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            state.save_for_use(policy.model, unfinished, weights)
            processor.save_pretrained(unfinished)
            shutil.rmtree(run.final, ignore_errors=True)
            os.rename(unfinished, run.final)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"the trained model could not be written to {run.final}: {error}; free disk space and run again with "
                f"--resume, which goes on from {latest(run.checkpoints)}"
            ) from error
    accelerator.wait_for_everyone()
    return run.final


def describe(config: RecipeConfig, course: Course, rows: Rows, policy: Policy) -> None:
    """Tell trackers the settings; write versions, rows, model and length of the run to `manifest.json`.

    Call it when it is known that the run goes on as this recipe says: a continuation may have changed what no number
    depends on, and `config.yaml` is to hold what really ran.
    """
    learner = course.train.learner
    start_trackers(learner.accelerator, course.identity, name=course.run.root.name)
    if not learner.accelerator.is_main_process:
        return
    rundir.write_config(course.run, config)
    parts = trainable_report(policy.base, policy.family)
    rundir.write_manifest(
        course.run,
        {
            "rows": {"train": dict(rows.train.facts), "eval": rows.held_out and dict(rows.held_out.facts)},
            "model": {
                "fingerprint": course.identity["model"],
                "family": policy.family.name,
                "engine": policy.engine,
                "engine_reason": policy.engine_reason,
                "parameters": {name: {"trained": part.trainable, "all": part.total} for name, part in parts.items()},
            },
            "objective": learner.objective.description,
            "vision_sharing": "on" if learner.vision.reason is None else f"off: {learner.vision.reason}",
            "ranks": learner.accelerator.num_processes,
            "distributed_type": learner.accelerator.distributed_type.value,
            "total_steps": course.total_steps,
        },
    )


def finish(course: Course, rows: Rows) -> RunResult:
    """Save the trained model, write the report, and say in words what the curves show."""
    learner, run = course.train.learner, course.run
    save_final(learner, rows.train_tokeniser.processor, run)
    finish_trackers(learner.accelerator)
    lines = read_metrics(run.metrics)
    findings = tuple(map(str, diagnose(lines)))
    if learner.accelerator.is_main_process:
        write_run_report(run.root)
        print("\n".join([*findings, f"trained model: {run.final}", f"report: {run.report}"]), flush=True)
    return RunResult(output_dir=run.root, final_dir=run.final, metrics=lines, findings=findings)
