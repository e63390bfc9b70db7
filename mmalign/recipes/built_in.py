"""Models that are named, not given: `miniature/<family>` becomes a directory of the run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Protocol

from accelerate.utils import DistributedType

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


def start_of(path: str, run: RunDirectory, processes: Processes, *, seed: int) -> str:
    """Return the directory or hub id of a model; a built-in one is written to the run directory by the main process.

    Raises:
        ConfigError: a built-in one is asked for under DeepSpeed.
    """
    if not path.startswith(miniature.BUILT_IN) or Path(path).is_dir():
        return path
    if processes.distributed_type == DistributedType.DEEPSPEED:
        raise ConfigError(
            f"model.path {path!r} is built by one rank, while DeepSpeed wants all of them; name a directory or hub id"
        )
    if processes.is_main_process and not (run.start / "config.json").is_file():
        unfinished = run.start.with_name(".start.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        miniature.save(path.removeprefix(miniature.BUILT_IN), unfinished, seed=seed)
        shutil.rmtree(run.start, ignore_errors=True)
        os.rename(unfinished, run.start)
    processes.wait_for_everyone()
    return str(run.start)
