"""From a YAML file and overrides to a checked recipe, and back to YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mmalign.config.document import Document, Dumper, parse_document, read_document
from mmalign.config.messages import problems_of
from mmalign.config.overrides import apply_overrides
from mmalign.config.problems import Problem, dotted
from mmalign.config.schema import RecipeConfig
from mmalign.errors import ConfigError

# Checks the objectives together: raises ConfigError for a wrong name or option, else says whether a reference is used.
ObjectiveCheck = Callable[[Sequence[Mapping[str, Any]]], bool]


def load(
    path: str | Path, overrides: Sequence[str] = (), *, check_objectives: ObjectiveCheck | None = None
) -> RecipeConfig:
    """Read a recipe.

    Args:
        path: YAML file.
        overrides: `key=value` texts, applied in order; see `overrides.apply_overrides`.
        check_objectives: knows the presets and their options, which this room does not.

    Raises:
        ConfigError: one line per problem, each with file and line (or the override), key, value, rule and way out.
    """
    document = read_document(path)
    apply_overrides(document, overrides)
    return _checked(document, check_objectives)


def loads(text: str, *, source: str = "recipe", check_objectives: ObjectiveCheck | None = None) -> RecipeConfig:
    """Read a recipe from text; see `load`."""
    return _checked(parse_document(text, source), check_objectives)


def from_values(
    values: Mapping[str, Any], *, source: str = "recipe", check_objectives: ObjectiveCheck | None = None
) -> RecipeConfig:
    """Check a recipe that a program built; see `load`."""
    return _checked(Document(values=dict(values), source=source), check_objectives)


def dump(recipe: RecipeConfig) -> str:
    """Return every key of `recipe`, defaults included, as YAML that `loads` reads back equal."""
    values = recipe.model_dump(mode="json")
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def json_schema() -> str:
    """Return the schema as JSON Schema, for editors that complete and check YAML."""
    schema = RecipeConfig.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)


def _checked(document: Document, check_objectives: ObjectiveCheck | None) -> RecipeConfig:
    """Return the recipe that `document` holds, or raise with all its problems."""
    try:
        recipe = RecipeConfig.model_validate(document.values)
    except ValidationError as error:
        raise _error(document, problems_of(error, RecipeConfig)) from None
    if check_objectives is not None:
        _require(document, _objective_problems(recipe, check_objectives))
    return recipe


def _objective_problems(recipe: RecipeConfig, check_objectives: ObjectiveCheck) -> list[Problem]:
    """Return what is wrong with each objective, and with a reference that none of them uses."""
    problems: list[Problem] = []
    uses_reference = False
    for index, spec in enumerate(recipe.objective):
        try:
            uses_reference |= check_objectives([spec.model_dump()])
        except ConfigError as error:
            path = ("objective", index, *_named_option(str(error), spec.options()))
            problems.append(Problem(path=path, text=str(error)))
    if problems or uses_reference:
        return problems
    names = " + ".join(spec.name for spec in recipe.objective)
    for key in ("reference", "precompute_reference", "reference_update"):
        if getattr(recipe.model, key):
            text = f"objective {names} compares with no reference; remove this key, or use one that does (dpo)"
            problems.append(Problem(path=("model", key), text=text))
    return problems


def _named_option(message: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the option that a message names first, so that the error points at its line."""
    found = {name: re.search(rf"\b{re.escape(name)}\b", message) for name in (*options, "weight")}
    named = sorted((match.start(), name) for name, match in found.items() if match)
    return (named[0][1],) if named else ()


def _require(document: Document, problems: Sequence[Problem]) -> None:
    if problems:
        raise _error(document, problems)


def _error(document: Document, problems: Sequence[Problem]) -> ConfigError:
    """Return one error that lists every problem with its place."""
    return ConfigError(
        "\n".join(f"{document.place(problem.path)}: {dotted(problem.path)}: {problem.text}" for problem in problems)
    )
