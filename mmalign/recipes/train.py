"""Train as a recipe says: its key `recipe` names the program, its key `stages` the runs that follow one another.

    mmalign train configs/miniature/preference_qwen2_5_vl.yaml
    mmalign train configs/miniature/stages_curry_qwen2_5_vl.yaml

Arguments and errors are those of the programs, `sft.run`, `preference.run` and `stages.run`.
"""

from __future__ import annotations

from mmalign.config.schema import RecipeConfig
from mmalign.recipes import preference, sft, stages
from mmalign.recipes.results import RunResult
from mmalign.train import runtime


def run(config: RecipeConfig, *, resume: bool = False) -> RunResult:
    """Run the recipe and return what it left behind."""
    program = stages.run if config.stages else sft.run if config.recipe == "sft" else preference.run
    result = program(config, resume=resume)
    runtime.part()
    return result
