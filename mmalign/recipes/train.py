"""Train as a recipe says: its key `recipe` names the program.

    mmalign train configs/miniature/preference_qwen2_5_vl.yaml

Arguments and errors are those of the two programs, `sft.run` and `preference.run`.
"""

from __future__ import annotations

from mmalign.config.schema import RecipeConfig
from mmalign.recipes import preference, sft
from mmalign.recipes.training import RunResult


def run(config: RecipeConfig, *, resume: bool = False) -> RunResult:
    """Run the recipe and return what it left behind."""
    program = sft.run if config.recipe == "sft" else preference.run
    return program(config, resume=resume)
