"""`mmalign plan` of a recipe with stages: what each stage would cost, and what all of them take on disk.

mmalign plan configs/miniature/stages_curry_qwen2_5_vl.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.markup import escape
from transformers.utils.logging import disable_progress_bar

from mmalign.config.schema import RecipeConfig
from mmalign.config.stages import Stage, stages_of
from mmalign.recipes import plan, training
from mmalign.recipes.plan import Plan
from mmalign.recipes.plan_report import size_text
from mmalign.train.rundir import RunDirectory

_OPTIMISER_STATES = 2


def run(recipe: RecipeConfig, *, memory_gb: float | None = None) -> tuple[Plan, ...]:
    """Print and return the plan of every stage, or of the recipe where it has none.

    What a stage would start from is not there yet; it has the shape of the model that its first weights came from.

    Args:
        memory_gb: memory of one device in 10^9 bytes; None takes this machine's.

    Raises:
        MmalignError: what would also stop the training of a stage.
    """
    if not recipe.stages:
        return (plan.run(recipe, memory_gb=memory_gb),)
    console = Console(highlight=False)
    directory = RunDirectory(Path(recipe.train.output_dir))
    disable_progress_bar()  # as in `plan`
    stages = stages_of(recipe, training.start_path(recipe, directory, PartialState()))
    plans = []
    for number, stage in enumerate(stages, start=1):
        title = f"stage {number} of {len(stages)}: {stage.name}, {stage.recipe.recipe}, from {stage.starts_from}"
        console.rule(f"[bold]{escape(title)}[/bold]", characters="=", align="left")
        plans.append(plan.run(_with_weights_at_hand(stage, stages), memory_gb=memory_gb))
    _print_disk(stages, plans, console)
    return tuple(plans)


def _with_weights_at_hand(stage: Stage, stages: tuple[Stage, ...]) -> RecipeConfig:
    """Return the stage's recipe with, in place of each stage's result, the model it began with: the same shape.

    A reference stays as it is named, for whether it is the start decides what it shares.
    """
    began_as = {stage.result: stage.recipe.model.path for stage in stages}
    began_as |= {stage.recipe.model.path: stage.merges[0] for stage in stages if stage.merges}

    def at_hand(section: Any, *keys: str) -> dict[str, Any]:
        paths = {key: getattr(section, key) for key in keys}
        while any(path in began_as for path in paths.values()):
            paths = {key: began_as.get(path, path) for key, path in paths.items()}
        return paths

    model = stage.recipe.model
    changes = at_hand(model, "path", "token_reward")
    if model.teacher is not None:
        changes["teacher"] = model.teacher.model_copy(update=at_hand(model.teacher, "path", "contrast"))
    return stage.recipe.model_copy(update={"model": model.model_copy(update=changes)})


def _print_disk(stages: tuple[Stage, ...], plans: list[Plan], console: Console) -> None:
    """Say what merged models, checkpoints and results take; rows and caches come on top."""
    console.rule("on disk, when all stages are done", align="left")
    total = 0
    for stage, made in zip(stages, plans, strict=True):
        footprint, train = made.footprint, stage.recipe.train
        result = footprint.gradients if stage.recipe.model.lora is not None else footprint.weights
        checkpoint = result + _OPTIMISER_STATES * footprint.gradients
        saved = -(-made.batches.total_steps // (train.save_steps or made.batches.total_steps))
        kept = min(saved, train.save_total_limit or saved)
        merged = footprint.weights if stage.merges else 0
        total += merged + kept * checkpoint + result
        parts = [f"{size_text(merged)} merged start"] if merged else []
        parts += [f"{kept} x {size_text(checkpoint)} checkpoints", f"{size_text(result)} result"]
        console.print(f"{escape(stage.name)}: {', '.join(parts)}")
    console.print(f"[bold]{size_text(total)}[/bold] in all below {escape(str(stages[0].directory.parent))}")
