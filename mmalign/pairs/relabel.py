"""Relabellings: a row becomes other rows, by name and with options, the same each time.

    mmalign data relabel rows.jsonl --how reward_augmented -o augmented.jsonl
    data: {relabel: [{how: dpa, scores: [helpfulness, verbosity]}]}         the same in a recipe

A relabelling is a frozen dataclass whose fields are its options and whose call yields rows. It keeps media, tags and
provenance, gives every row an id of its own, and raises RowError for a row of which it can make nothing.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

from mmalign.errors import ConfigError, RowError
from mmalign.formats.preference import Preference
from mmalign.pairs.conditioned import Directional, RewardAugmented
from mmalign.pairs.draws import draws_of
from mmalign.pairs.gaps import easiest_first
from mmalign.pairs.options import option, require_choice, require_count, require_seed
from mmalign.pairs.origin import marked
from mmalign.pairs.ranking import PAIRINGS, expand, pair_of, rank_pairs

Relabelling = Callable[[Preference], Iterator[Preference]]


@dataclass(frozen=True, kw_only=True)
class Swap:
    """The order turned round: the worst response becomes the best.

    The reverse of a preference set, on which AlignDistil (Zhang et al. 2025, 2503.02832) trains its second, reversed
    DPO model. Scores change their sign; the score before stays in `scores["score"]`.
    """

    def __call__(self, preference: Preference) -> Iterator[Preference]:
        """Yield the row from last to first."""
        last = len(preference.responses) - 1
        if preference.levels()[-1] == 0:
            raise _no_order(preference)
        turned = [
            response
            if response.score is None
            else replace(response, score=-response.score, scores={"score": response.score, **response.scores})
            for response in reversed(preference.responses)
        ]
        ties = sorted(tuple(last - position for position in reversed(group)) for group in preference.ties)
        row = replace(preference, id=f"{preference.id}#swapped", responses=tuple(turned), ties=tuple(ties))
        yield marked(row, "swap")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """A ranked list as rows of two, which share the weight of the row. The rules are those of objectives."""

    pairs: str = option("all", f"which pairs: {', '.join(PAIRINGS)}")

    def __post_init__(self) -> None:
        require_choice("pairs", self.pairs, PAIRINGS)

    def __call__(self, preference: Preference) -> Iterator[Preference]:
        """Yield one row for each pair."""
        rows = tuple(expand(preference, self.pairs))
        if not rows:
            raise _no_order(preference)
        yield from (marked(row, "pairs") for row in rows)


@dataclass(frozen=True, kw_only=True)
class Curry:
    """The best response against each worse one, with a difficulty: 1 is the pair with the largest gap of scores.

    Curry-DPO (Pattnaik et al. 2024, 2403.07230). Every pair has the weight of the row. Stages then select by
    difficulty; `data.select: {pair: 1}` does both at once.
    """

    def __call__(self, preference: Preference) -> Iterator[Preference]:
        """Yield one row for each worse response, easiest first."""
        yield from (marked(row, "curry") for row in easiest_first(preference))


@dataclass(frozen=True, kw_only=True)
class NTimesN:
    """Right responses against wrong ones, N x N of them with limits, drawn from the row's id.

    Eurus (Yuan et al. 2024, 2404.02078) pairs the right actions of an instruction's tree with the wrong ones of other
    turns: at most 9 pairs an instruction, every action in at most 3. A row holds the actions of one instruction: the
    best level is right, all others are wrong. Gathering them from the turns of a tree is up to the source. The paper's
    "N x N <= 10 only" is not a rule here: what it bounds was not clear from our notes. Every pair has the weight of
    the row.
    """

    most_pairs: int = option(9, "most pairs of a row")
    most_uses: int = option(3, "most pairs in which one response stands")
    seed: int = option(0, "of the choice where there are more")

    def __post_init__(self) -> None:
        require_count("most_pairs", self.most_pairs)
        require_count("most_uses", self.most_uses)
        require_seed(self.seed)

    def __call__(self, preference: Preference) -> Iterator[Preference]:
        """Yield one row for each pair that the limits admit."""
        candidates = rank_pairs(preference.levels(), "best_rest")
        if not candidates:
            raise _no_order(preference)
        uses: Counter[int] = Counter()
        taken: list[tuple[int, int]] = []
        for number in draws_of(self.seed, preference.id).permutation(len(candidates)):
            pair = candidates[number]
            if len(taken) < self.most_pairs and all(uses[position] < self.most_uses for position in pair):
                taken.append(pair)
                uses.update(pair)
        for better, worse in sorted(taken):
            yield marked(pair_of(preference, better, worse, weight=preference.weight), "nxn")


HOWS: dict[str, type] = {
    "reward_augmented": RewardAugmented,
    "dpa": Directional,
    "swap": Swap,
    "pairs": Pairs,
    "curry": Curry,
    "nxn": NTimesN,
}
"""Every relabelling by the name that users type."""


def relabelling(how: str, options: Mapping[str, Any]) -> Relabelling:
    """Return the relabelling called `how`.

    Raises:
        ConfigError: there is none, it has no such option, or a value is outside its rule; the option is named.
    """
    if how not in HOWS:
        raise ConfigError(f"how {how!r} is no relabelling; {_meant(how, HOWS)}known are {', '.join(HOWS)}")
    known = [item.name for item in fields(HOWS[how])]
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise ConfigError(f"{name} is no option of {how!r}; {_meant(name, known)}{has}")
    return HOWS[how](**options)


def options_of(how: str) -> list[tuple[str, Any, str]]:
    """Return name, default and meaning of each option of a relabelling."""
    found = fields(HOWS[how])
    return [(item.name, None if item.default is MISSING else item.default, item.metadata["says"]) for item in found]


def _meant(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _no_order(preference: Preference) -> RowError:
    reason, hint = "row has no two responses of different rank", "relabelling needs responses that are not tied"
    if len(preference.responses) == 1:
        hint = "it is a single answer; to turn a judgement round, change its label"
    return RowError(reason, field="responses", value=preference.levels(), hint=hint)
