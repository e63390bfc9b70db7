"""What a recipe says about its rows: which are read, and what they become first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, Strict

from mmalign.config.problems import Problem
from mmalign.config.section import Section
from mmalign.errors import ConfigError
from mmalign.pairs.relabel import relabelling
from mmalign.pairs.select import Bounds, Selection

if TYPE_CHECKING:
    from mmalign.config.schema import DataConfig

_Texts = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]


class BoundsConfig(Section):
    """A range of numbers; at least one bound."""

    above: float | None = None
    """Lower bound, itself left out."""
    at_least: float | None = None
    """Lower bound, itself included."""
    below: float | None = None
    """Upper bound, itself left out."""
    at_most: float | None = None
    """Upper bound, itself included."""

    def bounds(self) -> Bounds:
        """Return the range that a selection takes."""
        return Bounds(**self.model_dump())


class SelectConfig(Section):
    """Which training rows are read. Rows that are not selected are counted, not refused; held-out rows are all read."""

    pair: Annotated[int, Field(ge=1)] | None = None
    """Of a ranked list, the pair of the best response and another, counted from 1, largest gap of scores first."""
    difficulty: BoundsConfig | None = None
    """Range of the row's difficulty."""
    score_gap: BoundsConfig | None = None
    """Range of the score of the best response minus that of the worst, or of the row's margin."""
    tags: dict[str, str | _Texts] = {}
    """Name of a tag: the value, or the list of values, that is read."""

    def selection(self) -> Selection:
        """Return the selection that reads rows so."""
        return Selection(
            pair=self.pair,
            difficulty=self.difficulty and self.difficulty.bounds(),
            score_gap=self.score_gap and self.score_gap.bounds(),
            tags={name: (values,) if isinstance(values, str) else values for name, values in self.tags.items()},
        )


class RelabelSpec(Section):
    """One relabelling. Its own options stand beside its name; `mmalign data relabel --list` says which there are."""

    model_config = ConfigDict(extra="allow")

    how: Annotated[str, Field(min_length=1)]
    """Name, e.g. reward_augmented, dpa, swap."""

    def options(self) -> dict[str, Any]:
        """Return what was given beside the name."""
        return dict(self.model_extra or {})


def row_problems(config: DataConfig) -> Iterator[Problem]:
    """Yield what is wrong with the two keys beyond the types of their values."""
    for index, spec in enumerate(config.relabel):
        try:
            relabelling(spec.how, spec.options())
        except ConfigError as error:
            named = str(error).split(" ", 1)[0]
            key = named if named in spec.options() else "how"
            yield Problem(path=("data", "relabel", index, key), text=str(error))
    if config.select is None:
        return
    if config.select == SelectConfig():
        yield Problem(path=("data", "select"), text="selects by nothing; name one of pair, difficulty, score_gap, tags")
    for name in ("difficulty", "score_gap"):
        section = getattr(config.select, name)
        if section == BoundsConfig():
            text = "has no bound; give above, at_least, below or at_most"
            yield Problem(path=("data", "select", name), text=text)
        elif section is not None and section.bounds().is_empty():
            text = f"{section.bounds()} leaves no number; mend one of the two"
            yield Problem(path=("data", "select", name), text=text)
