"""What a step reports: totals and counts added over micro-batches and ranks, divided once, one line of JSON a step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mmalign.objectives.metrics import Ratio, derived


class Totals:
    """Sums of totals and counts; they stay on the device until `reduce` asks for them, once a step."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ratios: Tensor | None = None

    def add(self, metrics: Mapping[str, Ratio], *, counted: bool = True) -> None:
        """Add one micro-batch; a filler (`counted=False`) brings its names only. All bring the same names."""
        values = torch.stack([part.detach() for ratio in metrics.values() for part in ratio]).double()
        assert self.ratios is None or list(metrics) == self.names, "all micro-batches report the same metrics"
        self.names = list(metrics)
        values = values if counted else torch.zeros_like(values)
        self.ratios = values if self.ratios is None else self.ratios + values

    def reduce(self, accelerator: Accelerator, sums: Sequence[Tensor | float]) -> tuple[dict[str, float], list[float]]:
        """Add up over ranks in one exchange.

        Args:
            sums: further numbers to be added up over ranks.

        Returns:
            the mean of every metric that counted anything, and what is made of means; and `sums` over ranks.
        """
        assert self.ratios is not None, "every rank runs at least one micro-batch"
        device = self.ratios.device
        further = torch.stack([torch.as_tensor(value, device=device).detach().double() for value in sums])
        values = accelerator.reduce(torch.cat([self.ratios, further]), reduction="sum").tolist()
        split = 2 * len(self.names)
        ratios = zip(self.names, values[:split:2], values[1:split:2], strict=True)
        return derived({name: total / count for name, total, count in ratios if count > 0}), values[split:]


class MetricsFile:
    """`metrics.jsonl`: one line a step, in order, each step once, also over interruptions.

    Args:
        path: appended to.
        step: the step that the run continues from; later lines, and a half-written one, are cut off.
    """

    def __init__(self, path: Path, step: int = 0) -> None:
        kept = [line for line in _lines(path) if line["step"] <= step]
        unfinished = path.with_name(path.name + ".partial")
        unfinished.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(unfinished, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line; a reader sees it at once. JSON has no word for what is not finite: it stands as null."""
        plain = {name: None if _overflowed(value) else value for name, value in values.items()}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Bring everything to the disk, so that no checkpoint is younger than the lines before it."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a `metrics.jsonl`; a half-written last line is left out."""
    return _lines(path)


def _overflowed(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
