"""What a person watching sees: a bar in a terminal, a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_REFRESHES = 0.2


class Counting:
    """Counts items whose number is not known beforehand; `facts` adds what else is worth saying."""

    def __init__(self, what: str, facts: Callable[[], str] | None = None) -> None:
        self.what, self.count, self._facts = what, 0, facts
        self._began = self._said = time.monotonic()
        self._live = Console(stderr=True).is_terminal

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *error: object) -> None:
        if self._live and self.count:
            sys.stderr.write("\r\x1b[K")

    def each(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, saying now and then how many there were."""
        for item in items:
            self.count += 1
            now = time.monotonic()
            if now - self._said > (_SECONDS_BETWEEN_REFRESHES if self._live else _SECONDS_BETWEEN_LINES):
                self._said = now
                more = "" if self._facts is None else f", {self._facts()}"
                rate = self.count / (now - self._began)
                text = f"{self.what}: {self.count:,} ({rate:,.{0 if rate >= 10 else 1}f}/s{more})"
                sys.stderr.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
                sys.stderr.flush()
            yield item


class TrainingBar:
    """The steps of a run with loss, margin and pairs per second.

    Args:
        total_steps: of the run.
        done: steps done before.
        unit: what the rate counts: "pairs" or "rows".
        logging_steps: where there is no terminal, a line is printed after every so many steps, but not more often than
            every ten seconds.
        shown: False on ranks that stay silent.
    """

    def __init__(
        self, total_steps: int, done: int = 0, *, unit: str = "rows", logging_steps: int = 1, shown: bool = True
    ) -> None:
        self.total_steps, self.unit, self.logging_steps, self.shown = total_steps, unit, logging_steps, shown
        console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[facts]}"),
            console=console,
            auto_refresh=False,
            disable=not shown or not console.is_terminal,
        )
        self._task = self._bar.add_task("step", total=total_steps, completed=done, facts="")
        self._began, self._rows, self._said = time.monotonic(), 0, 0.0

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, step: int, rows: int, metrics: Mapping[str, float]) -> None:
        """Show the state after `step`, which read `rows` rows."""
        self._rows += rows
        now = time.monotonic()
        live = not self._bar.disable
        last = step == self.total_steps
        due = live or step % self.logging_steps == 0
        if not self.shown or not (last or (due and now - self._said >= self._pause(live))):
            return
        self._said = now
        facts = self._facts(metrics, self._rows / max(now - self._began, 1e-9))
        if live:
            self._bar.update(self._task, completed=step, facts=facts, refresh=True)
        else:
            print(f"step {step}/{self.total_steps}: {facts}", file=sys.stderr, flush=True)

    def _pause(self, live: bool) -> float:
        return _SECONDS_BETWEEN_REFRESHES if live else _SECONDS_BETWEEN_LINES

    def _facts(self, metrics: Mapping[str, float], rate: float) -> str:
        facts = [f"loss {metrics['loss']:.4f}"]
        if "rewards/margins" in metrics:
            facts.append(f"margin {metrics['rewards/margins']:+.3f}")
        return "  ".join([*facts, f"{rate:.1f} {self.unit}/s"])
