"""Checkpoints as directories that exist whole or not at all.

    checkpoints/step-00000050/
      model/                 loads with `from_pretrained`, or as a peft adapter
      optimizer.safetensors  see `state.py`; nothing is pickled
      rng-0.safetensors      one per rank
      memory.safetensors     what the objective remembers from step to step, if it does
      reference.safetensors  the reference's weights, if it follows the policy
      checkpoint.json        position, identity of the run, and the size of every file; written last

A checkpoint is written to a hidden directory beside its place, flushed to disk, and renamed. A process killed at any
moment leaves hidden rests, which the next run removes; a full disk leaves the checkpoints before it untouched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mmalign.errors import CheckpointError, show

MANIFEST = "checkpoint.json"
_UNFINISHED, _DOOMED = ".unfinished-", ".doomed-"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come: all that the sampler needs to go on.

    Args:
        step: optimiser steps done.
        num_tokens: tokens computed so far, padding excluded.
        refused_rows: rows that could not be loaded so far, counted in every epoch.
    """

    step: int = 0
    num_tokens: int = 0
    refused_rows: int = 0


@contextmanager
def writing(root: Path, position: Position, identity: Mapping[str, Any]) -> Iterator[Path]:
    """Give a directory to fill; on leaving, make it the checkpoint of `position`, whole and on disk.

    Args:
        root: the run's `checkpoints/`.
        position: goes into the manifest and names the checkpoint.
        identity: flat facts that a run which continues from here must share, such as {"train.seed": 42}.

    Raises:
        CheckpointError: the disk is full or fails. Earlier checkpoints stay as they are.
    """
    place, unfinished = place_of(root, position), unfinished_place(root, position)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        yield unfinished
        _write_manifest(unfinished, position, identity)
        _flush(unfinished)
        _discard(place)
        os.rename(unfinished, place)
        _flush_directory(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(_could_not_write(root, place, error)) from error


def place_of(root: Path, position: Position) -> Path:
    """Return where the checkpoint of `position` is."""
    return root / f"step-{position.step:08d}"


def unfinished_place(root: Path, position: Position) -> Path:
    """Return where it is while it is being written."""
    return root / f"{_UNFINISHED}{place_of(root, position).name}"


def latest(root: Path) -> Path | None:
    """Return the newest whole checkpoint below `root`, or None."""
    return next(iter(reversed(checkpoints(root))), None)


def checkpoints(root: Path) -> list[Path]:
    """Return the whole checkpoints below `root`, oldest first."""
    return [path for path in sorted(root.glob("step-*")) if _is_whole(path)]


def read_position(path: Path, identity: Mapping[str, Any]) -> Position:
    """Return the position stored at `path` after checking that it belongs to the same run.

    Raises:
        CheckpointError: a fact of `identity` differs; the message lists each with both values.
    """
    manifest = json.loads((path / MANIFEST).read_text())
    stored = manifest["identity"]
    now = json.loads(json.dumps(dict(identity)))
    differing = sorted(key for key in stored.keys() | now.keys() if stored.get(key) != now.get(key))
    if differing:
        lines = [f"  {key}: {show(stored.get(key))} in the checkpoint, {show(now.get(key))} now" for key in differing]
        raise CheckpointError(
            f"{path} belongs to another run:\n" + "\n".join(lines) + "\n"
            "set these back to resume, or start a new run in another train.output_dir"
        )
    return Position(**manifest["position"])


def prune(root: Path, keep: int | None) -> None:
    """Delete all but the `keep` newest checkpoints (None: keep all) and what killed processes left behind."""
    for rest in [*root.glob(f"{_UNFINISHED}*"), *root.glob(f"{_DOOMED}*")]:
        shutil.rmtree(rest, ignore_errors=True)
    whole = checkpoints(root)
    for path in whole[: len(whole) - keep] if keep is not None else []:
        _discard(path)


def _discard(path: Path) -> None:
    # Renamed before it is emptied, so that no moment shows a checkpoint with half of its files.
    if path.exists():
        doomed = path.with_name(f"{_DOOMED}{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _write_manifest(directory: Path, position: Position, identity: Mapping[str, Any]) -> None:
    sizes = {str(path.relative_to(directory)): path.stat().st_size for path in _files(directory)}
    manifest = {"position": vars(position), "identity": dict(identity), "files": sizes}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def _is_whole(path: Path) -> bool:
    try:
        sizes = json.loads((path / MANIFEST).read_text())["files"]
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _flush(directory: Path) -> None:
    for path in _files(directory):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    for path in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        _flush_directory(path)


def _flush_directory(path: Path) -> None:
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _could_not_write(root: Path, place: Path, error: Exception) -> str:
    kept = latest(root)
    way_out = f"the last whole checkpoint is {kept}" if kept else "no earlier checkpoint exists"
    return (
        f"checkpoint {place.name} could not be written below {root}: {error}; {way_out}. "
        "Free disk space (or lower train.save_total_limit) and run again with --resume"
    )
