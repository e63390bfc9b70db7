"""What a caption tells of a sequence of events against what happened: the events, and their order in time.

Whether the events are right and whether their order is right are two questions. `order` is asked of those captions only
that state the right events, so it must never stand alone: a model may be right about the order in few captions, and say
nothing that can be judged in the others. `events` and `exact` stand beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np

from mmalign.errors import DataError
from mmalign.evaluate import bootstrap
from mmalign.evaluate.bootstrap import Interval

METRICS: Mapping[str, str] = {
    "exact": "share of captions that state what happened, in its order and nothing else, in the agreed form",
    "order": "share of the captions with the right events that state them in the order in which they happened",
    "events": "share of captions that state the events that happened and no others, in whatever order",
    "pairs": "share of pairs of events that the caption states both, in their order, mean over captions",
}
_PER_CAPTION = ("exact", "events", "ordered", "pairs")
Values = dict[str, np.ndarray]


def inversions(order: Sequence[int]) -> int:
    """Return how many pairs of a permutation stand the wrong way round: 0 for none, n (n - 1) / 2 for backwards.

    This is Kendall's distance to the identity (Kendall, A New Measure of Rank Correlation, 1938).
    """
    return sum(sooner > later for sooner, later in combinations(order, 2))


def score(
    told: Sequence[Sequence[Hashable]], happened: Sequence[Sequence[Hashable]], *, well_formed: Sequence[bool]
) -> Values:
    """Compare N captions with N truths.

    Args:
        told: the events that each caption states, in its order.
        happened: the events in the order in which they happened; at least two each, none twice.
        well_formed: whether the whole caption could be read.

    Returns:
        Arrays [N] with values between 0 and 1: "exact", "events" and "pairs" as in `METRICS`, and "ordered", which is 1
        where events and order are right whatever the form; `levels` and `compare` make "order" of it.

    Raises:
        DataError: the three differ in length, or a truth has fewer than two events or one of them twice.
    """
    lengths = {len(told), len(happened), len(well_formed)}
    if len(lengths) > 1:
        raise DataError(f"captions, truths and forms must be equally many, got {sorted(lengths)}")
    for number, truth in enumerate(happened):
        if len(truth) < 2 or len(set(truth)) < len(truth):
            raise DataError(
                f"truth {number} has no order to judge: {list(truth)!r}; give two or more events, each of them once"
            )
    rows = [_score_one(*row) for row in zip(told, happened, well_formed, strict=True)]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(_PER_CAPTION))
    return dict(zip(_PER_CAPTION, table.T, strict=True))


def _score_one(told: Sequence[Hashable], happened: Sequence[Hashable], well_formed: bool) -> tuple[float, ...]:
    events, ordered = Counter(told) == Counter(happened), list(told) == list(happened)
    first_told = {event: place for place, event in reversed(list(enumerate(told)))}
    pairs = [
        sooner in first_told and later in first_told and first_told[sooner] < first_told[later]
        for sooner, later in combinations(happened, 2)
    ]
    return well_formed and ordered, events, ordered, sum(pairs) / len(pairs)


def levels(values: Values) -> dict[str, Interval]:
    """Return every metric with its interval; "order" is left out where no caption states the right events."""
    found = {name: bootstrap.mean(values[name]) for name in METRICS if name != "order"}
    if values["events"].any():
        found["order"] = bootstrap.ratio(values["ordered"], values["events"])
    return {name: found[name] for name in METRICS if name in found}


def compare(before: Values, after: Values) -> dict[str, Interval]:
    """Return every metric's paired difference, after minus before, on the same clips.

    Captions with the right events are not the same ones on both sides, so "order" compares two ratios that are computed
    on the same resampled clips. It is left out where a side has no such caption.
    """
    found = {name: bootstrap.paired(before[name], after[name]) for name in METRICS if name != "order"}
    if before["events"].any() and after["events"].any():
        sides = [(values["ordered"], values["events"]) for values in (before, after)]
        found["order"] = bootstrap.paired_ratio(*sides)
    return {name: found[name] for name in METRICS if name in found}
