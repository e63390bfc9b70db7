"""The run directory: where everything a run leaves behind has its place.

config.yaml       the resolved recipe
manifest.json     versions, fingerprints, machine
metrics.jsonl     one line a step
checkpoints/      see `checkpoint.py`
final/            the trained model or adapter, with its processor
quarantine.jsonl  rows that were refused, and why
data/             prepared rows, see `prepare.py`
report.html       the run for people
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mmalign import __version__
from mmalign.config.load import dump
from mmalign.config.schema import RecipeConfig
from mmalign.errors import CheckpointError, ConfigError

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "numpy")

# Written before the first step: a run that failed by then may be started again in the same place.
_BEFORE_TRAINING = frozenset({"config.yaml", "manifest.json", "data", "quarantine.jsonl", "start"})
UNFINISHED = ".unfinished"

# What may change between a run and its continuation, because no number depends on it.
_FREE_ON_RESUME = (
    "train.output_dir",
    "train.save_steps",
    "train.save_total_limit",
    "train.logging_steps",
    "train.report_to",
    "train.threads",
    "train.per_device_eval_batch_size",
    "data.num_workers",
    "data.max_refused_share",
    "vision.cache_dir",
    "vision.cache_max_gb",
)


@dataclass(frozen=True)
class RunDirectory:
    """Paths below one run's directory."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.root / "config.yaml"

    @property
    def manifest(self) -> Path:
        """Versions and fingerprints."""
        return self.root / "manifest.json"

    @property
    def metrics(self) -> Path:
        """One line a step."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, newest last."""
        return self.root / "checkpoints"

    @property
    def final(self) -> Path:
        """The trained model or adapter."""
        return self.root / "final"

    @property
    def quarantine(self) -> Path:
        """Refused rows."""
        return self.root / "quarantine.jsonl"

    @property
    def data(self) -> Path:
        """Prepared rows."""
        return self.root / "data"

    @property
    def start(self) -> Path:
        """The built-in model that a run on `miniature/...` starts from."""
        return self.root / "start"

    @property
    def report(self) -> Path:
        """The run for people."""
        return self.root / "report.html"


def open_run(config: RecipeConfig, *, resume: bool) -> RunDirectory:
    """Make the run directory, or find it again, and write the resolved recipe.

    Raises:
        ConfigError: it holds another run's results and `resume` is False, or it cannot be written.
        CheckpointError: `resume` is True and there is nothing to resume.
    """
    run = RunDirectory(Path(config.train.output_dir))
    present = {path.name for path in run.root.iterdir()} if run.root.is_dir() else set()
    if resume and not present:
        raise CheckpointError(f"there is no run to resume in {run.root}; start it without --resume")
    foreign = sorted(name for name in present - _BEFORE_TRAINING if not name.endswith(UNFINISHED))
    if foreign and not resume:
        raise ConfigError(
            f"train.output_dir {str(run.root)!r} is not empty (it holds {', '.join(foreign[:4])}); continue that run "
            "with --resume, name another directory, or delete it"
        )
    try:
        run.root.mkdir(parents=True, exist_ok=True)
        if not run.config.exists() or not resume:
            write_config(run, config)
        run.quarantine.touch()  # an empty file says that no row was refused; a missing one would leave it open
    except OSError as error:
        raise ConfigError(f"train.output_dir {str(run.root)!r} cannot be written: {error}") from error
    return run


def write_config(run: RunDirectory, config: RecipeConfig) -> None:
    """Write the resolved recipe as `config.yaml`."""
    _write(run.config, dump(config))


def identity_of(config: RecipeConfig, fingerprints: Mapping[str, str], rows_per_step: int) -> dict[str, Any]:
    """Return the flat facts that a run and its continuation must share.

    Args:
        fingerprints: of data and model.
        rows_per_step: instead of the sizes whose product it is, so that ranks may be traded for accumulation.
    """
    traded = ("train.per_device_train_batch_size", "train.gradient_accumulation_steps")
    facts = {key: value for key, value in _flat(config.model_dump(mode="json")) if key not in _FREE_ON_RESUME + traded}
    return {**facts, **fingerprints, "rows_per_step": rows_per_step}


def write_manifest(run: RunDirectory, facts: Mapping[str, Any]) -> None:
    """Write versions, machine and `facts` (fingerprints, sizes) as `manifest.json`."""
    manifest = {
        "command": sys.argv,
        "versions": {
            "mmalign": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
        },
        **facts,
    }
    _write(run.manifest, json.dumps(manifest, indent=1))


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _flat(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(values, dict):
        return [(prefix.rstrip("."), values)]
    return [pair for key, value in values.items() for pair in _flat(value, f"{prefix}{key}.")]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
