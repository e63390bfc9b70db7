"""`mmalign objectives`: what there is to train towards, and everything about one of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mmalign.objectives.compose import Objective, build
from mmalign.objectives.dense import CONTRAST_LOGPS, GAINED_LOGPS, REFERENCE_KL, TEACHER_LOGPS, TOKEN_REWARD
from mmalign.objectives.options import OPTIONS
from mmalign.objectives.preset import Preset
from mmalign.objectives.presets import ALIASES, GROUPS, PRESETS, preset_named

_MOST_RESPONSES = 5


def show(name: str | None, console: Console | None = None) -> None:
    """Print all presets, or one.

    Raises:
        ConfigError: there is no preset of this name.
    """
    console = console or Console(highlight=False)
    console.print(_page(preset_named(name)) if name else _list())


def _list() -> RenderableType:
    """Return every preset in one line, in groups."""
    width = max(map(len, PRESETS))
    parts: list[RenderableType] = []
    for title, presets in GROUPS.items():
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True, min_width=width)
        table.add_column()
        for preset in presets:
            table.add_row(preset.name, f"{escape(preset.says)}  [dim]{escape(_short(preset.source))}[/]")
        parts += [f"[bold]{title}[/]", table, ""]
    recipe = Text("objective:\n  - {name: dpo, beta: 0.1}\n  - {name: sft, weight: 0.1}", style="green")
    return Group(*parts, "One in full: [cyan]mmalign objectives NAME[/]. Several in a recipe are added up:", recipe)


def _page(preset: Preset) -> RenderableType:
    """Return everything about one preset."""
    objective = build([{"name": preset.name}])
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(ratio=1)
    facts.add_row("what it does", escape(preset.says))
    facts.add_row("loss", Text(preset.formula, style="bold"))
    facts.add_row("source", escape(preset.source))
    facts.add_row("reads", escape("; ".join(_reads(objective))))
    names = [name for name, alias in ALIASES.items() if alias.of == preset.name]
    if names:
        facts.add_row("also called", escape(", ".join(names)))
    for departure in preset.departures:
        facts.add_row("departs", escape(departure))
    head = Panel(facts, title=f"[bold cyan]{preset.name}[/]", title_align="left", border_style="blue")
    given = ", ".join(f"{name}: {_yaml(value)}" for name, value in list(preset.options.items())[:2])
    recipe = Text(f"objective:\n  - {{name: {preset.name}, {given}}}", style="green")
    return Group(head, _options(preset), "", recipe)


def _options(preset: Preset) -> RenderableType:
    table = Table("option", "default", "meaning", "must be", box=None, pad_edge=False, header_style="dim")
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.add_row("[cyan]weight[/]", "1.0", "factor of this objective in the sum", "[dim]a number above 0[/]")
    elsewhere = {ours: name for name, ours in preset.also.items()}
    for name, default in preset.options.items():
        option = OPTIONS[name]
        meaning = option.meaning + (f"; also {elsewhere[name]}" if name in elsewhere else "")
        if option.only_if is not None:
            meaning += f"; with {option.only_if[0]}: {option.only_if[1]} alone"
        table.add_row(f"[cyan]{name}[/]", escape(_yaml(default)), escape(meaning), f"[dim]{escape(option.rule)}[/]")
    return table


_DENSE_IN_WORDS = {
    REFERENCE_KL: "the reference's whole next-token distributions (logits of both are computed once more)",
    TOKEN_REWARD: "log-probs under a token-level reward model (model.token_reward)",
    TEACHER_LOGPS: "the likeliest tokens of a teacher (model.teacher), kept on disk",
    GAINED_LOGPS: "rows with turns before the last, once with and once without them",
    CONTRAST_LOGPS: "what a second model makes of them (model.teacher.contrast)",
}


def _reads(objective: Objective) -> Iterator[str]:
    """Yield what an objective wants of rows, models and steps, in words."""
    yield _rows_read(objective)
    if count := sum(bool(view.how or view.media) for view in objective.views):
        times = "once more" if count == 1 else f"{count} times more"
        yield f"rows with media, computed {times} under changed media (its cost beside the pass every objective takes)"
    yield "log-probs under a reference model" if objective.needs_reference else "no reference model"
    if objective.numbers:
        yield f"numbers of the responses: {', '.join(objective.numbers)}"
    for name, words in _DENSE_IN_WORDS.items():
        if name in objective.dense:
            yield words
    if objective.needs_purity:
        yield "how sharp the policy's predictions are (its logits are computed once more)"
    if objective.whole_step:
        yield "the whole optimiser step, on all ranks (several micro-batches cost one more forward each)"
    if objective.first_memory():
        yield "the steps before (kept in checkpoints)"


def _rows_read(objective: Objective) -> str:
    """Return which responses of a row are read, in words."""
    fewest = next(k for k in range(1, _MOST_RESPONSES) if objective.responses_read(tuple(range(k))))
    if fewest > 1:
        return f"rows of {fewest} or more ranked responses"
    return {
        (0,): "the best response of a row",
        (0, 2): "an answer judged good or bad, or the best and the worst of a list",
    }.get(objective.responses_read((0, 1, 2)), "all responses of a row")


def _short(source: str) -> str:
    """Return the number of the paper, else its short name and year, else the beginning of what stands for it."""
    if number := next((word.strip(",;") for word in source.split() if word.startswith("arXiv:")), None):
        return number
    named = re.search(r"\((\w+)\) (\d{4})", source)
    return f"{named[1]} {named[2]}" if named else source.split(",")[0][:40]


def _yaml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
