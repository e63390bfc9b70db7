"""What a recipe would cost, without training: rows and their lengths, batches, and the peak memory of one device.

Rows are prepared exactly as training prepares them, so a later `mmalign train` finds them ready. No weights are loaded
and no pixels decoded: the model is built without memory (`engine/footprint.py`).

    mmalign plan configs/miniature/preference_qwen2_5_vl.yaml
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import PartialState
from transformers.utils.logging import disable_progress_bar

from mmalign.config.schema import RecipeConfig
from mmalign.engine.footprint import BatchShape, Footprint, Skeleton
from mmalign.errors import DataError
from mmalign.objectives.compose import Objective, build
from mmalign.recipes import training
from mmalign.recipes.plan_changes import RUNTIME_BYTES, Change, changes_until_it_fits
from mmalign.recipes.plan_report import print_plan
from mmalign.recipes.plan_teacher import TeacherPlan, plan_teacher
from mmalign.train.rows import COLUMNS, PreparedRows
from mmalign.train.rundir import RunDirectory
from mmalign.train.sampler import StepSampler

_MOST_STEPS_LOOKED_AT = 5000


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How the rows of one epoch fall into forward passes, on one device.

    Args:
        total_steps: of the whole run.
        rows_per_step: rows of one optimiser step.
        rows_per_batch: least, median and most rows of a forward pass.
        padding_share: share of computed tokens that is padding.
        largest: the forward pass with the most tokens.
    """

    total_steps: int
    rows_per_step: int
    rows_per_batch: tuple[int, int, int]
    padding_share: float
    largest: BatchShape


