"""What several verbs of the command line share: how examples are shown, and arguments that mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="Recipe in YAML; configs/ has some to start from.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Change keys of the recipe, e.g. train.learning_rate=1e-6."),
]


def examples(*lines: str) -> str:
    """Return an epilog that shows commands as they are typed."""
    return "[bold]Examples[/bold]\n\n" + "\n\n".join(f"  {escape(line)}" for line in lines)
