"""What a teacher costs before training begins: the device while it is asked, and the disk for what it says."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.config.schema import RecipeConfig
from mmalign.engine.footprint import LIVE_ACTIVATIONS, BatchShape
from mmalign.engine.footprint_models import frozen_model
from mmalign.engine.load import DTYPES
from mmalign.engine.teacher_table import bytes_per_token
from mmalign.engine.tiles import TILE_BYTES
from mmalign.recipes.teaching import dtype_of_teacher, shared_vocabulary
from mmalign.recipes.training import Rows
from mmalign.train.rows import COLUMNS

_WIDE = 4


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """What asking a teacher takes.

    Args:
        weights: bytes of the teacher, and of the model it is contrasted with; both are held at the same time, and gone
            again when the policy is loaded.
        passing: bytes of one forward pass of its largest batch, of which nothing is kept.
        table: bytes on disk, all splits.
        free: bytes left on that disk.
    """

    weights: int
    passing: int
    table: int
    free: int

    @property
    def memory(self) -> int:
        """Peak of one device while it is asked."""
        return self.weights + self.passing


def plan_teacher(recipe: RecipeConfig, rows: Rows, start: str, shape: BatchShape) -> TeacherPlan | None:
    """Return what the recipe's teacher would take, None where it has none.

    Args:
        start: directory or hub id of the policy.
        shape: the largest batch.

    Raises:
        ModelError, ConfigError: the teacher could not be asked; see `teaching.ask_teacher`.
    """
    teacher = recipe.model.teacher
    if teacher is None:
        return None
    shared_vocabulary(recipe, teacher, start, rows.train_tokeniser)
    dtype = DTYPES[dtype_of_teacher(recipe)]
    paths = [teacher.path] if teacher.contrast is None else [teacher.path, teacher.contrast]
    models = [frozen_model(path, recipe, dtype) for path in paths]
    largest = max(models, key=lambda model: model.weights)
    splits = [rows.train] if rows.held_out is None else [rows.train, rows.held_out]
    column = COLUMNS.index("response_tokens")
    tokens = sum(int(np.asarray(split.lengths)[..., column].astype(np.int64).sum()) for split in splits)
    layer = LIVE_ACTIVATIONS * shape.rows * shape.columns * largest.widest
    states = 2 * shape.response_tokens * largest.width
    tiles = 2 * min(_WIDE * shape.response_tokens * largest.vocabulary, TILE_BYTES)
    return TeacherPlan(
        weights=sum(model.weights for model in models),
        passing=(layer + states) * dtype.itemsize + tiles,
        table=tokens * bytes_per_token(teacher.top_k, len(paths) > 1),
        free=shutil.disk_usage(_existing(Path(recipe.train.output_dir))).free,
    )


def _existing(path: Path) -> Path:
    """Return the nearest directory above that is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.is_dir())
