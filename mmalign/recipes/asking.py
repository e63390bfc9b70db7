"""Asking a trained model: a directory and rows go in, one answer a row comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference
from mmalign.generate.hf import LocalSampler, Sampling
from mmalign.modalities.fetch import MediaLimits

PROMPTS_AT_ONCE = 100


def ask(
    model_dir: Path,
    rows: Iterable[Preference],
    limits: Mapping[MediaKind, MediaLimits],
    sampling: Sampling,
    *,
    seed: int = 0,
) -> tuple[str, ...]:
    """Load a model and return its answer to the prompt of every row, in their order.

    Args:
        model_dir: written by a run, its `final/`.
        rows: prompts with their media.
        limits: of every kind of media.
        sampling: how tokens are chosen.
        seed: of the choice.

    Raises:
        RowError: a row cannot be rendered or its media cannot be read.
    """
    sampler = LocalSampler.load(model_dir, limits, answers_at_once=PROMPTS_AT_ONCE)
    return tuple(generated.texts[0] for generated in sampler.sample(rows, sampling=sampling, seed=seed))
