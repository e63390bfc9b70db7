"""Charts as inline SVG: lines over steps, and a value with its interval. Colours come from the page's style sheet.

All text is escaped here, so what these functions return may stand in a page as it is. Sizes are user units of the view
box; the page scales the picture, so one unit is about 1 px in a card.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup, escape

from mmalign.train.curves import Curve

WIDTH, HEIGHT = 360, 186
LEFT, RIGHT, TOP = 46, 10, 8
_BOTTOM = 24
MOST_POINTS = 240
"""Points drawn of one curve; longer ones are averaged in equal groups of steps."""

SMOOTH_FROM = 40
"""Noisy curves with at least this many points get a smooth line over a faint exact one."""

_HOVER_POINTS = 60


class Keyed(Protocol):
    """What has a name and a colour in the legend."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def tone(self) -> str:
        """Which of the page's colours it has."""


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        label: shown in the legend and when the pointer rests on a point.
        curve: steps and values.
        tone: which of the page's colours: "a" (main, chosen), "b" (against it, rejected), "c", "d".
        dots: draw points joined by thin lines, for curves with few points such as evaluations.
    """

    label: str
    curve: Curve
    tone: str = "a"
    dots: bool = False


def line_chart(
    series: Sequence[Series], *, label: str, log: bool = False, unit: tuple[float, float] | None = None
) -> Markup:
    """Return lines over steps.

    Args:
        series: at least one, each with at least one finite value.
        label: what the picture shows, read aloud in its place.
        log: logarithmic values; used only when all are above 0.
        unit: fixed lower and upper end of the value axis, e.g. (0, 1) for shares.
    """
    drawn = [Series(one.label, thinned(one.curve), one.tone, one.dots) for one in series]
    values = [value for one in drawn for value in one.curve.values]
    steps = [step for one in drawn for step in one.curve.steps]
    log = log and min(values) > 0
    plot = _Plot.around(steps, values, log=log, unit=unit)
    body = [_grid(plot), *(_line(plot, one) for one in drawn)]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, Markup("").join(body)
    )


def interval_bar(mean: float, low: float, high: float, *, tone: str, ends: tuple[float, float] = (0.0, 1.0)) -> Markup:
    """Return one value as a dot with its interval as a bar, on an axis from `ends[0]` to `ends[1]`."""
    first, last = ends

    def x(value: float) -> float:
        return round(4 + 92 * (min(max(value, first), last) - first) / (last - first), 2)

    return Markup(
        '<svg class="interval tone-{}" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        '<line class="track" x1="4" x2="96" y1="6" y2="6"/><line class="reach" x1="{}" x2="{}" y1="6" y2="6"/>'
        '<line class="value" x1="{}" x2="{}" y1="1.5" y2="10.5"/></svg>'
    ).format(tone, x(low), x(high), x(mean), x(mean))


def thinned(curve: Curve, most: int = MOST_POINTS) -> Curve:
    """Return `curve` with at most `most` points, each the mean of neighbouring ones."""
    count = len(curve.values)
    if count <= most:
        return curve
    edges = [round(k * count / most) for k in range(most + 1)]
    groups = [slice(first, last) for first, last in zip(edges, edges[1:], strict=False)]
    mean = [sum(curve.values[group]) / (group.stop - group.start) for group in groups]
    return Curve(tuple(curve.steps[group.stop - 1] for group in groups), tuple(mean))


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the running mean over a twelfth of the curve on each side, cut shorter towards the ends."""
    reach = max(1, len(values) // 12)
    windows = [values[max(0, k - reach) : k + reach + 1] for k in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def is_noisy(values: Sequence[float]) -> bool:
    """Say whether a curve goes up and down more than it goes anywhere: a schedule does not, a loss does."""
    travelled = sum(abs(later - sooner) for sooner, later in zip(values, values[1:], strict=False))
    return travelled > 3 * (max(values) - min(values)) > 0


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers inside [low, high], 1, 2, 2.5 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / apart - 1e-9)
    return [k * apart for k in range(first, math.floor(high / apart + 1e-9) + 1)]


def figure(value: float) -> str:
    """Return a number as a reader wants it: three digits that count, no trailing zeros, 12k for twelve thousand."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e15:
        return _power_of_ten(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 1e-3:
        text = f"{value:.3g}" if size < 1000 else f"{value:.0f}"
        return text.replace("-", "\N{MINUS SIGN}")
    return _power_of_ten(value)


def _axis_labels(values: Sequence[float]) -> list[str]:
    """Return tick labels of one kind: all in powers of ten when the largest is small, else as `figure` has them."""
    if 0 < max(map(abs, values), default=0) < 0.01:
        return [_power_of_ten(value) if value else "0" for value in values]
    return [figure(0 if abs(value) < 1e-9 else value) for value in values]


def _power_of_ten(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class _Plot:
    """Where steps and values lie in the picture."""

    first_step: float
    last_step: float
    low: float
    high: float
    log: bool

    @classmethod
    def around(
        cls, steps: Sequence[int], values: Sequence[float], *, log: bool, unit: tuple[float, float] | None
    ) -> _Plot:
        low, high = unit or (min(values), max(values))
        if log:
            low, high = math.log10(low), math.log10(high)
        if unit is None:
            room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
            low, high = low - room, high + room
        return cls(min(steps), max(steps), low, high, log)

    def x(self, step: float) -> float:
        span = (self.last_step - self.first_step) or 1
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - self.first_step) / span, 1)

    def y(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        value = min(max(value, self.low), self.high)
        return round(HEIGHT - _BOTTOM - (HEIGHT - TOP - _BOTTOM) * (value - self.low) / (self.high - self.low), 1)

    def value_ticks(self) -> list[float]:
        if not self.log:
            return ticks(self.low, self.high)
        powers = range(math.ceil(self.low), math.floor(self.high) + 1)
        if len(powers) > 1:
            return [10.0**power for power in powers]
        return [value for value in ticks(10.0**self.low, 10.0**self.high) if value > 0]


def _grid(plot: _Plot) -> Markup:
    values = plot.value_ticks()
    parts = [level(plot.y(value), text) for value, text in zip(values, _axis_labels(values), strict=True)]
    if plot.low < 0 < plot.high and not plot.log:
        parts.append(
            Markup('<line class="zero" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, plot.y(0), plot.y(0)
            )
        )
    for step in (step for step in ticks(plot.first_step, plot.last_step, 5) if step == round(step)):
        parts.append(
            Markup('<text class="axis step" x="{}" y="{}">{}</text>').format(plot.x(step), HEIGHT - 6, figure(step))
        )
    return Markup("").join(parts)


def _line(plot: _Plot, series: Series) -> Markup:
    steps, values = series.curve.steps, series.curve.values
    smooth = not series.dots and len(values) >= SMOOTH_FROM and is_noisy(values)
    exact = _path(plot, steps, values)
    kind = "exact" if smooth else "line"
    parts = [Markup('<path class="{}" d="{}"/>').format(kind, exact)]
    shown = smoothed(values) if smooth else values
    if smooth:
        parts.append(Markup('<path class="line" d="{}"/>').format(_path(plot, steps, shown)))
    parts += _points(plot, series, shown)
    return Markup('<g class="tone-{}">{}</g>').format(series.tone, Markup("").join(parts))


def _path(plot: _Plot, steps: Sequence[int], values: Sequence[float]) -> str:
    return "M" + "L".join(f"{plot.x(step)} {plot.y(value)}" for step, value in zip(steps, values, strict=True))


def _points(plot: _Plot, series: Series, shown: Sequence[float]) -> list[Markup]:
    """Return points that tell their value when the pointer rests on them; drawn only where the curve has few."""
    steps, values = series.curve.steps, series.curve.values
    every = max(1, math.ceil(len(values) / _HOVER_POINTS))
    kind = "dot" if series.dots or len(values) == 1 else "spot"
    return [
        Markup('<circle class="{}" cx="{}" cy="{}" r="{}"><title>{}</title></circle>').format(
            kind, plot.x(step), plot.y(at), 3 if kind == "dot" else 7, f"{series.label}, step {step}: {figure(value)}"
        )
        for step, value, at in list(zip(steps, values, shown, strict=True))[::every]
    ]


def level(y: float, text: str) -> Markup:
    """Return a line across the picture, with its value beside it."""
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/><text class="axis" x="{}" y="{}">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, y, y, LEFT - 8, y + 4, text)


def legend(series: Sequence[Keyed]) -> Markup:
    """Return the names of what is drawn with their colours."""
    items = (Markup('<span class="key tone-{}">{}</span>').format(one.tone, escape(one.label)) for one in series)
    return Markup("").join(items)
