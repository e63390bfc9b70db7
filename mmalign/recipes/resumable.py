"""Runs that only make rows: their directory is opened once, and found again by what decides its contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmalign.config.section import Section
from mmalign.errors import CheckpointError, ConfigError
from mmalign.train import rundir
from mmalign.train.rundir import RunDirectory


def open_or_resume(
    place: RunDirectory, config: Section, identity: Mapping[str, Any], *, key: str, made: str, resume: bool
) -> None:
    """Make a run directory or find it again, and hold a continuation to the settings of its beginning.

    Args:
        identity: what decides what the run makes, by the sections of the recipe.
        key: of the recipe, that names the directory.
        made: what a run makes, in words.

    Raises:
        ConfigError: the directory holds something else.
        CheckpointError: there is nothing to resume, or it was begun with something else.
    """
    present = sorted(path.name for path in place.root.iterdir()) if place.root.is_dir() else []
    if present and not resume:
        raise ConfigError(
            f"{key} {str(place.root)!r} is not empty (it holds {', '.join(present[:4])}); continue that "
            "run with --resume, name another directory, or delete it"
        )
    if resume and not place.manifest.is_file():
        raise CheckpointError(f"there is no run to resume in {place.root}; start it without --resume")
    now = json.loads(json.dumps(identity))
    if resume:
        before = json.loads(place.manifest.read_text(encoding="utf-8"))["identity"]
        changed = sorted(name for name in now if now[name] != before.get(name))
        if changed:
            raise CheckpointError(
                f"the run in {place.root} was begun with other {', '.join(changed)}; its {made} would not belong "
                "together: go on with what it was begun with, or name another directory"
            )
    place.root.mkdir(parents=True, exist_ok=True)
    rundir.write_manifest(place, {"identity": now})
    rundir.write_config(place, config)
