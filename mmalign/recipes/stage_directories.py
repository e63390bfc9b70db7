"""The directory of a run with stages, and the models that pass from one stage to the next.

    config.yaml            the recipe with its stages
    manifest.json          the stages: where each is and what it starts from
    start/                 the built-in model that a run on `miniature/...` starts from
    stages/1-easy/         an ordinary run; a stage that starts from a merged adapter has the merged model in `start/`
    final/                 the result of the last stage; its files are the same on disk, not copies, where that can be
    report.html            all stages for people

On disk a stage takes its checkpoints, its result and, where an adapter was merged, one model more. A finished stage is
needed as long as a later one, or an adapter made by one, stands on it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from mmalign.config.schema import RecipeConfig
from mmalign.config.stages import Stage, stages_of
from mmalign.engine import fingerprint
from mmalign.engine.adapters import merge
from mmalign.engine.load import load_model
from mmalign.engine.tokenise import load_processor
from mmalign.errors import CheckpointError, ConfigError
from mmalign.train import rundir, state
from mmalign.train.rundir import RunDirectory

_BEFORE_TRAINING = ("config.yaml", "manifest.json", "start", "stages")
_MADE_OF = "merged_from.json"
"""Beside the merged weights: which model and adapter they are made of. Part of a whole start, written before it."""


def open_directory(config: RecipeConfig, accelerator: Accelerator, *, resume: bool) -> RunDirectory:
    """Make the directory of all stages, or find it again, and write the recipe; the main process does it.

    Raises:
        ConfigError: it holds another run's results and `resume` is False, or it cannot be written.
        CheckpointError: `resume` is True and there is nothing to resume.
    """
    run = RunDirectory(Path(config.train.output_dir))
    if accelerator.is_main_process:
        _require_place(config, run, resume=resume)
        try:
            run.root.mkdir(parents=True, exist_ok=True)
            rundir.write_config(run, config)
            rundir.write_manifest(run, {"stages": _described(stages_of(config))})
        except OSError as error:
            raise ConfigError(f"train.output_dir {str(run.root)!r} cannot be written: {error}") from error
    accelerator.wait_for_everyone()
    return run


def _require_place(config: RecipeConfig, run: RunDirectory, *, resume: bool) -> None:
    present = {path.name for path in run.root.iterdir()} if run.root.is_dir() else set()
    if resume and not present:
        raise CheckpointError(f"there is no run to resume in {run.root}; start it without --resume")
    foreign = [name for name in present - set(_BEFORE_TRAINING) if not name.endswith(rundir.UNFINISHED)]
    foreign += [f"stages/{stage.directory.name}" for stage in stages_of(config) if has_begun(stage)]
    if resume and (run.checkpoints.exists() or run.metrics.exists()):
        raise CheckpointError(f"{run.root} holds a run without stages; resume it with its own recipe")
    if foreign and not resume:
        raise ConfigError(
            f"train.output_dir {str(run.root)!r} is not empty (it holds {', '.join(sorted(foreign)[:4])}); continue "
            "that run with --resume, name another directory, or delete it"
        )


def _described(stages: tuple[Stage, ...]) -> list[dict[str, str]]:
    return [
        {"name": stage.name, "directory": f"stages/{stage.directory.name}", "starts_from": stage.starts_from}
        for stage in stages
    ]


def has_begun(stage: Stage) -> bool:
    """Say whether a stage took a step, or may have."""
    run = RunDirectory(stage.directory)
    return run.metrics.exists() or run.checkpoints.exists() or run.final.exists()


def make_start(stage: Stage, accelerator: Accelerator) -> None:
    """Write the merged model that a stage starts from, whole or not at all, unless it is there; all ranks wait for it.

    The sum is rounded once, to the type that the weights were held in while the adapter was trained on them.

    Raises:
        CheckpointError: there is no room, or the disk fails.
    """
    if stage.merges is not None and accelerator.is_main_process:
        base, adapter = stage.merges
        made_of = {"model": base, "adapter": adapter, "fingerprint": fingerprint.of_model(adapter)}
        run = RunDirectory(stage.directory)
        if _read(run.start / _MADE_OF) != made_of:
            _write_merged(stage, run, made_of)
    accelerator.wait_for_everyone()


def _write_merged(stage: Stage, run: RunDirectory, made_of: dict[str, str]) -> None:
    base, adapter = stage.merges
    print(f"writing the sum of {base} and adapter {adapter} to {run.start}", flush=True)
    trusted = stage.recipe.model.trust_remote_code
    model = merge(load_model(adapter, dtype=stage.merged_dtype, trust_remote_code=trusted))
    unfinished = run.start.with_name(f".start{rundir.UNFINISHED}")
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        _require_room(model, run.root)
        shutil.rmtree(unfinished, ignore_errors=True)
        state.save_for_use(model, unfinished)
        load_processor(base, trust_remote_code=trusted).save_pretrained(unfinished)
        (unfinished / _MADE_OF).write_text(json.dumps(made_of, indent=1), encoding="utf-8")
        shutil.rmtree(run.start, ignore_errors=True)
        os.rename(unfinished, run.start)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the merged model of stage {stage.name!r} could not be written to {run.start}: {error}; free disk space "
            "and run again with --resume"
        ) from error


def _require_room(model: nn.Module, place: Path) -> None:
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OSError(f"it takes {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")


def link_result(stage: Stage, run: RunDirectory) -> None:
    """Make `final/` of the whole run from a stage's result: the same files on disk, copies where links cannot be."""
    unfinished = run.final.with_name(f".final{rundir.UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(stage.result, unfinished, copy_function=_link)
        shutil.rmtree(run.final, ignore_errors=True)
        os.rename(unfinished, run.final)
    except OSError as error:
        raise CheckpointError(f"{run.final} could not be written: {error}; the result is in {stage.result}") from error


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _read(path: Path) -> dict[str, str] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
