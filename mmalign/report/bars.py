"""Histograms as inline SVG: bars of one or several series side by side, shares of a whole on the upright axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mmalign.report.svg import HEIGHT, LEFT, RIGHT, TOP, WIDTH, figure, level, ticks

_BOTTOM = 38
_GAP_SHARE = 0.24
"""Of the width of a bin."""


@dataclass(frozen=True)
class Bars:
    """One series of a histogram.

    Args:
        label: shown in the legend and when the pointer rests on a bar.
        shares: of every bin, from 0 to 1.
        tone: which of the page's colours.
    """

    label: str
    shares: Sequence[float]
    tone: str = "a"


def bar_chart(series: Sequence[Bars], bins: Sequence[str], *, label: str) -> Markup:
    """Return bars over bins.

    Args:
        series: at least one, each with a share for every bin.
        bins: what each bin holds.
        label: what the picture shows, read aloud in its place.
    """
    highest = max(max(one.shares) for one in series) or 1.0
    levels = (level(_y(share, highest), figure(share)) for share in ticks(0.0, highest, 4))
    bars = (_bars(one, place, len(series), bins, highest) for place, one in enumerate(series))
    body = Markup("").join([*levels, _names(bins), *bars])
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, label, body
    )


def _names(bins: Sequence[str]) -> Markup:
    """Return the names of the bins in two lines by turns, for side by side they would run into each other."""
    width = _bin_width(len(bins))
    return Markup("").join(
        Markup('<text class="axis step" x="{}" y="{}">{}</text>').format(
            round(LEFT + (number + 0.5) * width, 1), HEIGHT - (20 if number % 2 == 0 else 6), name
        )
        for number, name in enumerate(bins)
    )


def _bars(series: Bars, place: int, beside: int, bins: Sequence[str], highest: float) -> Markup:
    width = _bin_width(len(bins))
    bar = width * (1 - _GAP_SHARE) / beside
    parts = []
    for number, (name, share) in enumerate(zip(bins, series.shares, strict=True)):
        x, y = LEFT + number * width + width * _GAP_SHARE / 2 + place * bar, _y(share, highest)
        said = f"{series.label}, {name}: {share:.1%} of the pairs"
        parts.append(
            Markup('<rect class="column" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                round(x, 1), y, round(bar, 1), round(HEIGHT - _BOTTOM - y, 1), said
            )
        )
    return Markup('<g class="tone-{}">{}</g>').format(series.tone, Markup("").join(parts))


def _bin_width(count: int) -> float:
    return (WIDTH - LEFT - RIGHT) / count


def _y(share: float, highest: float) -> float:
    return round(HEIGHT - _BOTTOM - (HEIGHT - TOP - _BOTTOM) * share / highest, 1)
