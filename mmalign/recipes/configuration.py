"""Where a recipe file meets the objectives that know their own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.load import load, load_any
from mmalign.config.needs import unmet
from mmalign.config.problems import dotted
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


def require_needs(recipe: RecipeConfig, objective: Objective) -> None:
    """Check that a recipe which a program built gives the objective what it reads.

    Raises:
        ConfigError: it does not, or gives what nothing reads.
    """
    if problems := list(unmet(recipe, objective.needs)):
        raise ConfigError("\n".join(f"{dotted(problem.path)}: {problem.text}" for problem in problems))
