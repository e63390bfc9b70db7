"""`mmalign data relabel`: a file of rows becomes a file of other rows, in our own format."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from mmalign.config.document import parse_value
from mmalign.errors import ConfigError
from mmalign.pairs.relabel import HOWS, options_of, relabelling
from mmalign.recipes.data_convert import Conversion, convert, report

_LONGEST_DEFAULT = 40


def relabel_file(
    path: str | os.PathLike[str] | None,
    out: Path | None,
    how: str | None,
    options: Sequence[str] = (),
    *,
    console: Console | None = None,
    **choices: Any,
) -> Conversion:
    """Relabel the rows of a file, print what became of them, and return it.

    Args:
        path: what `data_convert.convert` reads.
        out: .jsonl or .parquet.
        how: name of the relabelling.
        options: its options, as `key=value` with values in YAML.
        choices: further arguments of `convert`.

    Raises:
        ConfigError: there is no such relabelling or option, or a value is outside its rule.
        DataError: see `convert`.
    """
    for given, name in ((path, "PATH"), (how, "--how"), (out, "--output")):
        if given is None:
            raise ConfigError(f"{name} is missing; `mmalign data relabel --help` shows examples")
    change = relabelling(how, dict(map(_option, options)))
    done = convert(path, out, change=change, **choices)
    report(done, out, console)
    return done


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"option {text!r}: write key=value, for example seed=3")
    return name, parse_value(value, f"option {text!r}")


def show(console: Console | None = None) -> None:
    """Print every relabelling with what it does, its source and its options."""
    console = console or Console(highlight=False)
    for how, made_by in HOWS.items():
        first, _, rest = inspect.getdoc(made_by).partition("\n\n")
        console.print(f"[bold]{how}[/bold]  {escape(first)}")
        if rest:
            console.print(Padding(escape(" ".join(rest.split())), (0, 0, 0, 4)))
        for name, default, says in options_of(how):
            console.print(Padding(f"[bold]{name}[/bold]={escape(_shown(default))}  {escape(says)}", (0, 0, 0, 4)))
        console.print()


def _shown(default: Any) -> str:
    text = "" if default == () else str(default)
    return text if len(text) <= _LONGEST_DEFAULT else f"{text[: _LONGEST_DEFAULT - 3]}..."
