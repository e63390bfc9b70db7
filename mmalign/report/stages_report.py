"""`report.html` of a run with stages: each stage in a row, and the curves of all in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmalign import __version__
from mmalign.errors import DataError
from mmalign.report.charts import chart_cards
from mmalign.report.page import render, write
from mmalign.report.parts import Tile
from mmalign.report.run_report import lead_of, mapping_of, text_of
from mmalign.report.svg import figure
from mmalign.train.curves import Curves
from mmalign.train.diagnose import diagnose
from mmalign.train.finding import Finding
from mmalign.train.metrics import read_metrics
from mmalign.train.rundir import RunDirectory

_MOVED = ("loss", "rewards/margins", "eval_loss", "eval_rewards/accuracies")


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage as the report shows it.

    Args:
        name, starts_from: as the manifest says.
        link: to the stage's own report, relative; "" where there is none yet.
        trains: objective and model.
        rows: training rows, and how many were not selected.
        learning_rate: peak.
        steps: steps done.
        curves: metric -> "first to last quarter".
        disk: size of the stage's directory.
        status: finished, not finished, or not begun.
    """

    name: str
    starts_from: str
    link: str
    trains: str
    rows: str
    learning_rate: str
    steps: str
    curves: Mapping[str, str]
    disk: str
    status: str


def write_stages_report(root: str | Path) -> Path:
    """Write `report.html` into the directory of a run with stages, finished or not, and return its path.

    Raises:
        DataError: there is no such directory, or its manifest names no stages.
    """
    run = RunDirectory(Path(root))
    stages = mapping_of(json.loads, text_of(run.manifest)).get("stages")
    if not isinstance(stages, list) or not stages:
        raise DataError(f"{str(root)!r} is no run with stages: its manifest.json names none")
    lines = [read_metrics(RunDirectory(run.root / stage["directory"]).metrics) for stage in stages]
    shown = [_row(run, stage, own) for stage, own in zip(stages, lines, strict=True)]
    finished = sum(row.status == "finished" for row in shown)
    html = render(
        "stages.html.j2",
        title=run.root.resolve().name,
        version=__version__,
        status="finished" if run.final.is_dir() else "not finished",
        tiles=[
            Tile(title="Stages", value=figure(len(stages)), beside=f"{finished} finished"),
            Tile(title="Steps", value=figure(sum(map(len, lines))), beside="in all"),
            Tile(title="On disk", value=_size(_bytes_of(run.root)), beside="all of it"),
        ],
        stages=shown,
        metrics=[name for name in _MOVED if any(name in row.curves for row in shown)],
        findings=[found for stage, own in zip(stages, lines, strict=True) for found in _findings(stage["name"], own)],
        charts=chart_cards(_one_line(lines)),
        config=text_of(run.config),
    )
    return write(run.report, html)


def stages_in(root: str | Path) -> list[tuple[str, Path]]:
    """Return name and directory of each stage that the manifest of a run names; none for a run without stages."""
    run = RunDirectory(Path(root))
    stages = mapping_of(json.loads, text_of(run.manifest)).get("stages")
    return [(stage["name"], run.root / stage["directory"]) for stage in stages] if isinstance(stages, list) else []


def _row(run: RunDirectory, stage: Mapping[str, str], lines: Sequence[Mapping[str, Any]]) -> StageRow:
    own = RunDirectory(run.root / stage["directory"])
    values = mapping_of(yaml.safe_load, text_of(own.config))
    train = values.get("train") or {}
    return StageRow(
        name=stage["name"],
        starts_from=stage["starts_from"],
        link=f"{stage['directory']}/report.html" if own.report.is_file() else "",
        trains=lead_of(values),
        rows=_rows(own),
        learning_rate=f"{train['learning_rate']:g}" if "learning_rate" in train else "",
        steps=figure(lines[-1]["step"]) if lines else "",
        curves=_moved(lines),
        disk=_size(_bytes_of(own.root)),
        status="finished" if own.final.is_dir() else "not finished" if lines else "not begun",
    )


def _rows(run: RunDirectory) -> str:
    facts = mapping_of(json.loads, text_of(run.data / "train" / "prepared.json"))
    if "rows" not in facts:
        return ""
    left_out = sum((facts.get("not_selected") or {}).values())
    return f"{facts['rows']:,}" + (f" of {facts['rows'] + left_out:,}" if left_out else "")


def _moved(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return metric -> from its first quarter to its last, or its one value."""
    found = {}
    for name in _MOVED:
        curve = Curves(lines).get(name, fewest=1) if lines else None
        if curve is not None:
            once = len(curve.values) == 1
            found[name] = figure(curve.end) if once else f"{figure(curve.start)} to {figure(curve.end)}"
    return found


def _findings(name: str, lines: Sequence[Mapping[str, Any]]) -> list[Finding]:
    said = diagnose(lines)
    return [Finding(one.name, f"Stage {name}: {one.sentence}", one.advice, one.evidence) for one in said]


def _one_line(lines: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the lines of all stages with steps that count on."""
    steps = 0
    joined: list[dict[str, Any]] = []
    for own in lines:
        joined += [{**line, "step": steps + line["step"]} for line in own]
        steps += own[-1]["step"] if own else 0
    return joined


def _bytes_of(root: Path) -> int:
    """Return what a directory takes; a file with several names counts once."""
    found = {(stat.st_dev, stat.st_ino): stat.st_size for stat in (p.stat() for p in root.rglob("*") if p.is_file())}
    return sum(found.values())


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
