"""What a run starts from, as facts that a continuation must share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmalign.config.schema import RecipeConfig
from mmalign.engine import fingerprint
from mmalign.errors import CheckpointError
from mmalign.train import rundir
from mmalign.train.checkpoint import latest
from mmalign.train.rundir import RunDirectory


def identity_of(config: RecipeConfig, rows: Mapping[str, str], start: str, rows_per_step: int) -> dict[str, Any]:
    """Return settings, rows, and fingerprints of everything that the run starts from.

    Args:
        rows: fingerprints of the prepared rows.
        start: directory or hub id of the model as it starts.
        rows_per_step: of all ranks.
    """
    fingerprints = {**rows, "model": fingerprint.of_model(start)}
    teacher = config.model.teacher
    models = {name: getattr(config.model, name) for name in ("reference", "adapter", "token_reward")}
    models |= {} if teacher is None else {"teacher": teacher.path, "contrast": teacher.contrast}
    fingerprints |= {name: fingerprint.of_model(path) for name, path in models.items() if path is not None}
    if config.train.optimizer_from is not None:
        fingerprints["optimizer"] = fingerprint.of_model(optimizer_checkpoint(config.train.optimizer_from))
    return rundir.identity_of(config, fingerprints, rows_per_step)


def optimizer_checkpoint(run: str) -> Path:
    """Return the newest whole checkpoint of another run, whose optimiser goes on in this one.

    Raises:
        CheckpointError: there is none.
    """
    path = latest(RunDirectory(Path(run)).checkpoints)
    if path is None:
        raise CheckpointError(
            f"train.optimizer_from {run!r} has no whole checkpoint; name a run directory with one, or remove the key"
        )
    return path
