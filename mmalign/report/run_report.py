"""`report.html` of a run directory: what was run, what the curves say, which rows were refused, and answers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from mmalign import __version__
from mmalign.errors import ConfigError, DataError
from mmalign.objectives.compose import build
from mmalign.report.charts import chart_cards
from mmalign.report.data_page import LARGEST_PAGE_ROWS, MOST_ROWS
from mmalign.report.page import render, write
from mmalign.report.parts import Example, Tile, from_to
from mmalign.report.refusals import reasons
from mmalign.report.svg import figure
from mmalign.sources.quarantine import Refusal, recorded
from mmalign.train.curves import Curve, Curves
from mmalign.train.diagnose import diagnose
from mmalign.train.metrics import read_metrics
from mmalign.train.rundir import RunDirectory


def write_run_report(root: str | Path, *, examples: Sequence[Example] = ()) -> Path:
    """Write `report.html` into a run directory, finished or not, and return its path.

    Args:
        root: the run directory; what it does not hold is left out.
        examples: prompts with answers, e.g. before and after training.

    Raises:
        DataError: there is no such directory.
    """
    run = RunDirectory(Path(root))
    if not run.root.is_dir():
        raise DataError(f"there is no run directory {str(root)!r}")
    return write(run.report, render_run(run, examples))


def render_run(run: RunDirectory, examples: Sequence[Example] = ()) -> str:
    """Return the page of a run."""
    lines = [line for line in read_metrics(run.metrics) if isinstance(line, dict) and isinstance(line.get("step"), int)]
    config = text_of(run.config)
    values = mapping_of(yaml.safe_load, config)
    refusals = list(recorded(run.quarantine))
    return render(
        "run.html.j2",
        title=run.root.resolve().name,
        version=__version__,
        recipe=str(values.get("recipe", "run")),
        status="finished" if run.final.is_dir() else "not finished",
        lead=lead_of(values),
        tiles=tiles(lines),
        findings=diagnose(lines),
        charts=chart_cards(lines),
        examples=list(examples),
        quarantine=reasons(refusals),
        quarantine_total=len(refusals),
        look=_look(values, run, refusals),
        config=config,
        manifest=flat(mapping_of(json.loads, text_of(run.manifest))),
    )


def tiles(lines: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """Return the large figures of a run: from its first quarter to its last where that says something."""
    if not lines:
        return []
    curves = Curves(lines)
    epoch = lines[-1].get("epoch")
    beside = f"{figure(epoch)} epochs" if isinstance(epoch, (int, float)) else ""
    found = [Tile(title="Steps", value=figure(lines[-1]["step"]), beside=beside)]
    for title, metric in (("Loss", "loss"), ("Reward margin", "rewards/margins"), ("Accuracy", "rewards/accuracies")):
        if (curve := curves.get(metric, fewest=2)) is not None:
            found.append(Tile(title=title, value=from_to(curve.start, curve.end), beside="first to last quarter"))
    for title, metric in (("Held-out accuracy", "eval_rewards/accuracies"), ("Held-out loss", "eval_loss")):
        if (curve := curves.get(metric, fewest=1)) is not None:
            found.append(_held_out(title, curve))
            break
    if (curve := curves.get("eval_image_reliance", fewest=1)) is not None:
        tile = _held_out("Image reliance", curve)
        found.append(replace(tile, beside=f"nats a token that blank media cost, {tile.beside}"))
    if (curve := curves.get("step_time_s", fewest=1)) is not None:
        beside = f"{_duration(sum(curve.values))} in all"
        found.append(Tile(title="Per step", value=_duration(median(curve.values)), beside=beside))
    return found


def _held_out(title: str, curve: Curve) -> Tile:
    if len(curve.values) == 1:
        return Tile(title=title, value=figure(curve.values[0]), beside=f"at step {curve.steps[0]}")
    beside = f"step {curve.steps[0]} to {curve.steps[-1]}"
    return Tile(title=title, value=from_to(curve.values[0], curve.values[-1]), beside=beside)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested values as rows of a table: ("versions.torch", "2.11.0")."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", " ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _look(values: Mapping[str, Any], run: RunDirectory, refusals: Sequence[Refusal]) -> str:
    """Return the command that shows the refused rows in full, "" when the recipe does not say where they are from."""
    data = values.get("data")
    data = data if isinstance(data, Mapping) else {}
    if not isinstance(data.get("train"), str):
        return ""
    said = ["--quarantine", str(run.quarantine)]
    for name in ("root", "format"):
        said += [f"--{name}", str(data[name])] if data.get(name) else []
    said += _reach(data["train"], refusals)
    return shlex.join(["mmalign", "data", "view", data["train"], "-o", "rows.html", *said])


def _reach(train: str, refusals: Sequence[Refusal]) -> list[str]:
    """Return the options that make a page reach the last refused row, none where it does anyway.

    How many rows stand before one in a folder of files is not known here: as many are taken as a page can hold.
    """
    is_one_file = all(refusal.file in (train, Path(train).name) for refusal in refusals)
    last = max((refusal.row for refusal in refusals), default=0) if is_one_file else LARGEST_PAGE_ROWS
    if last > LARGEST_PAGE_ROWS:
        return ["--from-row", str(last - LARGEST_PAGE_ROWS + 1), "--limit", str(LARGEST_PAGE_ROWS)]
    return ["--limit", str(last)] if last > MOST_ROWS else []


def lead_of(values: Mapping[str, Any]) -> str:
    """Return objective and model of a resolved recipe in words, as far as it says them."""
    model = values.get("model")
    path = model.get("path") if isinstance(model, Mapping) else None
    try:
        objective = build([dict(spec.items()) for spec in values.get("objective") or []])
        description = objective.description
    except (ConfigError, AttributeError, TypeError):
        description = ""
    return " on ".join(str(part) for part in (description, path) if part)


def text_of(path: Path) -> str:
    """Return the text of a file, "" where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def mapping_of(parse: Any, text: str) -> Mapping[str, Any]:
    """Return what a file says when it says anything; a file spoilt by hand must not cost the report."""
    try:
        values = parse(text) if text else {}
    except (ValueError, yaml.YAMLError):
        return {}
    return values if isinstance(values, Mapping) else {}


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{figure(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
