"""Run the stages of a recipe, one after the other: easy pairs before hard ones, imitation before preferences.

Every stage is an ordinary run in a directory of its own, `<output_dir>/stages/1-easy/`, with its recipe in full, its
checkpoints, its result and its report. It starts from what the stage before left behind; an adapter is merged into the
weights first, or goes on. Killed at any moment, inside a stage or between two, `--resume` goes on as if nothing had
happened: finished stages are checked and passed over, the one that was cut short is resumed from its newest checkpoint.

    mmalign train configs/miniature/stages_curry_qwen2_5_vl.yaml
    mmalign train configs/miniature/stages_curry_qwen2_5_vl.yaml --resume
"""

from __future__ import annotations

import gc
from pathlib import Path

import torch
from accelerate import Accelerator

from mmalign.config.schema import RecipeConfig
from mmalign.config.stages import Stage, stages_of
from mmalign.objectives.compose import build
from mmalign.recipes import preference, sft, stage_directories, training
from mmalign.recipes.configuration import require_needs
from mmalign.recipes.identity import identity_of
from mmalign.recipes.results import RunResult
from mmalign.report.run_report import write_run_report
from mmalign.report.stages_report import write_stages_report
from mmalign.train import runtime
from mmalign.train.checkpoint import latest, read_position
from mmalign.train.diagnose import diagnose
from mmalign.train.metrics import read_metrics
from mmalign.train.rundir import RunDirectory


def run(config: RecipeConfig, *, resume: bool = False) -> RunResult:
    """Run all stages and return what they left behind; `final/` is the result of the last one.

    Args:
        resume: pass over what is finished in `train.output_dir`, and go on with the rest.

    Raises:
        MmalignError: one of its subclasses, with what is wrong and the way out.
        Interrupted: Ctrl-C or SIGTERM inside a stage; a checkpoint was saved first.
    """
    # 1. The directory of all stages, and the model that the first one starts from.
    accelerator = runtime.start(config.train)
    directory = stage_directories.open_directory(config, accelerator, resume=resume)
    first = training.start_path(config, directory, accelerator)

    # 2. Every stage as a complete recipe, one after the other.
    stages = stages_of(config, first)
    require_objectives(stages)
    for number, stage in enumerate(stages, start=1):
        accelerator.print(f"stage {number} of {len(stages)}, {stage.name}, from {stage.starts_from}")
        if resume and is_finished(stage, accelerator):
            accelerator.print(f"finished before: {stage.result}")
            continue

        # 3. What it starts from: the adapter of an earlier stage becomes part of the weights, unless it goes on.
        stage_directories.make_start(stage, accelerator)

        # 4. The stage, as the run that it is; then the memory that it held is free for the next one.
        program = sft.run if stage.recipe.recipe == "sft" else preference.run
        program(stage.recipe, resume=resume and stage_directories.has_begun(stage))
        release_memory()

        # 5. What is known by now.
        if accelerator.is_main_process:
            write_stages_report(directory.root)
        accelerator.wait_for_everyone()

    # 6. The result of the last stage, and what all of them say about themselves.
    return finish(directory, stages, accelerator)


def require_objectives(stages: tuple[Stage, ...]) -> None:
    """Build the objective of every stage, so that none is refused after those before it were trained.

    Raises:
        ConfigError: one cannot be built, or its stage does not give it what it reads.
    """
    for stage in stages:
        objective = build(stage.recipe.objective)
        if stage.recipe.recipe == "preference":
            require_needs(stage.recipe, objective)


def is_finished(stage: Stage, accelerator: Accelerator) -> bool:
    """Say whether a stage left its result behind. No weights are loaded.

    Raises:
        CheckpointError: it did, with other settings, rows, model, reference, adapter or optimiser than now.
    """
    run_directory = RunDirectory(stage.directory)
    newest = latest(run_directory.checkpoints)
    if newest is None or not run_directory.final.is_dir():
        return False
    stage_directories.make_start(stage, accelerator)
    start = stage.recipe.model.path
    rows = training.prepare_rows(stage.recipe, run_directory, start, build(stage.recipe.objective), accelerator)
    sampler = training.train_sampler(stage.recipe, rows, "tree", accelerator.num_processes)
    read_position(newest, identity_of(stage.recipe, rows.fingerprints(), start, sampler.rows_per_step))
    if accelerator.is_main_process and not run_directory.report.is_file():
        write_run_report(run_directory.root)
    return True


def release_memory() -> None:
    """Free what a finished run held: models and optimisers refer to each other in circles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def finish(directory: RunDirectory, stages: tuple[Stage, ...], accelerator: Accelerator) -> RunResult:
    """Put the result of the last stage into `final/`, write the report, and say in words what the curves show."""
    if accelerator.is_main_process:
        stage_directories.link_result(stages[-1], directory)
        write_stages_report(directory.root)
    accelerator.wait_for_everyone()
    lines, findings = [], []
    for stage in stages:
        own = read_metrics(RunDirectory(stage.directory).metrics)
        lines += [{"stage": stage.name, **line} for line in own]
        findings += [f"stage {stage.name}: {finding}" for finding in diagnose(own)]
    accelerator.print("\n".join([f"trained model: {directory.final}", f"report: {directory.report}"]))
    return RunResult(
        output_dir=Path(directory.root), final_dir=directory.final, metrics=lines, findings=tuple(findings)
    )
