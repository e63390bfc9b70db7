"""Which rows of a data set are read: by difficulty, by score gap, by tags, and which pair of a ranked list.

A row that is not selected is not wrong: it is counted, not refused. One that lacks what a selection reads is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.pairs.gaps import easiest_first, score_gap


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A range of numbers; what is None does not bound it.

    Args:
        above, at_least: lower bounds, without and with the number itself.
        below, at_most: upper bounds, without and with the number itself.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def is_empty(self) -> bool:
        """Say whether no number can lie between the bounds."""
        lower = [bound for bound in (self.above, self.at_least) if bound is not None]
        upper = [bound for bound in (self.below, self.at_most) if bound is not None]
        if not lower or not upper:
            return False
        if max(lower) != min(upper):
            return max(lower) > min(upper)
        return max(lower) == self.above or min(upper) == self.below

    def __str__(self) -> str:
        said = ((item.name.replace("_", " "), getattr(self, item.name)) for item in fields(self))
        return ", ".join(f"{name} {value:g}" for name, value in said if value is not None)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rows are read. What is None, or empty, selects all.

    Args:
        pair: of a ranked list, the pair of the best response and another, counted from 1, easiest first (see
            `gaps.easiest_first`). The row becomes that pair; the other rules then see the pair. A list that has not so
            many pairs is not selected.
        difficulty: of the row.
        score_gap: see `gaps.score_gap`.
        tags: name of a tag -> the values of it that are read. A row without the tag is not.
    """

    pair: int | None = None
    difficulty: Bounds | None = None
    score_gap: Bounds | None = None
    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def apply(self, preference: Preference) -> tuple[Preference | None, str]:
        """Return the row as it is read and "", or None and the rule by which it is not selected.

        Raises:
            RowError: the row lacks what a rule reads.
        """
        if self.pair is not None:
            pairs = easiest_first(preference)
            if self.pair > len(pairs):
                return None, f"pair {self.pair}"
            preference = pairs[self.pair - 1]
        return self._bounded(preference)

    def _bounded(self, preference: Preference) -> tuple[Preference | None, str]:
        for name, values in self.tags.items():
            if preference.tags.get(name) not in values:
                return None, f"tag {name}: {', '.join(values)}"
        if self.difficulty is not None and _difficulty(preference) not in self.difficulty:
            return None, f"difficulty {self.difficulty}"
        if self.score_gap is not None and score_gap(preference) not in self.score_gap:
            return None, f"score_gap {self.score_gap}"
        return preference, ""


def _difficulty(preference: Preference) -> float:
    if preference.difficulty is None:
        hint = "write a number into its column difficulty"
        raise RowError("row has no difficulty to select by", field="difficulty", hint=hint)
    return preference.difficulty