@dataclass(frozen=True, kw_only=True)
class Decoders:
    """The processes that decode videos for one device. They live in the memory of the machine, not of the device.

    Args:
        processes: most at a time; evaluation has workers of its own beside those of training. None without videos.
        bytes_each: what one may take, which few videos need.
        free_bytes: memory of this machine without what the run takes of it.
    """

    processes: int
    bytes_each: int
    free_bytes: int

    @property
    def bytes(self) -> int:
        """What all may take together."""
        return self.processes * self.bytes_each


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `mmalign plan` found out.

    Args:
        recipe: as loaded.
        rows: prepared training rows.
        engine: "tree" or "flat", and why.
        batches: how rows fall into forward passes.
        footprint: predicted peak of one device.
        memory_bytes: what the device has, and what it is.
        decoders: processes that decode videos beside it.
        changes: what to change, in order, until it fits; empty when it does.
        teacher: what asking one takes beforehand; None without.
    """

    recipe: RecipeConfig
    rows: PreparedRows
    engine: tuple[str, str]
    batches: Batches
    footprint: Footprint
    memory_bytes: tuple[int, str]
    decoders: Decoders
    changes: tuple[Change, ...]
    teacher: TeacherPlan | None = None


def run(recipe: RecipeConfig, *, memory_gb: float | None = None) -> Plan:
    """Print and return the plan of `recipe`.

    Args:
        memory_gb: memory of one device in 10^9 bytes; None takes this machine's.

    Raises:
        MmalignError: what would also stop the training: rows, model or processor cannot be used.
    """
    disable_progress_bar()  # of transformers, for files of built-in models
    state = PartialState()
    objective = build(recipe.objective)
    with _directory(recipe) as run_directory:
        start = training.start_path(recipe, run_directory, state)
        recipe = training.with_companions(recipe, run_directory, state)
        rows = training.prepare_rows(recipe, run_directory, start, objective, state)
        skeleton = Skeleton(recipe, start)
        batches = count_batches(recipe, rows.train, skeleton.policy.engine)
        plan = _judge(recipe, rows, skeleton, start, batches, objective, _memory(memory_gb))
        print_plan(plan)
    return plan


def count_batches(recipe: RecipeConfig, rows: PreparedRows, engine: str) -> Batches:
    """Return how one epoch of `rows` falls into forward passes."""
    train = recipe.train
    sampler = StepSampler(
        lengths=rows.padded_tokens(engine),
        per_device_rows=train.per_device_train_batch_size,
        accumulation=train.gradient_accumulation_steps,
        seed=train.seed,
        shuffle=train.shuffle,
        max_tokens_per_batch=train.max_tokens_per_batch,
    )
    steps = range(min(sampler.steps_per_epoch, _MOST_STEPS_LOOKED_AT))
    shapes = [_shape(rows, batch, engine) for step in steps for batch in sampler.micro_batches(step)]
    sizes = [len(batch) for step in steps for batch in sampler.micro_batches(step)]
    computed = sum(shape.rows * shape.columns for shape in shapes)
    real = sum(int(rows.tokens(engine)[row]) for step in steps for row in sampler.rows(step))
    return Batches(
        total_steps=sampler.total_steps(epochs=train.num_train_epochs, max_steps=train.max_steps),
        rows_per_step=sampler.rows_per_step,
        rows_per_batch=(min(sizes), int(np.median(sizes)), max(sizes)),
        padding_share=1 - real / computed,
        largest=max(shapes, key=lambda shape: shape.rows * shape.columns),
    )


def _shape(rows: PreparedRows, batch: tuple[int, ...], engine: str) -> BatchShape:
    """Return the shape of one forward pass; a flat row is taken to be its prompt and an average response."""
    lengths = np.asarray(rows.lengths)[list(batch)].astype(np.int64)
    prompt, media, video, responses, count = lengths.reshape(-1, lengths.shape[-1]).T
    if engine == "tree":
        sequences, columns = len(prompt), int((prompt + responses).max())
    else:
        sequences, columns = int(count.sum()), int((prompt + np.ceil(responses / count)).max())
        media, video = media * count, video * count
    return BatchShape(
        rows=sequences,
        columns=columns,
        response_tokens=int(responses.sum()),
        media_tokens=int(media.sum()),
        video_tokens=int(video.sum()),
    )


def _judge(
    recipe: RecipeConfig,
    rows: training.Rows,
    skeleton: Skeleton,
    start: str,
    batches: Batches,
    objective: Objective,
    memory: tuple[int, str],
) -> Plan:
    teacher = plan_teacher(recipe, rows, start, batches.largest)
    reads = {"needs_reference": objective.needs_reference, "reads": objective.dense}
    footprint = skeleton.footprint(batches.largest, **reads)
    changes = changes_until_it_fits(
        recipe,
        start,
        batches.largest,
        footprint,
        memory_bytes=memory[0],
        **reads,
    )
    return Plan(
        recipe=recipe,
        rows=rows.train,
        engine=(skeleton.policy.engine, skeleton.policy.engine_reason),
        batches=batches,
        footprint=footprint,
        memory_bytes=memory,
        decoders=count_decoders(recipe, rows, footprint),
        changes=changes,
        teacher=teacher,
    )


def count_decoders(recipe: RecipeConfig, rows: training.Rows, footprint: Footprint) -> Decoders:
    """Return the processes that decode videos while `recipe` runs as predicted on one device."""
    splits = [rows.train] if rows.held_out is None else [rows.train, rows.held_out]
    shown = [np.asarray(split.lengths)[..., COLUMNS.index("video_tokens")].any() for split in splits]
    loading = max(1, recipe.data.num_workers * len(splits))
    used_bytes = 0 if torch.cuda.is_available() else footprint.total + RUNTIME_BYTES
    return Decoders(
        processes=loading if any(shown) else 0,
        bytes_each=int(recipe.data.video.decode_memory_gb * 10**9),
        free_bytes=max(0, psutil.virtual_memory().total - used_bytes),
    )


@contextmanager
def _directory(recipe: RecipeConfig) -> Iterator[RunDirectory]:
    """Yield the recipe's run directory, where training finds the rows again, or another one when a run is in it."""
    run_directory = RunDirectory(Path(recipe.train.output_dir))
    if not run_directory.metrics.exists() and not run_directory.checkpoints.exists():
        yield run_directory
        return
    elsewhere = RunDirectory(Path(tempfile.mkdtemp(prefix="mmalign-plan-")))
    try:
        yield elsewhere
    except DataError:  # its message names the file of refused rows, which stays to be read
        for place in elsewhere.root.iterdir():
            if place != elsewhere.quarantine:
                shutil.rmtree(place)
        raise
    except BaseException:
        shutil.rmtree(elsewhere.root)
        raise
    shutil.rmtree(elsewhere.root)


def _memory(memory_gb: float | None) -> tuple[int, str]:
    """Return the memory of one device in bytes, and whose it is."""
    if memory_gb is not None:
        return int(memory_gb * 1e9), "as given"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return properties.total_memory, properties.name
    return psutil.virtual_memory().total, "this machine's"
