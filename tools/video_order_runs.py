"""The training runs that `measure_video_order.py` compares: one recipe file each, as a user writes it.

Settings were chosen on seeds other than those reported (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.miniature import events
from mmalign.recipes.recipe_files import write_recipe

SFT_STEPS, SFT_ROWS_PER_STEP = 520, 16
CONTINUED_STEPS, PAIRS_PER_STEP = 40, 16

VIDEO = {"sampling": "uniform", "frames": events.FRAMES}
_ADAM = {"weight_decay": 0.01, "adam_beta2": 0.98}
_DPO = {"name": "dpo", "beta": 0.1}
_SFT_TERM = {"name": "sft", "weight": 1.0}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One recipe of a run.

    Args:
        rows: name of its rows file.
        objective: None is supervised fine-tuning.
    """

    rows: str
    objective: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A model that is compared: what is done to the first one.

    Args:
        name: of its recipe files and run directories.
        title: for people.
        stages: one after the other, each from the model of the one before; they share the steps.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]

    def stage_names(self) -> tuple[str, ...]:
        """Return the name of every stage's recipe."""
        if len(self.stages) == 1:
            return (self.name,)
        return tuple(f"{self.name}_{number}" for number in range(1, len(self.stages) + 1))

    def model_dir(self, place: Path) -> Path:
        """Return where the model is after the last stage."""
        return place / self.stage_names()[-1] / "final"


def _dpo(rows: str) -> Stage:
    return Stage(rows=rows, objective=(_DPO,))


FIRST = Run(name="sft", title="SFT on the biased annotator", stages=(Stage(rows="annotator"),))
CONTINUED: tuple[Run, ...] = (
    Run(name="more_sft", title="+ more of the same SFT", stages=(Stage(rows="annotator_fresh"),)),
    Run(name="dpo_fine", title="+ DPO, neighbours swapped", stages=(_dpo("fine"),)),
    Run(name="dpo_coarse", title="+ DPO, reversed or shuffled", stages=(_dpo("coarse"),)),
    Run(name="dpo_mixed", title="+ DPO, mixed", stages=(_dpo("mixed"),)),
    Run(name="easy_to_hard", title="+ DPO, coarse then fine", stages=(_dpo("coarse"), _dpo("fine"))),
    Run(name="hard_to_easy", title="+ DPO, fine then coarse", stages=(_dpo("fine"), _dpo("coarse"))),
    Run(
        name="dpo_mixed_sft",
        title="+ DPO with SFT term, mixed",
        stages=(Stage(rows="mixed", objective=(_DPO, _SFT_TERM)),),
    ),
    Run(name="truth_sft", title="+ SFT on the truth", stages=(Stage(rows="truth_fresh"),)),
)
"""All go on from the first, for the same number of steps and of sequences a step."""


def write_recipes(place: Path, run: Run, *, seed: int, threads: int) -> tuple[Path, ...]:
    """Write one recipe a stage to `<place>/<stage>.yaml` and return their paths in order."""
    before, paths = FIRST.model_dir(place) if run is not FIRST else place / "start", []
    for name, stage in zip(run.stage_names(), run.stages, strict=True):
        train = _learning(stage) if run is FIRST else _going_on(stage, CONTINUED_STEPS // len(run.stages))
        values = {
            "recipe": "sft" if stage.objective is None else "preference",
            "model": {"path": str(before)},
            "data": {"train": str(place / "rows" / f"{stage.rows}.jsonl"), "root": str(place), "video": VIDEO},
            **({} if stage.objective is None else {"objective": [dict(part) for part in stage.objective]}),
            "train": {"output_dir": str(place / name), **train, **_ADAM, "seed": seed, "threads": threads},
        }
        paths.append(write_recipe(place / f"{name}.yaml", f"{run.title}; rows: {stage.rows}.", values))
        before = place / name / "final"
    return tuple(paths)


# Runs as short as these are started again rather than resumed.
_SAVING = {"save_steps": None, "logging_steps": 10}


def _learning(stage: Stage) -> dict[str, Any]:
    schedule = {"learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 30, "max_steps": SFT_STEPS}
    return {"per_device_train_batch_size": SFT_ROWS_PER_STEP, **schedule, **_SAVING}


def _going_on(stage: Stage, steps: int) -> dict[str, Any]:
    rows = PAIRS_PER_STEP if stage.objective else 2 * PAIRS_PER_STEP
    schedule = {"learning_rate": 1e-4, "warmup_steps": 5, "max_steps": steps}
    return {"per_device_train_batch_size": rows, **schedule, **_SAVING}
