"""What the quickstart found: figures with intervals, sentences that follow from them, and the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from mmalign.evaluate import bootstrap, captions
from mmalign.evaluate.bootstrap import Interval
from mmalign.miniature import shapes
from mmalign.recipes.quickstart_answers import Asked, differing
from mmalign.report.parts import Answer, Example
from mmalign.report.quickstart_report import Arm, Metric, QuickstartStory

PICTURES_SHOWN = 12

METRICS: tuple[Metric, ...] = tuple(
    Metric(name=name, title=title, meaning=captions.METRICS[name], lower_is_better=lower)
    for name, title, lower in (
        ("hallucination", "Hallucination", True),
        ("phantom", "Phantom", True),
        ("recall", "Recall", False),
        ("count", "Count", False),
        ("exact", "Exact", False),
    )
)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One of the models that are compared.

    Args:
        name: of its recipe file and run directory.
        title: what was done to it.
        explanation: a few words more.
        role: "before", "after" or "control".
    """

    name: str
    title: str
    explanation: str
    role: Literal["before", "after", "control"]


MODELS: tuple[Model, ...] = (
    Model(name="sft", title="SFT", explanation="on captions of an annotator who sees phantoms", role="before"),
    Model(name="more_sft", title="+ more SFT", explanation="on more captions of that annotator", role="control"),
    Model(name="aligned", title="+ DPO with SFT term", explanation="on pairs from its own mistakes", role="after"),
    Model(name="dpo_alone", title="+ DPO alone", explanation="on the same pairs", role="control"),
    Model(name="truth_sft", title="+ SFT on the truth", explanation="of the same pictures", role="control"),
)
"""All but the first go on from the first, for the same number of steps."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Figures of all models on the same held-out pictures.

    Args:
        levels: model -> metric -> mean with its 95% interval.
        changes: model -> metric -> paired difference to the first model.
    """

    levels: Mapping[str, Mapping[str, Interval]]
    changes: Mapping[str, Mapping[str, Interval]]

    @classmethod
    def of(cls, values: Mapping[str, captions.Values]) -> Findings:
        """Compute intervals from per-picture values of every model."""
        first = values[MODELS[0].name]
        levels = {
            name: {metric: bootstrap.mean(array) for metric, array in one.items()} for name, one in values.items()
        }
        changes = {name: captions.compare(first, one) for name, one in values.items() if one is not first}
        return cls(levels=levels, changes=changes)

    def as_json(self) -> dict[str, Any]:
        """Return the figures as `summary.json` holds them."""
        return {
            model.name: {
                "what": f"{model.title} {model.explanation}",
                "role": model.role,
                "metrics": {name: asdict(interval) for name, interval in self.levels[model.name].items()},
                "change_from_sft": {
                    name: asdict(interval) for name, interval in self.changes.get(model.name, {}).items()
                },
            }
            for model in MODELS
        }


def conclusions(findings: Findings) -> tuple[str, ...]:
    """Return what the figures say, and what they do not, one sentence each."""
    change = {name: metrics["hallucination"] for name, metrics in findings.changes.items()}
    recall = findings.changes["dpo_alone"]["recall"]
    level = {name: metrics["hallucination"].mean for name, metrics in findings.levels.items()}
    phantom = {name: metrics["phantom"].mean for name, metrics in findings.levels.items()}
    than = "below" if level["truth_sft"] < level["aligned"] else "not below"
    return (
        f"Pairs from the model's own mistakes {_effect(change['aligned'])}: {_share(level['sft'])} of the captions "
        f"stated something that is not there, then {_share(level['aligned'])} ({_points(change['aligned'])}).",
        f"More of the annotator's captions {_effect(change['more_sft'])} ({_points(change['more_sft'])}) and leave "
        f"the phantom in {_share(phantom['more_sft'])} of them, from {_share(phantom['sft'])}: captions with a bias "
        "teach the bias, however many there are.",
        f"The same pairs without the SFT term {_effect(change['dpo_alone'])} ({_points(change['dpo_alone'])}), while "
        f"recall changes by {_points(recall)}: never read a hallucination rate without recall and count beside it.",
        f"SFT on true captions of the same pictures reaches {_share(level['truth_sft'])}, {than} the aligned model's "
        f"{_share(level['aligned'])}. Where true captions exist, imitating them is the simplest cure: nothing "
        "here says that DPO beats SFT.",
        "One seed of one tiny world: docs/log.md has five seeds.",
    )


