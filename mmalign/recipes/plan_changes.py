"""What to change in a recipe so that it fits into memory, cheapest change first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mmalign.config.load import from_values
from mmalign.config.schema import RecipeConfig
from mmalign.engine.footprint import BatchShape, Footprint, Skeleton
from mmalign.errors import ConfigError, ModelError

# Python, torch and its kernels: 0.86 GB resident on a CPU; a CUDA context with its libraries is of the same order.
RUNTIME_BYTES = 900_000_000
# Allocators keep blocks they cannot use.
USABLE_SHARE = 0.95
_WORTH_IT = 0.98


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change to a recipe.

    Args:
        overrides: as typed on the command line.
        cost: what one pays for it.
        footprint: predicted with this change and all before it.
    """

    overrides: tuple[str, ...]
    cost: str
    footprint: Footprint


@dataclass(frozen=True)
class _Step:
    """A change that could be made: keys and values, what it does to the largest batch, what it costs."""

    values: Mapping[str, Any]
    cost: str
    reshape: Callable[[BatchShape], BatchShape] = lambda shape: shape


def fits(footprint: Footprint, memory_bytes: int) -> bool:
    """Say whether a footprint leaves the allocator some air."""
    return footprint.total + RUNTIME_BYTES <= USABLE_SHARE * memory_bytes


def changes_until_it_fits(
    recipe: RecipeConfig,
    model_path: str,
    shape: BatchShape,
    footprint: Footprint,
    *,
    memory_bytes: int,
    needs_reference: bool,
    reads: Collection[str] = (),
) -> tuple[Change, ...]:
    """Return changes, each on top of those before it, until the recipe fits or nothing helps any more.

    Args:
        needs_reference, reads: as `Skeleton.footprint` has them.
    """
    changes: list[Change] = []
    for step in _possible(recipe, shape):
        if fits(footprint, memory_bytes):
            break
        try:
            changed = _with(recipe, step.values)
            tried = Skeleton(changed, model_path).footprint(
                step.reshape(shape), needs_reference=needs_reference, reads=reads
            )
        except (ConfigError, ModelError):
            continue
        if tried.total < _WORTH_IT * footprint.total:
            recipe, shape, footprint = changed, step.reshape(shape), tried
            overrides = tuple(f"{key}={_as_typed(value)}" for key, value in step.values.items())
            changes.append(Change(overrides=overrides, cost=step.cost, footprint=tried))
    return tuple(changes)


def _possible(recipe: RecipeConfig, shape: BatchShape) -> Iterator[_Step]:
    """Yield what can be changed, what costs least first."""
    train, model = recipe.train, recipe.model
    if needs := not model.precompute_reference and model.lora is None and recipe.recipe == "preference":
        yield _Step({"model.precompute_reference": needs}, "one pass over the rows before training")
    if not train.bf16:
        yield _Step({"train.bf16": True}, "bfloat16 products; needs a device that has them")
    rows = train.per_device_train_batch_size
    if rows > 1 and train.max_tokens_per_batch is None:
        values = {
            "train.per_device_train_batch_size": 1,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps * rows,
        }
        yield _Step(values, "smaller matrix products; the loss stays the same", lambda shape: _divided(shape, rows))
    if not train.gradient_checkpointing:
        yield _Step({"train.gradient_checkpointing": True}, "about a third more time")
    if recipe.trains_vision() and model.lora is None:
        yield _Step({"model.freeze": ["vision", *model.freeze]}, "the vision tower stays as it is")
    if recipe.data.max_pixels is not None and shape.media_tokens > shape.video_tokens:
        yield _Step({"data.max_pixels": recipe.data.max_pixels // 2}, "coarser pictures", _coarser)
    video = recipe.data.video
    if shape.video_tokens and video.frames > 1:
        yield _Step({"data.video.frames": video.frames // 2}, "fewer frames of a video", _fewer_frames)
    for name in ("max_pixels", "max_total_pixels"):
        if shape.video_tokens and getattr(video, name) is not None:
            values = {f"data.video.{name}": getattr(video, name) // 2}
            yield _Step(values, "coarser frames", _fewer_frames)
    if model.lora is None:
        yield _Step({"model.lora": {"rank": 16}}, "adapters instead of all weights")
    if model.quantize is None:
        yield _Step({"model.quantize": "4bit"}, "weights in 4 bits; needs CUDA and bitsandbytes")


def _divided(shape: BatchShape, rows: int) -> BatchShape:
    return replace(
        shape,
        rows=max(1, shape.rows // rows),
        response_tokens=shape.response_tokens // rows,
        media_tokens=shape.media_tokens // rows,
        video_tokens=shape.video_tokens // rows,
    )


def _coarser(shape: BatchShape) -> BatchShape:
    """Return the shape with half of the tokens of pictures."""
    saved = (shape.media_tokens - shape.video_tokens) // 2
    return replace(shape, columns=shape.columns - saved // shape.rows, media_tokens=shape.media_tokens - saved)


def _fewer_frames(shape: BatchShape) -> BatchShape:
    """Return the shape with half of the tokens of videos."""
    saved = shape.video_tokens // 2
    return replace(
        shape,
        columns=shape.columns - saved // shape.rows,
        media_tokens=shape.media_tokens - saved,
        video_tokens=shape.video_tokens - saved,
    )


def _with(recipe: RecipeConfig, changes: Mapping[str, Any]) -> RecipeConfig:
    """Return the recipe with dotted keys changed; impossible combinations are refused as ever."""
    values = recipe.model_dump(mode="json")
    for key, value in changes.items():
        place = values
        *sections, name = key.split(".")
        for section in sections:
            place = place[section]
        place[name] = value
    return from_values(values)


def _as_typed(value: Any) -> str:
    """Return a value as one writes it after `key=`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(value) + "]"
    if isinstance(value, dict):
        return "'{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}'"
    return str(value)
