"""Asking a trained model: a directory and rows go in, one answer a row comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mmalign.engine.families import family_of
from mmalign.engine.load import load_model
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference
from mmalign.generate.hf import Sampling, answer
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
    """Load a model and return its answer to the prompt of every row; see `generate.hf.answer`.

    Args:
        model_dir: written by a run, its `final/`.
        rows: prompts with their media.
        limits: of every kind of media.
        sampling: how tokens are chosen.
        seed: of the choice.
    """
    model = load_model(model_dir)
    tokeniser = Tokeniser(load_processor(model_dir), family_of(model.config), limits)
    return tuple(answer(model, tokeniser, rows, sampling, batch_size=PROMPTS_AT_ONCE, seed=seed))
