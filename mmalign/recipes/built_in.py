"""Models that are named, not given: `miniature/<family>` becomes a directory of the run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

from accelerate.utils import DistributedType

from mmalign.config.schema import ModelConfig, RecipeConfig, TeacherConfig
from mmalign.errors import ConfigError
from mmalign.miniature import models as miniature
from mmalign.train.rundir import RunDirectory


class Processes(Protocol):
    """What is read of accelerate's `Accelerator` or `PartialState`."""

    distributed_type: DistributedType
    is_main_process: bool

    def wait_for_everyone(self) -> None:
        """Wait until all processes are here."""
        ...


def start_of(path: str, run: RunDirectory, processes: Processes, *, seed: int, key: str = "model.path") -> str:
    """Return the directory or hub id of a model; a built-in one is written to the run directory by the main process.

    Args:
        key: of the recipe, for messages. Models other than the policy have directories of their own beside its start.

    Raises:
        ConfigError: a built-in one is asked for under DeepSpeed.
    """
    if not path.startswith(miniature.BUILT_IN) or Path(path).is_dir():
        return path
    if processes.distributed_type == DistributedType.DEEPSPEED:
        raise ConfigError(
            f"{key} {path!r} is built by one rank, while DeepSpeed wants all of them; name a directory or hub id"
        )
    family = path.removeprefix(miniature.BUILT_IN)
    place = run.start if key == "model.path" else run.start.with_name(f"{run.start.name}-{family}")
    if processes.is_main_process and not (place / "config.json").is_file():
        unfinished = place.with_name(f".{place.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        miniature.save(family, unfinished, seed=seed)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(unfinished, place)
    processes.wait_for_everyone()
    return str(place)


def with_built_in_companions(config: RecipeConfig, run: RunDirectory, processes: Processes) -> RecipeConfig:
    """Return the recipe with a directory of the run in place of each built-in model that stands beside the policy.

    Raises:
        ConfigError: see `start_of`.
    """
    model, teacher = config.model, config.model.teacher

    def made(section: ModelConfig | TeacherConfig, place: str, *keys: str) -> dict[str, str]:
        named = {key: path for key in keys if (path := getattr(section, key)) is not None}
        return {
            key: start_of(path, run, processes, seed=config.train.seed, key=f"{place}.{key}")
            for key, path in named.items()
        }

    # The policy itself with its adapter off is asked for by naming it again: no second model is loaded.
    is_the_start = model.lora is not None and model.reference == model.path
    changes: dict[str, Any] = made(model, "model", "token_reward", *([] if is_the_start else ["reference"]))
    if teacher is not None:
        changes["teacher"] = teacher.model_copy(update=made(teacher, "model.teacher", "path", "contrast"))
    return config.model_copy(update={"model": model.model_copy(update=changes)})
