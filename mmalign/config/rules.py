"""Combinations of keys that cannot work, each refused by name before any model is loaded.

A rule reads a whole recipe whose single values are already valid and yields problems. Rules about the options of one
objective are not here: `load` is handed a check for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from mmalign.config.problems import KeyPath, Problem, dotted
from mmalign.config.row_sections import row_problems

if TYPE_CHECKING:
    from mmalign.config.generate_schema import GenerateConfig
    from mmalign.config.schema import RecipeConfig

Rule = Callable[[Any], Iterator[Problem]]


def require_possible(recipe: RecipeConfig | GenerateConfig, rules: Sequence[Rule] | None = None) -> None:
    """Raise pydantic's error of type `combination` with every broken rule; by default those of training."""
    refuse([problem for rule in (RULES if rules is None else rules) for problem in rule(recipe)])


def refuse(problems: Sequence[Problem]) -> None:
    """Raise pydantic's error of type `combination` with these problems, if there are any."""
    if problems:
        lines = [f"{dotted(problem.path)}: {problem.text}" for problem in problems]
        text = "\n".join(lines).replace("{", "{{").replace("}", "}}")
        raise PydanticCustomError("combination", text, {"problems": list(problems)})


def _problem(path: KeyPath, text: str) -> Problem:
    return Problem(path=path, text=text)


def objective_fits_recipe(recipe: RecipeConfig) -> Iterator[Problem]:
    """A preference run names its objective; an sft run only imitates."""
    if recipe.recipe == "preference" and not recipe.objective:
        yield _problem(("objective",), "recipe 'preference' needs at least one; add `- {name: dpo, beta: 0.1}`")
    for index, spec in enumerate(recipe.objective):
        if recipe.recipe == "sft" and spec.name != "sft":
            yield _problem(
                ("objective", index, "name"),
                f"recipe 'sft' cannot train on {spec.name!r}; write `recipe: preference`, or drop the objective",
            )


def reference_fits_recipe(recipe: RecipeConfig) -> Iterator[Problem]:
    """Imitation compares with nothing."""
    if recipe.recipe != "sft":
        return
    if recipe.model.reference is not None:
        yield _problem(("model", "reference"), "recipe 'sft' uses no reference; remove it")
    for key in ("precompute_reference", "reference_update"):
        if getattr(recipe.model, key):
            yield _problem(("model", key), "recipe 'sft' uses no reference; remove it")


def reference_can_move(recipe: RecipeConfig) -> Iterator[Problem]:
    """A reference that follows the policy is held in memory, in weights that are the policy's."""
    model, place = recipe.model, ("model", "reference_update")
    if model.reference_update is None:
        return
    if model.precompute_reference:
        yield _problem(place, "a table of model.precompute_reference cannot follow the policy; remove one of the two")
    if model.reference is not None and model.lora is not None:
        yield _problem(
            place,
            "model.reference has no adapter that could follow that of model.lora; leave out model.reference, and the "
            "start of the run follows",
        )
    if model.reference_update.kind == "sync" and model.reference_update.mixup_alpha is not None:
        yield _problem((*place, "mixup_alpha"), "kind 'sync' takes over all of the policy; use kind: ema, or remove it")


def lora_parts_are_trained(recipe: RecipeConfig) -> Iterator[Problem]:
    """An adapter in a frozen part would be a contradiction."""
    if recipe.model.lora is None:
        return
    for part in recipe.model.lora.parts:
        if part in recipe.model.freeze:
            yield _problem(
                ("model", "freeze"),
                f"part {part!r} is both frozen and in model.lora.parts; take it out of one of the two",
            )


def something_is_trained(recipe: RecipeConfig) -> Iterator[Problem]:
    """Freezing all parts leaves nothing to train."""
    if recipe.model.lora is None and {"vision", "projector", "language"} <= set(recipe.model.freeze):
        yield _problem(("model", "freeze"), "all parts are frozen, so nothing is trained; leave out at least one")


def quantized_weights_have_adapters(recipe: RecipeConfig) -> Iterator[Problem]:
    """Weights in 4 or 8 bits have no gradient."""
    if recipe.model.quantize is not None and recipe.model.lora is None:
        yield _problem(
            ("model", "quantize"),
            f"{recipe.model.quantize!r} without model.lora trains nothing; add `lora: {{rank: 16}}`",
        )


def attention_fits_engine(recipe: RecipeConfig) -> Iterator[Problem]:
    """A tree needs its own attention mask, which FlashAttention does not take."""
    if recipe.engine == "tree" and recipe.model.attn_implementation == "flash_attention_2":
        yield _problem(
            ("engine",),
            "'tree' cannot run with model.attn_implementation 'flash_attention_2', which takes no tree mask; "
            "use sdpa, or engine: flat",
        )


