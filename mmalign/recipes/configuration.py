"""Where a recipe file meets the objectives that know their own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.config.document import read_document
from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.load import load, load_any
from mmalign.config.needs import unmet
from mmalign.config.overrides import apply_overrides
from mmalign.config.problems import Problem, dotted
from mmalign.config.schema import RecipeConfig
from mmalign.config.temporal_schema import TemporalConfig
from mmalign.errors import ConfigError

if TYPE_CHECKING:
    from mmalign.objectives.compose import Objective


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RecipeConfig:
    """Read and check a recipe, options of its objectives included, without loading a model.

    Raises:
        ConfigError: every mistake with file and line, or the override; see `mmalign.config.load.load`.
    """
    return load(path, overrides, check_objectives=needs_of)


def load_generation(path: str | Path, overrides: Sequence[str] = ()) -> GenerateConfig:
    """Read and check a recipe that generates; see `load_recipe`."""
    return load_any(path, overrides, schema=GenerateConfig)


def load_temporal(path: str | Path, overrides: Sequence[str] = ()) -> TemporalConfig:
    """Read and check a recipe that makes temporal pairs; see `load_recipe`."""
    return load_any(path, overrides, schema=TemporalConfig)


def needs_of(specs: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Say what objectives read beside the policy, by the names of `mmalign.config.needs`.

    Raises:
        ConfigError: an unknown objective or option, or a value outside its rule.
    """
    # Imported late: a mistake that the schema finds is reported before the second that torch takes to import.
    from mmalign.objectives.compose import build

    return build(specs).needs


def require_models(recipe: RecipeConfig, path: str | Path, overrides: Sequence[str] = ()) -> None:
    """Check that models which a recipe names by directory are there, before anything is loaded or fetched.

    Args:
        recipe: as loaded from `path` with `overrides`.

    Raises:
        ConfigError: one is not, with file and line.
    """
    if problems := missing_models(recipe):
        document = read_document(path)
        apply_overrides(document, overrides)
        lines = [f"{document.place(problem.path)}: {dotted(problem.path)}: {problem.text}" for problem in problems]
        raise ConfigError("\n".join(lines))


def missing_models(recipe: RecipeConfig) -> list[Problem]:
    """Return a problem for each named directory that is not there; what this run itself will write is not looked for.

    A name of one slash is a hub id as well, unless it begins as `train.output_dir` does.
    """
    model, output = recipe.model, Path(recipe.train.output_dir)
    named = {("model", key): getattr(model, key) for key in ("path", "reference", "token_reward", "adapter")}
    if model.teacher is not None:
        named |= {("model", "teacher", key): getattr(model.teacher, key) for key in ("path", "contrast")}
    return [
        Problem(
            path=key, text=f"no such directory {path} (looked in {Path.cwd()}); give one that save_pretrained wrote"
        )
        for key, path in named.items()
        if path is not None
        and not Path(path).exists()
        and output not in Path(path).parents
        and (path.startswith((".", "/")) or path.count("/") > 1 or Path(path).parts[:1] == output.parts[:-1][:1])
    ]


def require_needs(recipe: RecipeConfig, objective: Objective) -> None:
    """Check that a recipe which a program built gives the objective what it reads.

    Raises:
        ConfigError: it does not, or gives what nothing reads.
    """
    if problems := list(unmet(recipe, objective.needs)):
        raise ConfigError("\n".join(f"{dotted(problem.path)}: {problem.text}" for problem in problems))