def _effect(change: Interval) -> str:
    verb = "do not measurably change" if not change.excludes_zero() else "lower" if change.mean < 0 else "raise"
    return f"{verb} the share of hallucinating captions"


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"


def _points(change: Interval) -> str:
    mean, low, high = (f"{round(100 * value):+d}" for value in (change.mean, change.low, change.high))
    return f"{mean} points, 95% interval {low} to {high}"


def examples(asked: Mapping[str, Asked], root: Path) -> tuple[Example, ...]:
    """Return the first held-out pictures that are described differently before and after, right or wrong."""
    before, after = asked["sft"], asked["aligned"]
    return tuple(
        Example(
            title=f"Held-out picture {index}",
            prompt=shapes.CAPTION_PROMPT,
            truth=shapes.caption(before.album.scenes[index]),
            images=(root / before.album.uris[index],),
            answers=tuple(
                _answer(label, one.answers[index], before.album.scenes[index])
                for label, one in (("before", before), ("after", after))
            ),
        )
        for index in differing(before, after, PICTURES_SHOWN)
    )


def _answer(label: str, text: str, scene: shapes.Scene) -> Answer:
    stated = shapes.parse_caption(text)
    wrong = [thing for thing in stated.things if thing not in scene]
    missed = [thing for thing in scene if thing not in stated.things]
    notes = [f"{len(wrong)} not there"] * bool(wrong) + [f"{len(missed)} left out"] * bool(missed)
    return Answer(
        label=label,
        text=text,
        verdict="bad" if notes or not stated.well_formed else "good",
        note=", ".join(notes) or ("right" if stated.well_formed else "breaks off"),
        marks=tuple(_place(text, thing) for thing in wrong),
    )


def _place(text: str, thing: shapes.Thing) -> tuple[int, int]:
    statement = f"a {thing.colour} {thing.shape} at {thing.cell}"
    start = text.index(statement)
    return start, start + len(statement)


def story(
    findings: Findings,
    shown: tuple[Example, ...],
    *,
    run_dirs: Mapping[str, Path],
    facts: Mapping[str, str],
    files: Mapping[str, str],
) -> QuickstartStory:
    """Return everything that stands on the page."""
    before, after = findings.levels["sft"]["hallucination"].mean, findings.levels["aligned"]["hallucination"].mean
    return QuickstartStory(
        title=f"Captions that state what is not there: {_share(before)} before, {_share(after)} after",
        lead=(
            "An annotator often reports a blue cross where something red or yellow is, and a tiny Qwen2.5-VL learns it "
            "from the captions. Can preference pairs made from the model's own mistakes undo that? All models describe "
            "the same held-out pictures, which none of them has seen."
        ),
        metrics=METRICS,
        arms=tuple(
            Arm(name=one.title, explanation=one.explanation, role=one.role, values=findings.levels[one.name])
            for one in MODELS
        ),
        differences=findings.changes["aligned"],
        conclusions=conclusions(findings),
        examples=shown,
        runs=(("Alignment, step by step", run_dirs["aligned"]), ("Learning to caption", run_dirs["sft"])),
        facts=facts,
        files=files,
    )


def print_findings(console: Console, findings: Findings) -> None:
    """Print every model's figures as a table that fits 80 columns, and below it what they say."""
    first, *others = METRICS
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    table.title = "\nHeld-out pictures, share in % [95% interval]; change is from SFT, paired"
    headers = ("", f"{first.title}\n{_arrow(first)}", "change\n", *(f"{one.title}\n{_arrow(one)}" for one in others))
    for header in headers:
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    for model in MODELS:
        level, change = findings.levels[model.name], findings.changes.get(model.name)
        cells = [_with_interval(level[first.name], ""), _with_interval(change[first.name], "+") if change else ""]
        cells += [f"{100 * level[one.name].mean:.0f}" for one in others]
        table.add_row(model.title, *cells, style="bold" if model.role == "after" else "")
    console.print(table)
    for sentence in conclusions(findings):
        console.print(f"- {sentence}", highlight=False, markup=False)


def _arrow(metric: Metric) -> str:
    return "↓" if metric.lower_is_better else "↑"


def _with_interval(interval: Interval, sign: str) -> str:
    mean, low, high = (format(round(100 * value), f"{sign}d") for value in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"
