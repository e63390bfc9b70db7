"""A plan as a person reads it in a terminal."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmalign.recipes.plan_changes import RUNTIME_BYTES, USABLE_SHARE, fits

if TYPE_CHECKING:
    from mmalign.recipes.plan import Plan

_BINS = 8
_BAR_WIDTH = 32
_MEANINGS = {
    "weights": "all weights of the policy",
    "gradients": "of what is trained",
    "optimiser": "two AdamW states of what is trained",
    "reference": "what the reference holds besides the policy",
    "token_reward": "the model whose log-probs are rewards of single tokens",
    "activations": "what the largest forward pass keeps for the backward pass",
    "head": "log-probs of response tokens, what else is read of them, and the head's own gradients",
    "gradients_in_flight": "gradients of activations inside one layer",
    "overlap": "gradients take the place of activations; more than one batch per step would keep both",
}


def print_plan(plan: Plan, console: Console | None = None) -> None:
    """Print rows, batches, memory, and what to change."""
    console = console or Console(highlight=False)
    _print_rows(plan, console)
    _print_batches(plan, console)
    _print_memory(plan, console)
    _print_teacher(plan, console)
    _print_decoders(plan, console)
    _print_changes(plan, console)


def _print_rows(plan: Plan, console: Console) -> None:
    facts, tree = plan.rows.facts, plan.rows.tokens("tree")
    prompt, media, video, responses, _ = np.moveaxis(np.asarray(plan.rows.lengths).astype(np.int64), 2, 0)
    console.rule("rows", align="left")
    console.print(f"{len(plan.rows):,} rows; tokens of a row (prompt with media, and all responses it trains on):")
    if plan.rows.views:
        views = "1 view" if len(plan.rows.views) == 1 else f"{len(plan.rows.views)} views"
        console.print(f"each counted as it is and in {views}: {', '.join(plan.rows.views)}")
    console.print(_histogram(tree))
    images, text = media - video, prompt - media
    console.print(
        f"median {np.median(tree):,.0f}, 95% below {np.quantile(tree, 0.95):,.0f}, longest {tree.max():,}; "
        f"{images.sum() / tree.sum():.0%} images, {video.sum() / tree.sum():.0%} videos, "
        f"{text.sum() / tree.sum():.0%} prompt text, {responses.sum() / tree.sum():.0%} responses"
    )
    kinds = (("refused", "refused"), ("made to fit data.max_length", "fitted"), ("not selected", "not_selected"))
    for title, key in kinds:
        for reason, count in dict(facts.get(key, {})).items():
            console.print(escape(f"  {title}: {count:,} x {reason}"))


def _histogram(tokens: np.ndarray) -> Table:
    """Return rows per range of tokens as a table with bars."""
    low, high = int(tokens.min()), int(tokens.max())
    counts, edges = np.histogram(tokens, bins=min(_BINS, high - low + 1), range=(low, high + 1))
    table = Table("tokens", "rows", "", box=None, pad_edge=False, header_style="bold")
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        bar = "█" * round(_BAR_WIDTH * count / counts.max())
        table.add_row(f"{int(np.ceil(start)):,}-{int(np.ceil(end)) - 1:,}", f"{count:,}", bar or ("·" if count else ""))
    return table


def _print_batches(plan: Plan, console: Console) -> None:
    batches, (engine, reason) = plan.batches, plan.engine
    least, median, most = batches.rows_per_batch
    trees = f"{median}" if least == most else f"{least} to {most} (median {median})"
    tree, flat = plan.rows.tokens("tree").sum(), plan.rows.tokens("flat").sum()
    largest = batches.largest
    console.rule("batches", align="left")
    console.print(f"engine {engine}: {escape(reason)}")
    console.print(f"an epoch is {tree:,} tokens as prompt trees, {flat:,} as separate rows ({flat / tree:.2f} x)")
    console.print(f"{batches.total_steps:,} steps of {batches.rows_per_step} rows; trees per batch: {trees}")
    console.print(
        f"largest batch: {largest.rows} x {largest.columns:,} tokens, {largest.response_tokens:,} of them scored; "
        f"{batches.padding_share:.0%} of all computed tokens are padding"
    )


def _print_memory(plan: Plan, console: Console) -> None:
    memory, whose = plan.memory_bytes
    console.rule("predicted peak memory of one device", align="left")
    table = Table("", "", "", box=None, pad_edge=False, show_header=False)
    for item in fields(plan.footprint):
        size = getattr(plan.footprint, item.name)
        if size == 0:
            continue
        table.add_row(size_text(size), item.name.replace("_", " "), f"[dim]{_MEANINGS[item.name]}[/dim]")
    table.add_row(size_text(RUNTIME_BYTES), "runtime", "[dim]Python, torch and its kernels[/dim]")
    total = plan.footprint.total + RUNTIME_BYTES
    table.add_row(f"[bold]{size_text(total)}[/bold]", "[bold]in all[/bold]", f"of {size_text(memory)} ({whose})")
    console.print(table)


def _print_teacher(plan: Plan, console: Console) -> None:
    """Say what a teacher takes before the policy is there; the two are never held at the same time."""
    teacher, memory = plan.teacher, plan.memory_bytes[0]
    if teacher is None:
        return
    total = teacher.memory + RUNTIME_BYTES
    console.print(
        f"before it, the teacher is asked in {size_text(total)} ({size_text(teacher.weights)} weights, "
        f"{size_text(teacher.passing)} of one forward pass); its table takes {size_text(teacher.table)} on disk, of "
        f"{size_text(teacher.free)} that are free"
    )
    if total > USABLE_SHARE * memory:
        console.print(
            "[yellow]The teacher does not fit: take a smaller one, or set train.bf16: true or model.quantize: 4bit.[/]"
        )
    if teacher.table > teacher.free:
        console.print("[yellow]The table does not fit on the disk: lower model.teacher.top_k.[/]")


def _print_decoders(plan: Plan, console: Console) -> None:
    """Say what decoding may take: a bound, which few videos come near, and so no part of the prediction."""
    decoders = plan.decoders
    if not decoders.processes:
        return
    processes = "1 process" if decoders.processes == 1 else f"{decoders.processes} processes"
    each = f"each at most data.video.decode_memory_gb = {decoders.bytes_each / 1e9:g}"
    left = f"of {size_text(decoders.free_bytes)} that this machine has left"
    console.print(f"beside it, {processes} decoding videos may take up to {size_text(decoders.bytes)} {left}; {each}")
    if decoders.bytes > decoders.free_bytes:
        console.print("[yellow]That is more than there is: lower data.video.decode_memory_gb or data.num_workers.[/]")


def _print_changes(plan: Plan, console: Console) -> None:
    memory = plan.memory_bytes[0]
    if fits(plan.footprint, memory):
        console.print("[bold green]It fits.[/bold green]")
        return
    if not plan.changes:
        console.print("[bold red]It does not fit[/bold red], and no single change known here would help.")
        return
    console.print("[bold red]It does not fit.[/bold red] Change, one after the other:")
    table = Table("then", "change", "costs", box=None, pad_edge=False, header_style="bold")
    for change in plan.changes:
        table.add_row(
            size_text(change.footprint.total + RUNTIME_BYTES), escape(" ".join(change.overrides)), change.cost
        )
    console.print(table)
    if not fits(plan.changes[-1].footprint, memory):
        console.print("Even then it does not fit; spread it over several devices (configs/accelerate/fsdp2.yaml).")


def size_text(size: int) -> str:
    """Return bytes with the unit that leaves two or three digits to read."""
    if abs(size) >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:,.0f} MB" if abs(size) >= 1e6 else f"{size / 1e3:,.0f} kB"
