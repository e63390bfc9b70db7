"""Which pairs of a ranked list are compared, and a list of K responses as rows of two.

Ties are never paired, and the order inside a tie never matters, except to `disjoint`, which goes by position. With two
responses all rules but `below_best` give the one pair, or none when the two are tied.

    responses a > b = c > d, levels (0, 1, 1, 2)
    all          ab ac ad bd cd    every pair of unequal level
    best_rest    ab ac ad          the best level against every other response
    best_worst   ad                the best level against the worst
    adjacent     ab ac bd cd       every level against the next
    disjoint     ad                first with last, second with last but one (bc, but they are tied), ...
    below_best   bd cd             best_worst of the list without its first response, which is kept for imitation
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches

from mmalign.errors import ConfigError, show
from mmalign.formats.preference import Preference

PAIRINGS = ("all", "best_worst", "best_rest", "adjacent", "disjoint", "below_best")

Pair = tuple[int, int]


def rank_pairs(levels: Sequence[int], pairing: str = "all") -> tuple[Pair, ...]:
    """Return the pairs (better, worse) of positions that `pairing` compares.

    Args:
        levels: one integer per response, best first: 0 for the best level, equal integers for ties.
        pairing: one of `PAIRINGS`.

    Raises:
        ConfigError: `pairing` is not one of `PAIRINGS`.

    >>> rank_pairs((0, 1, 1, 2), "adjacent")
    ((0, 1), (0, 2), (1, 3), (2, 3))
    """
    require_pairing(pairing)
    last = len(levels) - 1
    unequal = [(i, j) for j in range(len(levels)) for i in range(j) if levels[i] < levels[j]]
    wanted = {
        "all": lambda i, j: True,
        "best_rest": lambda i, j: levels[i] == levels[0],
        "best_worst": lambda i, j: levels[i] == levels[0] and levels[j] == levels[last],
        "adjacent": lambda i, j: levels[j] - levels[i] == 1,
        "disjoint": lambda i, j: i + j == last,
        "below_best": lambda i, j: i > 0 and levels[i] == levels[1] and levels[j] == levels[last],
    }[pairing]
    return tuple(sorted(pair for pair in unequal if wanted(*pair)))


def require_pairing(pairing: str) -> None:
    """Raise ConfigError unless `pairing` is one of `PAIRINGS`."""
    if pairing in PAIRINGS:
        return
    near = get_close_matches(str(pairing), PAIRINGS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"pairs must be one of {', '.join(PAIRINGS)} (got {show(pairing)}){meant}")


def expand(preference: Preference, pairing: str = "all") -> Iterator[Preference]:
    """Yield one row of two responses for each pair that `pairing` compares.

    The pairs of a row share its weight equally, so that a long list does not outweigh a short one. The margin of a
    pair is the gap of its scores where both are scored, and the row's own margin for best against worst.
    """
    pairs = rank_pairs(preference.levels(), pairing)
    if len(preference.responses) == 2 and pairs:
        yield preference
        return
    for better, worse in pairs:
        yield pair_of(preference, better, worse, weight=preference.weight / len(pairs))


def pair_of(preference: Preference, better: int, worse: int, *, weight: float) -> Preference:
    """Return the row of two responses that `expand` makes of one pair of positions."""
    return replace(
        preference,
        id=f"{preference.id}#{better}>{worse}",
        responses=(preference.responses[better], preference.responses[worse]),
        ties=(),
        margin=_margin(preference, better, worse),
        weight=weight,
    )


def _margin(preference: Preference, better: int, worse: int) -> float | None:
    high, low = preference.responses[better].score, preference.responses[worse].score
    if high is not None and low is not None:
        return high - low
    best_against_worst = (better, worse) == (0, len(preference.responses) - 1)
    return preference.margin if best_against_worst else None
