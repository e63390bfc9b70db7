"""Which curves of a run share a picture, and the pictures.

`PICTURES` names those that every run may have; what a run reports beyond them is drawn too, each metric by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from markupsafe import Markup

from mmalign.objectives.histograms import HISTOGRAMS, Histogram
from mmalign.report.bars import Bars, bar_chart
from mmalign.report.svg import Series, legend, line_chart
from mmalign.train.curves import FEWEST_STEPS, Curves

NOT_DRAWN = {"step", "epoch", "num_tokens"}
"""They only ever count up."""

HELD_OUT = "eval_"
TONES = ("a", "b", "c", "d")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Metrics that are drawn together.

    Args:
        title: what they show.
        metrics: name -> label; the held-out twin `eval_<name>` comes along.
        unit: what they are counted in.
        log: logarithmic values.
        ends: fixed ends of the value axis.
    """

    title: str
    metrics: Mapping[str, str]
    unit: str = ""
    log: bool = False
    ends: tuple[float, float] | None = None


PICTURES: tuple[Picture, ...] = (
    Picture(title="Loss", metrics={"loss": "training"}),
    Picture(title="Reward margin", metrics={"rewards/margins": "training"}, unit="chosen less rejected"),
    Picture(title="Accuracy", metrics={"rewards/accuracies": "training"}, unit="share of pairs", ends=(0.0, 1.0)),
    Picture(title="Rewards", metrics={"rewards/chosen": "chosen", "rewards/rejected": "rejected"}),
    Picture(title="Log-prob of answers", metrics={"logps/chosen": "chosen", "logps/rejected": "rejected"}, unit="nats"),
    Picture(
        title="Image reliance",
        metrics={"image_reliance": "held out"},
        unit="nats a token that blank media cost the better answers",
    ),
    Picture(title="Gradient norm", metrics={"grad_norm": "before clipping"}, log=True),
    Picture(title="Learning rate", metrics={"learning_rate": "of the step"}),
    Picture(title="Length", metrics={"lengths/chosen": "chosen", "lengths/rejected": "rejected"}, unit="tokens"),
    Picture(
        title="Chosen is longer", metrics={"lengths/chosen_longer": "training"}, unit="share of pairs", ends=(0.0, 1.0)
    ),
    Picture(
        title="Reward with length",
        metrics={"rewards/length_correlation": "training"},
        unit="correlation inside pairs",
        ends=(-1.0, 1.0),
    ),
    Picture(
        title="Distance from the reference",
        metrics={"kl/k1": "mean log-ratio (k1)", "kl/k3": "never below 0 (k3)"},
        unit="nats per token of the rows' answers",
    ),
    *(Picture(title=histogram.title, metrics={histogram.mean: "training"}, unit="mean") for histogram in HISTOGRAMS),
    Picture(title="Time", metrics={"step_time_s": "step", "data_time_s": "of it, waiting for data"}, unit="seconds"),
)


@dataclass(frozen=True, kw_only=True)
class ChartCard:
    """One picture with its title, ready for a page."""

    title: str
    unit: str
    legend: Markup
    svg: Markup


def chart_cards(lines: Sequence[Mapping[str, Any]]) -> list[ChartCard]:
    """Return the pictures that the lines of a `metrics.jsonl` have values for, in the order of `PICTURES`."""
    curves = Curves(lines)
    cards = [_card(picture, curves) for picture in PICTURES]
    cards += [_histogram(histogram, curves) for histogram in HISTOGRAMS]
    cards += [_card(picture, curves) for picture in _further(lines)]
    return [card for card in cards if card is not None]


def _further(lines: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """Return a picture for each metric that `PICTURES` does not name, terms of the loss together."""
    known = {metric for picture in PICTURES for metric in picture.metrics} | NOT_DRAWN
    known |= {metric for histogram in HISTOGRAMS for metric in histogram.bins}
    names = dict.fromkeys(name.removeprefix(HELD_OUT) for line in lines for name in line)
    left = [name for name in names if name not in known]
    terms = {name: name.removeprefix("loss/") for name in left if name.startswith("loss/")}
    together = (
        [Picture(title="Terms of the loss", metrics=terms, unit="before their weights")] if len(terms) > 1 else []
    )
    return together + [Picture(title=name, metrics={name: "training"}) for name in left if name not in terms]


def _card(picture: Picture, curves: Curves) -> ChartCard | None:
    tones = zip(TONES * len(picture.metrics), picture.metrics.items(), strict=False)
    series = [Series(label, curve, tone) for tone, (metric, label) in tones if (curve := curves.get(metric, fewest=1))]
    held_out = _held_out(picture, curves)
    if not series and not held_out:
        return None
    # Rings among several lines have the colour of their line; a key for each would only crowd the picture.
    keys = [*series, *held_out] if len(picture.metrics) == 1 else series
    return ChartCard(
        title=picture.title,
        unit=picture.unit,
        legend=legend(keys) if len(keys) > 1 else Markup(""),
        svg=line_chart([*series, *held_out], label=f"{picture.title} over steps", log=picture.log, unit=picture.ends),
    )


def _histogram(histogram: Histogram, curves: Curves) -> ChartCard | None:
    """Return shares of pairs, in the first and the last quarter of the run; of a short run, in all of it."""
    shares = [curve for metric in histogram.bins if (curve := curves.get(metric, fewest=1)) is not None]
    if len(shares) < len(histogram.bins):
        return None
    if len(shares[0].values) < FEWEST_STEPS:
        series = [Bars("all steps", [fmean(curve.values) for curve in shares])]
    else:
        series = [Bars("first quarter", [curve.start for curve in shares], "b")]
        series.append(Bars("last quarter", [curve.end for curve in shares]))
    return ChartCard(
        title=histogram.title,
        unit="share of pairs",
        legend=legend(series) if len(series) > 1 else Markup(""),
        svg=bar_chart(series, histogram.labels, label=f"{histogram.title}, shares of pairs"),
    )


def _held_out(picture: Picture, curves: Curves) -> list[Series]:
    if len(picture.metrics) == 1:
        (metric,) = picture.metrics
        found = [("held out", "b", curves.get(HELD_OUT + metric, fewest=1))]
    else:
        tones = zip(TONES * len(picture.metrics), picture.metrics.items(), strict=False)
        found = [
            (f"{label}, held out", tone, curves.get(HELD_OUT + metric, fewest=1)) for tone, (metric, label) in tones
        ]
    return [Series(label, curve, tone, dots=True) for label, tone, curve in found if curve is not None]
