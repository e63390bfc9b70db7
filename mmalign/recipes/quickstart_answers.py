"""Asking a trained model for captions of an album, and judging what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.evaluate import captions
from mmalign.generate.hf import Sampling
from mmalign.miniature import shape_rows, shapes
from mmalign.miniature.shape_rows import Album
from mmalign.modalities.table import limits_below
from mmalign.recipes import asking

LONGEST_ANSWER_TOKENS = 40


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An album and what a model said about each of its pictures."""

    album: Album
    answers: tuple[str, ...]


def ask(model_dir: Path, album: Album, root: Path, *, temperature: float = 0.0, seed: int = 0) -> Asked:
    """Load a model and ask it to describe every picture of an album."""
    sampling = Sampling(max_new_tokens=LONGEST_ANSWER_TOKENS, temperature=temperature)
    answers = asking.ask(model_dir, shape_rows.prompts(album), limits_below(root), sampling, seed=seed)
    return Asked(album=album, answers=answers)


def judge(asked: Asked) -> captions.Values:
    """Compare answers with the truth, picture by picture."""
    parsed = [shapes.parse_caption(text) for text in asked.answers]
    return captions.score(
        [one.things for one in parsed],
        asked.album.scenes,
        phantoms=[shapes.phantom_of(scene) for scene in asked.album.scenes],
        well_formed=[one.well_formed for one in parsed],
    )


def differing(before: Asked, after: Asked, most: int) -> Sequence[int]:
    """Return the first pictures of which the two models say different things, in the order of the album."""
    different = np.nonzero([one != other for one, other in zip(before.answers, after.answers, strict=True)])[0]
    return different[:most].tolist()
