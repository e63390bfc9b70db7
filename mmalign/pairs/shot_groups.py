"""From shots to clips: shots that look alike form groups, and neighbours of one group are one clip, as in TEMPLE.

Groups hold numbers of shots. What follows is told of clips, which are fewer where neighbours were fused, so a clip says
itself which shots it is made of and to which group it belongs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Fused(NamedTuple):
    """A clip: its group, and the neighbouring shots that it is made of."""

    group: int
    shots: tuple[int, ...]


def grouped(similarity: np.ndarray, above: float) -> list[list[int]]:
    """Return groups of shots that look alike: the most similar two are merged while they are similar enough.

    Two groups that were merged are as similar to a third as they were on average, each of the two counting the same
    whatever its size (WPGMA).

    Args:
        similarity: float [N, N], symmetric.
        above: two groups are merged while their similarity is larger than this.

    Returns:
        Groups in the order of their first shots, each ascending.
    """
    groups = [[shot] for shot in range(len(similarity))]
    left = np.array(similarity, dtype=np.float64)
    np.fill_diagonal(left, -np.inf)
    while len(groups) > 1:
        first, second = sorted(int(place) for place in np.unravel_index(np.argmax(left), left.shape))
        if left[first, second] <= above:
            break
        left[first] = left[:, first] = (left[first] + left[second]) / 2
        left[first, first] = -np.inf
        left = np.delete(np.delete(left, second, axis=0), second, axis=1)
        groups[first] += groups.pop(second)
    return sorted(sorted(group) for group in groups)


def fused(groups: Sequence[Sequence[int]]) -> list[Fused]:
    """Return the clips: neighbouring shots of one group together."""
    group_of = {shot: number for number, group in enumerate(groups) for shot in group}
    runs = itertools.groupby(sorted(group_of), key=group_of.__getitem__)
    return [Fused(group, tuple(shots)) for group, shots in runs]


def why_unsuitable(clips: Sequence[Fused], *, fewest: int, most_share: float, most: int) -> str | None:
    """Return why the order of these clips would not be seen, None where it would.

    Args:
        fewest: clips.
        most_share: a group may have floor(share * N) of N clips.
        most: clips of one group, whatever N is.
    """
    if len(clips) < fewest:
        return f"fewer than {fewest} clips that look different"
    largest = max(Counter(clip.group for clip in clips).values())
    # A share such as a third has no exact float; N times it may lie just below the whole number that is meant.
    if largest > int(len(clips) * most_share + 1e-9) or largest > most:
        return f"clips of one group come back more than {most} times or {most_share:.3g} of all"
    return None
