"""Vision towers that run once per batch, or once per row and data set.

    memo = VisionMemo([policy.base, *reference.models], policy.family)
    with memo.batch(batch):
        reference_logps = reference(batch)
        policy_logps = policy(batch)

Inside the block a frozen tower that is asked the same thing again repeats what it said: when policy and reference share
their tower (one model with its adapter off, or a copy made by `FrozenCopy`), it runs once for both. With a
`FeatureCache` it runs once per row and data set: features are read from disk, and made row by row where they are
missing. A model that is asked about pictures and about videos is asked twice in a forward, and both are kept. Sharing
inside a batch gives the values and gradients of running it every time, bit for bit; a tower that
reads rows one by one may differ in the last bit from one that reads them together, as any batched product does.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

from mmalign.engine import fingerprint
from mmalign.engine.families import Family
from mmalign.engine.feature_cache import FeatureCache
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.shortcuts import patched, replaced
from mmalign.engine.tower import Answer, Tower, entries, towers_of
from mmalign.engine.tree import TreeBatch
from mmalign.errors import ModelError
from mmalign.formats.media import MediaKind

logger = logging.getLogger(__name__)

_ENTRIES = "entries"
_FEATURES: dict[MediaKind, tuple[str, str]] = {
    "image": ("get_image_features", "pixel_values"),
    "video": ("get_video_features", "pixel_values_videos"),
}
"""By which method a model asks its tower about a kind of media, and the tensor that is there when it does."""


class VisionMemo:
    """Reuses what frozen vision towers say; off, with a logged `reason`, where that is not exact or has no use.

    Args:
        models: every use of a transformers model in a step (without PEFT wrapper): the policy's, then the reference's;
            the same model twice when the reference is the policy with its adapter off.
        family: of these models.
        cache_dir: where features stay on disk; None keeps them for one batch only.
        cache_max_bytes: cap of that directory.
        autocast: makes the context in which the training step runs its models.
    """

    def __init__(
        self,
        models: Sequence[PreTrainedModel],
        family: Family,
        *,
        cache_dir: str | Path | None = None,
        cache_max_bytes: int = 20 * 10**9,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        chosen, self.reason = _choose(models, family, also_single=cache_dir is not None)
        self._asked = _Asked()
        self._inners = {id(model): model.base_model for model in models if family.videos == "apart"}
        self._towers = [_TowerMemo(tower, model, family, autocast, self._asked) for tower, model in chosen]
        for memo in self._towers if cache_dir is not None else ():
            memo.use_cache(Path(cache_dir), cache_max_bytes)
        logger.info("vision sharing: %s", "on" if self.reason is None else f"off, {self.reason}")

    @property
    def tower_runs(self) -> int:
        """Return how often a tower ran so far, counting one run for each row made for the cache."""
        return sum(memo.runs for memo in self._towers)

    @contextmanager
    def batch(self, batch: TreeBatch) -> Iterator[None]:
        """Reuse answers inside this block; `batch` is on its device already."""
        with ExitStack() as stack:
            for inner in self._inners.values():
                stack.enter_context(replaced(inner, "get_video_features", self._asked.about_videos))
            for memo in self._towers:
                stack.enter_context(memo.batch(batch))
            yield


class _Asked:
    """What the tower is being asked about. Qwen3-VL asks about videos by way of its question about pictures."""

    def __init__(self) -> None:
        self.kind: MediaKind = "image"

    def about_videos(self, original: Callable) -> Callable:
        """Return the method that asks about videos, which says so while it runs."""

        def get_video_features(*args: Any, **kwargs: Any) -> Any:
            self.kind = "video"
            try:
                return original(*args, **kwargs)
            finally:
                self.kind = "image"

        return get_video_features


def _choose(
    models: Sequence[PreTrainedModel], family: Family, *, also_single: bool
) -> tuple[list[tuple[Tower, PreTrainedModel]], str | None]:
    """Return the towers to reuse, each with a model that owns it, and why there is none.

    A tower that two models share comes before one of a model's own, even when it ends earlier.
    """
    asked = [(model, towers_of(model, family)) for model in models]
    uses = Counter(tower.stages for _, towers in asked if not isinstance(towers, str) for tower in towers)
    chosen: dict[tuple, tuple[Tower, PreTrainedModel]] = {}
    reason = "no model runs a vision tower"
    for model, towers in asked:
        if isinstance(towers, str):
            reason = towers
            continue
        best = max(towers, key=lambda tower: uses[tower.stages] > 1)
        if uses[best.stages] > 1 or also_single:
            chosen.setdefault(best.stages, (best, model))
        else:
            reason = "only one model of the step runs it, once"
    return list(chosen.values()), None if chosen else reason


class _TowerMemo:
    """The answers of one tower. Its stages are patched inside `batch` only, so models can be copied and saved."""

    def __init__(self, tower: Tower, model: PreTrainedModel, family: Family, autocast: Callable, asked: _Asked) -> None:
        self.tower, self.model, self.family, self.autocast, self._asked = tower, model, family, autocast, asked
        self.runs = 0
        self._cache: FeatureCache | None = None
        self._heard: list[tuple[tuple, Answer]] = []
        self._rows: dict[MediaKind, list[Answer]] | None = None
        self._copies: list[int] = []
        self._answer: Answer | None = None

    def use_cache(self, directory: Path, max_bytes: int) -> None:
        """Keep answers on disk, unless the weights are spread over processes."""
        if self._is_spread():
            return
        settings = self.model.config.to_dict().get("vision_config", {})
        version = fingerprint.of_settings(
            {
                "weights": [fingerprint.of_weights(module) for module in self.tower.covered],
                "settings": settings,
                "kinds": list(_FEATURES),
                "read": [self.tower.name, self.tower.fields, self.tower.layers, self.tower.kept],
                "transformers": transformers.__version__,
            }
        )
        self._cache = FeatureCache(directory, version=version, max_bytes=max_bytes)

    @contextmanager
    def batch(self, batch: TreeBatch) -> Iterator[None]:
        with ExitStack() as stack:
            for number, stage in enumerate(self.tower.stages):
                stack.enter_context(patched(stage, lambda original, n=number: self._stage(n, original)))
            stack.callback(self._forget)
            if self._cache is not None and self._is_spread():  # FSDP spreads them after the memo was made
                self._cache = None
            if self._cache is not None:
                self._rows = self._answers_of_rows(batch)
                self._copies = (batch.response_lengths > 0).sum(1).tolist()
            yield

    def _forget(self) -> None:
        self._heard, self._rows, self._answer = [], None, None

    def _is_spread(self) -> bool:
        """True when ranks gather the weights together: all must then run the tower equally often, cached or not."""
        weights = (weight for module in self.tower.covered for weight in module.parameters())
        if not any(type(weight) not in (Tensor, nn.Parameter) or hasattr(weight, "ds_id") for weight in weights):
            return False
        logger.info("vision cache: off, the weights of %s are spread over processes", self.tower.name)
        return True

    # ---- answering -------------------------------------------------------------------------------------------------

    def _stage(self, number: int, original: Callable) -> Callable:
        """Return the forward of one stage that repeats an answer where it can and listens where it cannot."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            if number == 0:
                self._answer = self._find(args, kwargs)
            if self._answer is not None and number not in self.tower.kept:
                return args[0] if args else next(iter(kwargs.values()))
            if self._answer is not None:
                return self.tower.output_of(number, self._answer)
            return self._listen(number, original, args, kwargs)

        return forward

    def _listen(self, number: int, original: Callable, args: tuple, kwargs: dict) -> Any:
        if number == 0:
            self.runs += 1
            self._heard.append(((self._asked.kind, args, kwargs), {}))
        with torch.no_grad():
            output = original(*args, **kwargs)
        if number in self.tower.kept:
            self._heard[-1][1].update(self.tower.answer_of(number, output))
        return output

    def _find(self, args: tuple, kwargs: dict) -> Answer | None:
        if self._rows is not None:
            return self._merged(entries(args, kwargs))
        for heard, answer in self._heard:  # a still asked about as a video is another question: ranks count both
            if _same((self._asked.kind, args, kwargs), heard):
                return answer
        return None

    # ---- rows from disk --------------------------------------------------------------------------------------------

    def _merged(self, asked: int) -> Answer:
        """Return the answers of all rows put together, each as often as the call repeats its row."""
        answers = self._rows[self._asked.kind]
        for copies in ([1] * len(answers), self._copies):
            rows = [row for row, times in zip(answers, copies, strict=True) if row for _ in range(times)]
            if sum(int(row[_ENTRIES]) for row in rows) == asked:
                return self.tower.merge([{k: v for k, v in row.items() if k != _ENTRIES} for row in rows])
        raise ModelError(
            f"{self.tower.name} was asked about {asked} {self._asked.kind} entries, the rows of the batch have "
            f"{[int(row[_ENTRIES]) if row else 0 for row in answers]}; leave out vision.cache_dir"
        )

    def _answers_of_rows(self, batch: TreeBatch) -> dict[MediaKind, list[Answer]] | None:
        """Return for each kind of media the answer to each row's ({} where a row has none), None for text alone."""
        if not batch.media:
            return None
        with self.autocast(), torch.no_grad():
            rows = [self._answers_of_row(batch, row, key) for row, key in enumerate(batch.media_keys)]
        return {kind: [row.get(kind, {}) for row in rows] for kind in _FEATURES}

    def _answers_of_row(self, batch: TreeBatch, row: int, media_key: str | None) -> dict[MediaKind, Answer]:
        if media_key is None:
            return {}
        device = batch.input_ids.device
        key = f"{media_key}-{_compute_dtype(device, self.model)}"
        stored = self._cache.get(key)
        if stored is None:
            media = {name: _rows_of(batch, name, row) for name in batch.media}
            stored = {
                f"{kind}/{name}": tensor
                for kind, (_, pixels) in _FEATURES.items()
                if len(media.get(pixels, ()))
                for name, tensor in self._run_row(kind, media).items()
            }
            self._cache.put(key, stored)
        answers: dict[MediaKind, Answer] = {}
        for name, tensor in stored.items():
            kind, _, rest = name.partition("/")
            answers.setdefault(kind, {})[rest] = tensor.to(device, non_blocking=True)
        return answers

    def _run_row(self, kind: MediaKind, media: dict[str, Tensor]) -> Answer:
        """Run the tower on the media of one row, through the family's own code, and return what was heard."""
        inner = self.model.base_model
        known = inspect.signature(getattr(type(inner), _FEATURES[kind][0])).parameters
        with ragged_videos(inner):
            getattr(inner, _FEATURES[kind][0])(**{name: tensor for name, tensor in media.items() if name in known})
        ((_, args, kwargs), answer), self._heard = self._heard[-1], []
        return answer | {_ENTRIES: torch.tensor(entries(args, kwargs))}


def _same(left: Any, right: Any) -> bool:
    """Compare arguments by value: inputs are often built anew for every call, so addresses say nothing."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        same_kind = left.shape == right.shape and left.dtype == right.dtype and left.device == right.device
        return left is right or (same_kind and torch.equal(left, right))
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return left is right or (type(left) is type(right) and not isinstance(left, Tensor) and left == right)


def _rows_of(batch: TreeBatch, name: str, row: int) -> Tensor:
    """Return what one row contributed to a media tensor of the batch."""
    sizes = batch.media_sizes[name]
    start = sum(sizes[:row])
    return batch.media[name][start : start + sizes[row]]


def _compute_dtype(device: torch.device, model: PreTrainedModel) -> str:
    enabled = torch.is_autocast_enabled(device.type)
    return str(torch.get_autocast_dtype(device.type) if enabled else model.dtype).removeprefix("torch.")
