"""What a caption states against what is there: hallucination, recall, count and exactness, example by example.

The share of captions with at least one hallucinated object is CHAIR_s of Rohrbach et al., Object Hallucination in Image
Captioning (2018), equation 2, here over statements that are fully right or wrong. It must never stand alone: a model
that says nothing hallucinates nothing. Recall and count stand beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from mmalign.errors import DataError
from mmalign.evaluate import bootstrap
from mmalign.evaluate.bootstrap import Interval

METRICS: Mapping[str, str] = {
    "hallucination": "share of captions that state something that is not there",
    "phantom": "share of captions that state the annotator's phantom",
    "recall": "share of what is there that the caption states, mean over captions",
    "count": "share of captions that state as many things as there are",
    "exact": "share of captions that state what is there and nothing else, in the agreed form",
}
Values = dict[str, np.ndarray]


def score(
    stated: Sequence[Sequence[Hashable]],
    present: Sequence[Collection[Hashable]],
    *,
    phantoms: Sequence[Hashable],
    well_formed: Sequence[bool],
) -> Values:
    """Compare N captions with N truths.

    Args:
        stated: what each caption states; a repetition counts once more in `count` and spoils `exact`.
        present: what is there; at least one thing each.
        phantoms: for each caption the thing that is not there and that is watched.
        well_formed: whether the whole caption could be read.

    Returns:
        For every name of `METRICS` an array [N] with values between 0 and 1.

    Raises:
        DataError: the four differ in length, or a truth is empty.
    """
    lengths = {len(stated), len(present), len(phantoms), len(well_formed)}
    if len(lengths) > 1:
        raise DataError(f"captions, truths, phantoms and forms must be equally many, got {sorted(lengths)}")
    if not all(len(truth) for truth in present):
        raise DataError("recall is not defined where nothing is there; leave such examples out")
    rows = zip(stated, present, phantoms, well_formed, strict=True)
    table = np.array([_score_one(*row) for row in rows], dtype=np.float64).reshape(-1, len(METRICS))
    return dict(zip(METRICS, table.T, strict=True))


def _score_one(
    stated: Sequence[Hashable], present: Collection[Hashable], phantom: Hashable, well_formed: bool
) -> tuple[float, ...]:
    claims, truth = set(stated), set(present)
    return (
        bool(claims - truth),
        phantom in claims,
        len(claims & truth) / len(truth),
        len(stated) == len(truth),
        well_formed and len(stated) == len(truth) and claims == truth,
    )


def summarise(values: Values, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return every metric's mean and 95% interval as plain numbers: {"recall": {"mean", "low", "high"}, ...}."""
    return {name: asdict(bootstrap.mean(array, seed=seed)) for name, array in values.items()}


def compare(before: Values, after: Values, *, seed: int = 0) -> dict[str, Interval]:
    """Return every metric's paired difference, after minus before, on the same examples."""
    return {name: bootstrap.paired(before[name], after[name], seed=seed) for name in before}
