"""The recipe files of the quickstart: the same YAML a user writes, one file a training run.

Settings were chosen on seeds other than those reported (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign.recipes.recipe_files import write_recipe

SFT_STEPS, SFT_ROWS_PER_STEP = 600, 16
ALIGN_STEPS, PAIRS_PER_STEP = 60, 16
PHOTOGRAPH_STEPS = 12

_ADAM = {"weight_decay": 0.01, "adam_beta2": 0.98}
# Runs as short as these are started again rather than resumed.
_SAVING = {"save_steps": None, "logging_steps": 10}


def first_sft(place: Path, *, seed: int, threads: int) -> Path:
    """Write the recipe by which the model learns to caption, from the annotator who sees phantoms."""
    schedule = {"learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 30, "max_steps": SFT_STEPS}
    return _write(
        place,
        "sft",
        "A model learns to caption from an annotator who sees a blue cross where something red or yellow is.",
        recipe="sft",
        model="start",
        rows="annotator",
        train={"per_device_train_batch_size": SFT_ROWS_PER_STEP, **schedule, **_ADAM, "seed": seed, "threads": threads},
    )


def more_sft(place: Path, name: str, rows: str, about: str, *, seed: int, threads: int) -> Path:
    """Write a control: supervised fine-tuning goes on, with as many sequences a step as the preference runs read."""
    return _write(
        place,
        name,
        about,
        recipe="sft",
        model="sft/final",
        rows=rows,
        train={"per_device_train_batch_size": 2 * PAIRS_PER_STEP, **_continued(seed, threads)},
    )


def align(
    place: Path, name: str, about: str, *, with_sft_term: bool, seed: int, threads: int, rows: str = "own_mistakes"
) -> Path:
    """Write the recipe that aligns the model to preference rows, with or without the SFT term beside DPO."""
    objective = [{"name": "dpo", "beta": 0.3}]
    if with_sft_term:
        objective.append({"name": "sft", "weight": 1.0})
    return _write(
        place,
        name,
        about,
        recipe="preference",
        model="sft/final",
        rows=rows,
        objective=objective,
        train={"per_device_train_batch_size": PAIRS_PER_STEP, **_continued(seed, threads)},
    )


def photographs(place: Path, *, seed: int, threads: int) -> Path:
    """Write the recipe for photographs: adapters on a frozen tower, as one would start with a real model."""
    return _write(
        place,
        "photographs",
        "The way for your own data: your model in model.path, your rows in data.train, your pictures below data.root.",
        recipe="preference",
        model="miniature/qwen2_5_vl",
        lora={"rank": 8, "alpha": 16, "targets": "all-linear"},
        freeze=["vision"],
        rows="photographs",
        max_pixels=50_176,
        objective=[{"name": "dpo", "beta": 0.1}, {"name": "sft", "weight": 1.0}],
        train={
            "per_device_train_batch_size": 4,
            "learning_rate": 2e-3,
            "max_steps": PHOTOGRAPH_STEPS,
            "seed": seed,
            "threads": threads,
        },
    )


def _continued(seed: int, threads: int) -> dict[str, Any]:
    return {
        "learning_rate": 2e-4,
        "warmup_steps": 5,
        "max_steps": ALIGN_STEPS,
        **_ADAM,
        "seed": seed,
        "threads": threads,
    }


def _write(
    place: Path,
    name: str,
    about: str,
    *,
    recipe: str,
    model: str,
    rows: str,
    train: dict[str, Any],
    lora: dict[str, Any] | None = None,
    freeze: list[str] | None = None,
    max_pixels: int | None = None,
    objective: list[dict[str, Any]] | None = None,
) -> Path:
    """Write `<place>/<name>.yaml` and return its path; keys stand in the order in which one reads them."""
    built_in = model.startswith("miniature/")
    values: dict[str, Any] = {
        "recipe": recipe,
        "model": {"path": model if built_in else str(place / model), "lora": lora, "freeze": freeze},
        "data": {"train": str(place / "rows" / f"{rows}.jsonl"), "root": str(place), "max_pixels": max_pixels},
        "objective": objective,
        "train": {"output_dir": str(place / name), **train, **_SAVING},
    }
    given = {key: _without_none(value) if key in ("model", "data") else value for key, value in values.items()}
    return write_recipe(place / f"{name}.yaml", about, _without_none(given))


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
