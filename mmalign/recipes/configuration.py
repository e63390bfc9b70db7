"""Where a recipe file meets the objectives that know their own options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.load import load, load_any
from mmalign.config.schema import RecipeConfig


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RecipeConfig:
    """Read and check a recipe, options of its objectives included, without loading a model.

    Raises:
        ConfigError: every mistake with file and line, or the override; see `mmalign.config.load.load`.
    """
    return load(path, overrides, check_objectives=needs_reference)


def load_generation(path: str | Path, overrides: Sequence[str] = ()) -> GenerateConfig:
    """Read and check a recipe that generates; see `load_recipe`."""
    return load_any(path, overrides, schema=GenerateConfig)


def needs_reference(specs: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether objectives compare with a reference model.

    Raises:
        ConfigError: an unknown objective or option, or a value outside its rule.
    """
    # Imported late: a mistake that the schema finds is reported before the second that torch takes to import.
    from mmalign.objectives.compose import build

    return build(specs).needs_reference
