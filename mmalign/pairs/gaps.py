"""How far apart the responses of a row are, and the pairs of a list from easiest to hardest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.pairs.ranking import pair_of, rank_pairs


def score_gap(preference: Preference) -> float:
    """Return the score of the best response minus that of the worst; the row's margin where they have no scores.

    Raises:
        RowError: the row has neither.
    """
    high, low = preference.chosen.score, preference.rejected.score
    if high is not None and low is not None:
        return high - low
    if preference.margin is not None:
        return preference.margin
    hint = "give its responses scores, or the row a margin"
    raise RowError("row has no score gap to select by", field="responses", hint=hint)


def easiest_first(preference: Preference) -> tuple[Preference, ...]:
    """Return the best response against each worse one as rows of two, from the largest gap to the smallest.

    The gap is that of the scores, and of the ranks where not all responses have a score. `difficulty` counts from 1,
    the easiest pair. Every pair has the weight of the row.

    Curry-DPO (Pattnaik et al. 2024, 2403.07230): of R1 > R2 > R3 > R4 the pairs (R1, R4), (R1, R3), (R1, R2).

    Raises:
        RowError: there is no worse response.
    """
    scores = [response.score for response in preference.responses]
    levels = preference.levels()
    value: Sequence[float] = [-level for level in levels] if None in scores else scores  # larger is better
    worse = [j for i, j in rank_pairs(levels, "best_rest") if i == 0]
    if not worse:
        reason = "row has no two responses of different rank"
        raise RowError(reason, field="responses", value=levels, hint="pairs are made of responses that are not tied")
    # Of equal gaps the one further down the list comes first.
    ordered = sorted(worse, key=lambda j: (-(value[0] - value[j]), -j))
    pairs = (pair_of(preference, 0, j, weight=preference.weight) for j in ordered)
    return tuple(replace(pair, difficulty=float(place)) for place, pair in enumerate(pairs, start=1))
