"""`mmalign report`: the page of a run directory, whatever became of the run.

mmalign report runs/mine
"""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from mmalign.errors import DataError
from mmalign.recipes.terminal import safe
from mmalign.report.run_report import write_run_report
from mmalign.report.stages_report import stages_in, write_stages_report
from mmalign.train.diagnose import diagnose
from mmalign.train.metrics import read_metrics
from mmalign.train.rundir import RunDirectory


def run(directory: str | os.PathLike[str], console: Console | None = None) -> Path:
    """Write `report.html` into a run directory, print what its curves say, and return the page.

    Args:
        directory: `train.output_dir` of a recipe that was started.
        console: where it is printed; None takes standard output.

    Raises:
        DataError: there is no such directory, or no run was started in it.
    """
    console = console or Console()
    found = RunDirectory(Path(directory))
    if found.root.is_dir() and not found.config.is_file():
        rule = "a run directory has a config.yaml; name the train.output_dir of its recipe"
        raise DataError(f"{str(directory)!r} holds no run; {rule}")
    stages = stages_in(found.root)
    page = write_stages_report(found.root) if stages else write_run_report(found.root)
    lines = []
    for name, place in stages or [("", found.root)]:
        own = read_metrics(RunDirectory(place).metrics)
        lines += own
        for finding in diagnose(own):
            console.print(safe(f"stage {name}: {finding}" if stages else str(finding)), soft_wrap=True)
    done = f"{len(lines):,} steps" if lines else "no step yet"
    state = "finished" if found.final.is_dir() else "not finished"
    console.print(f"[bold green]{safe(str(page))}[/]: {done}, {state}", soft_wrap=True)
    return page
