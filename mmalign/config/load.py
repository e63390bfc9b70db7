"""From a YAML file and overrides to a checked recipe, and back to YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mmalign.config.document import Document, Dumper, parse_document, read_document
from mmalign.config.generate_schema import GenerateConfig
from mmalign.config.messages import problems_of
from mmalign.config.needs import unmet
from mmalign.config.overrides import apply_overrides
from mmalign.config.problems import Problem, dotted
from mmalign.config.schema import RecipeConfig, Section
from mmalign.config.stage_rules import at_stage
from mmalign.config.stages import stages_of
from mmalign.config.temporal_schema import TemporalConfig
from mmalign.errors import ConfigError

# Checks the objectives together: raises ConfigError for a wrong name or option, else says what they read (`needs.py`).
ObjectiveCheck = Callable[[Sequence[Mapping[str, Any]]], Collection[str]]

_OTHER_THAN_TRAINING: dict[str, tuple[type[Section], str]] = {
    "generate": (GenerateConfig, "generate"),
    "temporal": (TemporalConfig, "pairs temporal"),
}
"""Recipes by name, and the verbs that run them; all others are trained."""


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
    return load_any(path, overrides, check_objectives=check_objectives, schema=RecipeConfig)


def load_any(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    check_objectives: ObjectiveCheck | None = None,
    schema: type[Section] | None = None,
) -> Any:
    """Read a recipe of any kind, or of one; see `load`.

    Args:
        schema: `RecipeConfig`, `GenerateConfig` or `TemporalConfig`; None takes the one that the key `recipe` names.

    Raises:
        ConfigError: as `load`, and when the key `recipe` names another kind.
    """
    document = read_document(path)
    apply_overrides(document, overrides)
    return _checked(document, check_objectives, schema)


def loads(text: str, *, source: str = "recipe", check_objectives: ObjectiveCheck | None = None) -> Any:
    """Read a recipe of any kind from text; see `load_any`."""
    return _checked(parse_document(text, source), check_objectives)


def from_values(
    values: Mapping[str, Any], *, source: str = "recipe", check_objectives: ObjectiveCheck | None = None
) -> RecipeConfig:
    """Check a recipe that a program built; see `load`."""
    return _checked(Document(values=dict(values), source=source), check_objectives)


def dump(recipe: Section) -> str:
    """Return every key of `recipe`, defaults included, as YAML that `loads` reads back equal."""
    values = recipe.model_dump(mode="json")
    return yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def json_schema() -> str:
    """Return the schema as JSON Schema, for editors that complete and check YAML."""
    schema = RecipeConfig.model_json_schema()
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2)


def _checked(document: Document, check_objectives: ObjectiveCheck | None, schema: type[Section] | None = None) -> Any:
    """Return the recipe that `document` holds, or raise with all its problems."""
    named, _ = _kind(document)
    if schema is not None and named is not schema:
        _require(document, [_wrong_verb(document)])
    try:
        recipe = named.model_validate(document.values)
    except ValidationError as error:
        raise _error(document, problems_of(error, named)) from None
    if check_objectives is not None and named is RecipeConfig:
        _require(document, _all_objective_problems(recipe, check_objectives))
    return recipe


def _wrong_verb(document: Document) -> Problem:
    """Return what is wrong with a recipe that is run by another verb than the one that was typed."""
    name, (_, verb) = document.values.get("recipe"), _kind(document)
    return Problem(path=("recipe",), text=f"{name!r} is not run by this verb; run mmalign {verb}")


def _kind(document: Document) -> tuple[type[Section], str]:
    """Return the schema of a recipe, and the verb that runs it."""
    name = document.values.get("recipe")
    return _OTHER_THAN_TRAINING.get(name if isinstance(name, str) else "", (RecipeConfig, "train"))


def _all_objective_problems(recipe: RecipeConfig, check_objectives: ObjectiveCheck) -> list[Problem]:
    """Return what is wrong with objectives: of the recipe, or of each of its stages."""
    if not recipe.stages:
        return _objective_problems(recipe, check_objectives)
    problems: list[Problem] = []
    for index, (said, stage) in enumerate(zip(recipe.stages, stages_of(recipe), strict=True)):
        says_reference = said.reference is not None
        found = _objective_problems(stage.recipe, check_objectives, says_reference=says_reference)
        problems += at_stage(index, stage.name, found)
    return problems


def _objective_problems(
    recipe: RecipeConfig, check_objectives: ObjectiveCheck, *, says_reference: bool = False
) -> list[Problem]:
    """Return what is wrong with each objective, with all together, and with models that they or none of them read.

    Args:
        says_reference: whether a stage names its reference, which may be its own start.
    """
    problems: list[Problem] = []
    needs: set[str] = set()
    for index, spec in enumerate(recipe.objective):
        try:
            needs |= set(check_objectives([spec.model_dump()]))
        except ConfigError as error:
            path = ("objective", index, *_named_option(str(error), spec.options()))
            problems.append(Problem(path=path, text=str(error)))
    if not problems and len(recipe.objective) > 1:
        try:
            needs |= set(check_objectives([spec.model_dump() for spec in recipe.objective]))
        except ConfigError as error:
            problems.append(Problem(path=("objective",), text=str(error)))
    return problems or list(unmet(recipe, needs, says_reference=says_reference))


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
