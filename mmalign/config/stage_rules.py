"""What can be wrong with stages: each named with the stage and the key, before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mmalign.config.messages import problems_of
from mmalign.config.problems import KeyPath, Problem
from mmalign.config.rules import refuse
from mmalign.config.stages import Stage, StageConfig, changed_values, made_stage, source_of

if TYPE_CHECKING:
    from mmalign.config.schema import RecipeConfig

_WORDS = ("previous", "first", "stage_start", "first_start")
_SAID_ELSEWHERE: Mapping[tuple[str, str], str] = {
    ("train", "output_dir"): "a stage has its directory below that of the recipe; remove it",
    ("train", "optimizer_from"): "write `optimizer: kept` in the stage",
    ("model", "path"): "write `start:` in the stage: previous, first, the name of a stage before, or a model",
    ("model", "adapter"): "write `adapter: keep` in the stage to go on with the adapter of the stage before",
    ("model", "reference"): "write `reference:` in the stage: stage_start, first_start, a stage's name, or a model",
}
# Keys of the resolved recipe that a stage says under a name of its own.
_SAID_AS: Mapping[KeyPath, str] = {
    ("model", "path"): "start",
    ("model", "adapter"): "adapter",
    ("model", "reference"): "reference",
    ("train", "optimizer_from"): "optimizer",
}


def require_stages_possible(recipe: RecipeConfig) -> None:
    """Raise pydantic's error of type `combination` with everything that is wrong with stages.

    A stage is looked at when those before it are sound, for it starts from what they leave behind.
    """
    refuse(list(_name_problems(recipe.stages)))
    made: list[Stage] = []
    for index, stage in enumerate(recipe.stages):
        refuse(list(_stage_problems(recipe, stage, index, made)))
        try:
            made.append(made_stage(recipe, stage, index, made, recipe.model.path))
        except ValidationError as error:
            refuse(at_stage(index, stage.name, problems_of(error, type(recipe))))


def at_stage(index: int, name: str, problems: list[Problem]) -> list[Problem]:
    """Return problems of a stage's complete recipe as problems of the stage, which is named."""
    found = []
    for problem in problems:
        path = (_SAID_AS[problem.path],) if problem.path in _SAID_AS else problem.path
        found.append(Problem(path=("stages", index, *path), text=f"{problem.text} (stage {name!r})"))
    return found


def _name_problems(stages: tuple[StageConfig, ...]) -> Iterator[Problem]:
    names = [stage.name for stage in stages]
    for index, name in enumerate(names):
        if name in _WORDS:
            text = f"{name!r} is a word of start and reference; take another name"
            yield Problem(path=("stages", index, "name"), text=text)
        if name in names[:index]:
            text = f"{name!r} names stage {names.index(name) + 1} too; take another name"
            yield Problem(path=("stages", index, "name"), text=text)


def _stage_problems(recipe: RecipeConfig, stage: StageConfig, index: int, made: list[Stage]) -> Iterator[Problem]:
    def problem(text: str, *path: str) -> Problem:
        return at_stage(index, stage.name, [Problem(path=path, text=text)])[0]

    for (section, key), way_out in _SAID_ELSEWHERE.items():
        if key in getattr(stage, section):
            yield Problem(path=("stages", index, section, key), text=f"{way_out} (stage {stage.name!r})")
    source = source_of(stage, made)
    if not made and stage.start == "previous":
        yield problem("'previous', but no stage stands before; remove it, or name a model", "start")
    later = [other.name for other in recipe.stages[index:]]
    for key in ("start", "reference"):
        if getattr(stage, key) in later:
            yield problem(f"{getattr(stage, key)!r} comes later, or is the stage itself; name a stage before", key)
        elif near := _meant(getattr(stage, key), [other.name for other in made]):
            text = f"{getattr(stage, key)!r} is no stage before; did you mean {near!r}? (write ./ before a directory)"
            yield problem(text, key)
    if stage.reference is not None and (stage.recipe or recipe.recipe) == "sft":
        yield problem("recipe 'sft' uses no reference; remove it", "reference")
    if source is None or source.recipe.model.lora is None:
        if stage.adapter is not None:
            yield problem(f"{stage.adapter!r}, but no adapter was trained by what it starts from; remove it", "adapter")
    else:
        yield from (problem(text, key) for key, text in _adapter_problems(recipe, stage, source))
    if stage.optimizer == "kept":
        yield from (problem(text, "optimizer") for text in _optimizer_problems(recipe, stage, source))


def _meant(said: str | None, names: list[str]) -> str | None:
    """Return the word or the stage that `said` is a slip for; None where it is one, or may be a model."""
    known = [*_WORDS, *names]
    if said is None or said in known or "/" in said:
        return None
    return next(iter(get_close_matches(said, known, n=1, cutoff=0.75)), None)


def _adapter_problems(recipe: RecipeConfig, stage: StageConfig, source: Stage) -> Iterator[tuple[str, str]]:
    """Yield key and text of what is wrong where a stage starts from one that trained an adapter."""
    if stage.adapter != "keep":
        if source.recipe.model.quantize is not None:
            quantize = source.recipe.model.quantize
            text = f"an adapter on weights in {quantize} cannot be merged exactly; write `adapter: keep`"
            yield "adapter", text
        return
    before, now = source.recipe.model.model_dump()["lora"], changed_values(recipe, stage)["model"]["lora"]
    if now is None:
        yield "adapter", "'keep' needs model.lora, which this stage has not; write `adapter: merge`"
        return
    differing = [key for key in before if key in now and list(_listed(now[key])) != list(_listed(before[key]))]
    for key in differing:
        text = f"'keep' goes on with lora.{key} {before[key]} of stage {source.name!r}, not {now[key]}; leave it out"
        yield "adapter", text


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _optimizer_problems(recipe: RecipeConfig, stage: StageConfig, source: Stage | None) -> Iterator[str]:
    if source is None:
        yield "'kept', but it starts from no stage whose optimiser could be kept; remove it"
        return
    now = changed_values(recipe, stage)["model"]
    if source.recipe.model.lora is not None and stage.adapter != "keep":
        yield "'kept' needs weights that go on, and a merged adapter is replaced; write `adapter: keep`"
    elif (now["lora"] is None) != (source.recipe.model.lora is None) or sorted(now["freeze"]) != sorted(
        source.recipe.model.freeze
    ):
        yield f"'kept' needs the trained weights of stage {source.name!r}; leave model.lora and model.freeze as there"
