"""The training runs that `measure_layouts.py` compares: one recipe file each, as a user writes it.

Settings were chosen on seeds other than those reported (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from video_order_runs import Run, Stage

from mmalign.recipes.recipe_files import write_recipe

SFT_STEPS, SFT_ROWS_PER_STEP = 240, 16
CONTINUED_STEPS, PAIRS_PER_STEP = 40, 16

_ADAM = {"weight_decay": 0.01, "adam_beta2": 0.98}
_SAVING = {"save_steps": None, "logging_steps": 10}
_DPO = {"name": "dpo", "beta": 0.1}
_SFT_TERM = {"name": "sft", "weight": 1.0}


def _run(name: str, title: str, rows: str, objective: tuple[dict[str, Any], ...] | None = None) -> Run:
    return Run(name=name, title=title, stages=(Stage(rows=rows, objective=objective),))


FIRST = _run("sft", "SFT on the hurried annotator", "annotator")
CONTINUED: tuple[Run, ...] = (
    _run("more_sft", "+ more of the same SFT", "annotator_fresh"),
    _run("dpo", "+ DPO, true against worsened", "worsened", (_DPO,)),
    _run("dpo_sft", "+ DPO with SFT term, true against worsened", "worsened", (_DPO, _SFT_TERM)),
    _run("judged", "+ DPO, its own best against its worst", "judged", (_DPO,)),
    _run("judged_sft", "+ DPO with SFT term, its own best against its worst", "judged", (_DPO, _SFT_TERM)),
    _run("truth_sft", "+ SFT on the truth", "truth_fresh"),
)
"""All go on from the first, for the same number of steps and of sequences a step."""


def write(place: Path, run: Run, *, seed: int, threads: int) -> Path:
    """Write the recipe of a run to `<place>/<name>.yaml` and return its path."""
    stage = run.stages[0]
    values = {
        "recipe": "sft" if stage.objective is None else "preference",
        "model": {"path": str(place / "start" if run is FIRST else FIRST.model_dir(place))},
        "data": {"train": str(place / "rows" / f"{stage.rows}.jsonl"), "root": str(place)},
        **({} if stage.objective is None else {"objective": [dict(part) for part in stage.objective]}),
        "train": {
            "output_dir": str(place / run.name),
            **(_learning() if run is FIRST else _going_on(stage)),
            **_ADAM,
            **_SAVING,
            "seed": seed,
            "threads": threads,
        },
    }
    return write_recipe(place / f"{run.name}.yaml", f"{run.title}; rows: {stage.rows}.", values)


def _learning() -> dict[str, Any]:
    schedule = {"learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 30, "max_steps": SFT_STEPS}
    return {"per_device_train_batch_size": SFT_ROWS_PER_STEP, **schedule}


def _going_on(stage: Stage) -> dict[str, Any]:
    rows = PAIRS_PER_STEP if stage.objective else 2 * PAIRS_PER_STEP
    return {
        "per_device_train_batch_size": rows,
        "learning_rate": 1e-4,
        "warmup_steps": 5,
        "max_steps": CONTINUED_STEPS,
    }