def cached_features_stay_valid(recipe: RecipeConfig) -> Iterator[Problem]:
    """Features of a tower that moves are stale after one step."""
    vision = recipe.vision
    if vision.cache_dir is None:
        if vision.cache_max_gb is not None:
            yield _problem(("vision", "cache_max_gb"), "limits no cache; set vision.cache_dir too")
        return
    if recipe.trains_vision():
        yield _problem(
            ("vision", "cache_dir"),
            "features cannot be cached while the vision tower is trained; add vision to model.freeze",
        )
    if vision.share == "off":
        yield _problem(("vision", "share"), "'off' contradicts vision.cache_dir; remove one of the two")


def adapters_have_settings(recipe: RecipeConfig) -> Iterator[Problem]:
    """An adapter to go on with is one that the recipe would make."""
    if recipe.model.adapter is not None and recipe.model.lora is None:
        text = "goes on with an adapter, but model.lora is missing; give the settings it was made with"
        yield _problem(("model", "adapter"), text)


def rows_can_be_read(recipe: RecipeConfig) -> Iterator[Problem]:
    """Relabellings know their options; a selection leaves something."""
    return row_problems(recipe.data)


def pixels_are_ordered(recipe: RecipeConfig | GenerateConfig) -> Iterator[Problem]:
    """The lower bound lies below every upper one."""
    bounds = [(("data",), recipe.data, "max_pixels")]
    bounds += [(("data", "video"), recipe.data.video, name) for name in ("max_pixels", "max_total_pixels")]
    for path, section, name in bounds:
        low, high = section.min_pixels, getattr(section, name)
        if low is not None and high is not None and high < low:
            least = dotted((*path, "min_pixels"))
            yield _problem((*path, name), f"{high} is less than {least} {low}; raise it to {low} or more")


def video_settings_are_read(recipe: RecipeConfig | GenerateConfig) -> Iterator[Problem]:
    """A rate is for the policy that knows rates, a size limit for a cache that is there."""
    video = recipe.data.video
    if video.sampling != "fps" and video.fps is not None:
        yield _problem(
            ("data", "video", "fps"),
            f"{video.fps:g} is not read by data.video.sampling {video.sampling!r}; remove it, or use sampling: fps",
        )
    if video.cache_dir is None and video.cache_max_gb is not None:
        yield _problem(("data", "video", "cache_max_gb"), "limits no cache; set data.video.cache_dir too")


def run_has_one_length(recipe: RecipeConfig) -> Iterator[Problem]:
    """Epochs and steps both say when to stop."""
    train = recipe.train
    if train.max_steps is not None and train.num_train_epochs is not None:
        yield _problem(
            ("train", "max_steps"),
            f"{train.max_steps}, and train.num_train_epochs {train.num_train_epochs:g}, both set the "
            "length of the run; keep one",
        )


def warmup_is_said_once(recipe: RecipeConfig) -> Iterator[Problem]:
    """Warmup has one length and a schedule that knows it."""
    train = recipe.train
    if train.warmup_steps is not None and train.warmup_ratio is not None:
        yield _problem(
            ("train", "warmup_ratio"),
            f"{train.warmup_ratio:g}, and train.warmup_steps {train.warmup_steps}, both set the warmup; keep one",
        )
    if train.lr_scheduler_type == "constant" and (train.warmup_steps or train.warmup_ratio):
        yield _problem(
            ("train", "lr_scheduler_type"),
            "'constant' has no warmup; use constant_with_warmup, or remove the warmup",
        )


def evaluation_has_rows(recipe: RecipeConfig) -> Iterator[Problem]:
    """Evaluation needs rows that were held out."""
    if recipe.data.eval is not None:
        return
    for key in ("eval_steps", "per_device_eval_batch_size"):
        if getattr(recipe.train, key) is not None:
            yield _problem(("train", key), "evaluates on nothing; set data.eval")


RULES: tuple[Rule, ...] = (
    objective_fits_recipe,
    reference_fits_recipe,
    reference_can_move,
    lora_parts_are_trained,
    something_is_trained,
    quantized_weights_have_adapters,
    attention_fits_engine,
    cached_features_stay_valid,
    adapters_have_settings,
    rows_can_be_read,
    pixels_are_ordered,
    video_settings_are_read,
    run_has_one_length,
    warmup_is_said_once,
    evaluation_has_rows,
)
