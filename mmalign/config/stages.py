"""Stages: runs one after the other, each the recipe with changes, written as a list under `stages`.

    stages:
      - {name: easy, data: {select: {score_gap: {above: 2}}}}
      - {name: hard, data: {select: {score_gap: {at_most: 2}}}, train: {learning_rate: 2.0e-7}}

A stage becomes an ordinary recipe, complete, with a run directory of its own (`<output_dir>/stages/1-easy`), by a pure
function of the recipe. What a stage does not say is what the recipe says. Directories that a stage starts from are
named here before they exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mmalign.config.overrides import ALTERNATIVES
from mmalign.config.section import Section

if TYPE_CHECKING:
    from mmalign.config.schema import RecipeConfig

_ONLY_OF_PREFERENCES: Mapping[str, Any] = MappingProxyType(
    {
        "reference": None,
        "precompute_reference": False,
        "reference_update": None,
        "teacher": None,
        "token_reward": None,
    }
)
"""Keys of model that an objective of the recipe preference may read and sft never does, with nothing in them: a stage
of sft does not inherit them."""

_SECTIONS = ("model", "vision", "data", "train")


class StageConfig(Section):
    """One stage. model, engine, vision, data, objective and train change single keys of the recipe's own sections."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    """Names the stage's directory, and the stage where others refer to it."""
    recipe: Literal["preference", "sft"] | None = None
    """Default: that of the recipe. A stage with another one does not inherit the objective."""
    start: Annotated[str, Field(min_length=1)] | None = None
    """Weights to begin with: `previous`, `first` (model.path), the name of a stage before, or a model. Default: the
    result of the stage before."""
    adapter: Literal["merge", "keep"] | None = None
    """What becomes of the adapter of the stage it starts from: `merge` it into the weights and train a fresh one, or
    `keep` training it. Default: merge."""
    optimizer: Literal["reset", "kept"] = "reset"
    """`kept` goes on with the optimiser's state of the stage it starts from; learning rate and settings are its own."""
    reference: Annotated[str, Field(min_length=1)] | None = None
    """What the policy is compared with: `stage_start`, `first_start`, the result of a stage before by name, or a model.
    Default: model.reference, else stage_start."""
    model: dict[str, Any] = {}
    """Keys of model that change."""
    engine: str | None = None
    """As the recipe's key."""
    vision: dict[str, Any] = {}
    """Keys of vision that change."""
    data: dict[str, Any] = {}
    """Keys of data that change; `select` is replaced whole."""
    objective: list[dict[str, Any]] | None = None
    """Replaces the recipe's objective."""
    train: dict[str, Any] = {}
    """Keys of train that change."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage as the run that it is.

    Args:
        name: as written.
        recipe: complete, without stages.
        merges: model and adapter that are to become `recipe.model.path` before it can run; None where it exists.
        merged_dtype: type of the weights that the adapter was trained on.
        starts_from: in words, for reports.
    """

    name: str
    recipe: RecipeConfig
    merges: tuple[str, str] | None = None
    merged_dtype: Literal["float32", "bfloat16"] = "float32"
    starts_from: str

    @property
    def directory(self) -> Path:
        """The stage's run directory."""
        return Path(self.recipe.train.output_dir)

    @property
    def result(self) -> str:
        """The model or adapter that it leaves behind."""
        return str(self.directory / "final")


def stages_of(recipe: RecipeConfig, first: str | None = None) -> tuple[Stage, ...]:
    """Return the stages of a checked recipe as complete recipes.

    Args:
        first: directory of the model that the first stage starts from; None takes model.path as it is written.
    """
    made: list[Stage] = []
    for index, stage in enumerate(recipe.stages):
        made.append(made_stage(recipe, stage, index, made, first or recipe.model.path))
    return tuple(made)


def made_stage(recipe: RecipeConfig, stage: StageConfig, index: int, made: list[Stage], first: str) -> Stage:
    """Return one stage; `made` are those before it, and what it starts from is among them or a model."""
    values = changed_values(recipe, stage)
    directory = Path(recipe.train.output_dir) / "stages" / f"{index + 1}-{stage.name}"
    values["train"]["output_dir"] = str(directory)
    source = source_of(stage, made)
    if index > 0:
        values["model"] |= {"adapter": None}
        values["train"]["optimizer_from"] = str(source.directory) if stage.optimizer == "kept" and source else None
    merges, dtype = None, "float32"
    if source is None:
        values["model"]["path"] = first if stage.start in (None, "first") else stage.start
    elif source.recipe.model.lora is None:
        values["model"]["path"] = source.result
    elif stage.adapter == "keep":
        values["model"] |= {"path": source.recipe.model.path, "adapter": source.result}
    else:
        merges, dtype = (source.recipe.model.path, source.result), source.recipe.weights_dtype()
        values["model"]["path"] = str(directory / "start")
    _name_results(values["model"], made)
    if stage.reference is not None:
        values["model"]["reference"] = _reference(stage.reference, values["model"], source, made, first)
    return Stage(
        name=stage.name,
        recipe=type(recipe).model_validate(values),
        merges=merges,
        merged_dtype=dtype,
        starts_from=_starts_from(stage, source, values["model"]),
    )


def _name_results(model: dict[str, Any], made: list[Stage]) -> None:
    """Put results of earlier stages in the places of their names, where a teacher or a reward model is named."""
    results = {stage.name: stage.result for stage in made}
    for holder, key in ((model, "token_reward"), (model["teacher"], "path"), (model["teacher"], "contrast")):
        named = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(named, str):
            holder[key] = results.get(named, named)


def _starts_from(stage: StageConfig, source: Stage | None, model: Mapping[str, Any]) -> str:
    if source is None:
        return model["path"]
    if source.recipe.model.lora is None:
        return source.name
    return f"{source.name}, its adapter {'kept' if stage.adapter == 'keep' else 'merged'}"


def source_of(stage: StageConfig, made: list[Stage]) -> Stage | None:
    """Return the stage that `stage` starts from, or None."""
    if stage.start in (None, "previous"):
        return made[-1] if made else None
    return next((earlier for earlier in made if earlier.name == stage.start), None)


def _reference(word: str, model: Mapping[str, Any], source: Stage | None, made: list[Stage], first: str) -> str | None:
    """Return the model that a stage is compared with; None stands for its own start."""
    named = next((stage for stage in made if stage.name == word), None)
    if word == "stage_start" or (named is not None and named is source):
        return None
    if word == "first_start":
        is_start = model["path"] == first and model["adapter"] is None
        return None if is_start else first
    return word if named is None else named.result


def changed_values(recipe: RecipeConfig, stage: StageConfig) -> dict[str, Any]:
    """Return the values of the recipe with those of the stage in their places."""
    values = recipe.model_dump(mode="json", exclude={"stages"})
    if stage.recipe not in (None, recipe.recipe):
        values["recipe"] = stage.recipe
        del values["objective"]
    if values["recipe"] == "sft":
        values["model"] |= _ONLY_OF_PREFERENCES
    if stage.objective is not None:
        values["objective"] = stage.objective
    if stage.engine is not None:
        values["engine"] = stage.engine
    for section in _SECTIONS:
        values[section] = _merged(values[section], getattr(stage, section))
    for one, other in ALTERNATIVES:
        for (section, said), (_, unsaid) in ((one, other), (other, one)):
            own = getattr(stage, section)
            if own.get(said) is not None and unsaid not in own:
                values[section][unsaid] = None
    return values


def _merged(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: value if key == "select" else _merged(base.get(key), value) for key, value in change.items()}
