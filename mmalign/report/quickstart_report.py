"""The page of the quickstart: one question, figures before and after with their intervals, controls, and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from mmalign import __version__
from mmalign.errors import DataError
from mmalign.evaluate.bootstrap import Interval
from mmalign.report.charts import ChartCard, chart_cards
from mmalign.report.page import render, write
from mmalign.report.parts import Example, Tile, from_to
from mmalign.report.svg import interval_bar
from mmalign.train.metrics import read_metrics

_TONES = {"before": "b", "after": "a", "control": "d"}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One column of the table: a share between 0 and 1."""

    name: str
    title: str
    meaning: str
    lower_is_better: bool = False


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One model that was evaluated, a row of the table.

    Args:
        name: what was done to it.
        explanation: a few words more.
        role: exactly one arm is "before" and one is "after".
        values: metric name -> value with interval.
    """

    name: str
    explanation: str
    role: Literal["before", "after", "control"]
    values: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class QuickstartStory:
    """Everything on the page.

    Args:
        title: the answer, in one sentence.
        lead: the question and how it was asked, in two or three.
        metrics: the first is the headline.
        arms: rows of the table, in order.
        differences: metric name -> paired difference, after less before.
        conclusions: what the figures say, one sentence each, and what they do not.
        examples: the same pictures before and after.
        runs: title and run directory of each training whose curves are shown.
        facts: seed, sizes, seconds, machine.
        files: path -> what it holds.
    """

    title: str
    lead: str
    metrics: tuple[Metric, ...]
    arms: tuple[Arm, ...]
    differences: Mapping[str, Interval]
    conclusions: tuple[str, ...]
    examples: tuple[Example, ...] = ()
    runs: tuple[tuple[str, Path], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def arm(self, role: str) -> Arm:
        """Return the arm with a role that only one may have.

        Raises:
            DataError: none or several have it.
        """
        found = [arm for arm in self.arms if arm.role == role]
        if len(found) != 1:
            raise DataError(f"a story needs exactly one arm with role {role!r}, got {len(found)}")
        return found[0]


def write_quickstart_report(path: str | Path, story: QuickstartStory) -> Path:
    """Write the page and return its path.

    Raises:
        DataError: not exactly one arm is before and one after, or an arm lacks a metric.
    """
    return write(Path(path), render_quickstart(story))


def render_quickstart(story: QuickstartStory) -> str:
    """Return the page of the story."""
    for arm in story.arms:
        if missing := [metric.name for metric in story.metrics if metric.name not in arm.values]:
            raise DataError(f"arm {arm.name!r} has no value for {', '.join(missing)}")
    runs = [(title, _curves(root)) for title, root in story.runs]
    return render(
        "quickstart.html.j2",
        story=story,
        title=story.title,
        version=__version__,
        tiles=[_tile(metric, story) for metric in story.metrics],
        rows=[_row(arm, story.metrics) for arm in story.arms],
        differences=[_difference(story.differences[metric.name]) for metric in story.metrics],
        runs=[(title, cards) for title, cards in runs if cards],
    )


@dataclass(frozen=True)
class _Cell:
    title: str
    value: str
    reach: str
    bar: Markup


@dataclass(frozen=True)
class _Row:
    arm: Arm
    cells: list[_Cell]


def _row(arm: Arm, metrics: tuple[Metric, ...]) -> _Row:
    cells = []
    for metric in metrics:
        at = arm.values[metric.name]
        bar = interval_bar(at.mean, at.low, at.high, tone=_TONES[arm.role])
        cells.append(_Cell(metric.title, percent(at.mean), f"{percent(at.low)} to {percent(at.high)}", bar))
    return _Row(arm, cells)


def _tile(metric: Metric, story: QuickstartStory) -> Tile:
    before, after = (story.arm(role).values[metric.name].mean for role in ("before", "after"))
    difference = story.differences[metric.name]
    return Tile(
        title=metric.title,
        value=from_to(percent(before), percent(after)),
        beside=f"{points(difference.mean)} points, {_reach(difference)}",
        meaning=f"{metric.meaning}; {'lower' if metric.lower_is_better else 'higher'} is better",
    )


def _difference(interval: Interval) -> tuple[str, str]:
    return points(interval.mean), _reach(interval)


def _reach(interval: Interval) -> str:
    return f"{points(interval.low)} to {points(interval.high)}"


def _curves(root: Path) -> list[ChartCard]:
    return chart_cards(read_metrics(Path(root) / "metrics.jsonl"))


def percent(share: float) -> str:
    """Return 0.643 as "64%"; shares below one in a hundred keep a digit."""
    return f"{100 * share:.1f}%" if 0 < abs(share) < 0.0095 else f"{100 * share:.0f}%"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points with its sign: -0.446 as "-45" with a real minus."""
    rounded = round(100 * difference)
    return f"{rounded:+d}".replace("-", "\N{MINUS SIGN}") if rounded else "0"
