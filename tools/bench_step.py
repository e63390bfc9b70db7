"""One training step, TRL's DPOTrainer against mmalign: pairs per second, working memory, distance to the floor.

    python tools/bench_step.py                       # all cases, one Markdown table
    python tools/bench_step.py --quick               # a tiny model and one repeat: does it run?
    python tools/bench_step.py --cases a,k8 --vision frozen --tuning full --repeats 5

Both sides get the same weights, rows, dtype, attention kernel and number of threads (Qwen2.5-VL architecture, random
weights, hidden 512, 8 layers, vocabulary 32,768, vision 6 layers). First they must agree on loss and gradients, or
nothing is timed. Every side then lives in a process of its own; the processes take steps in turn, in the opposite order
every other round, so that what else the machine does falls on all of them. Figures are medians; ratios are medians of
the ratios of a round. Working memory is the peak of a step less what stood before it (gradients included).

Sides: "trl" as it comes; "trl, head on responses" as it would be if it projected response positions only, which it does
where Triton runs; "separate rows" is our flat engine, so that its distance to "tree" is what the tree itself gives;
"tree, steady" has its reference log-probs in a table and, where vision is frozen, its features in a cache: the state of
every epoch but the first. The floor is the arithmetic of the tree step, each unique token once, at the rate at which
this machine multiplies large matrices.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from bench_sides import SIDES, Case, Setting, build_side, save_models  # noqa: E402
from bench_workers import Step, Worker  # noqa: E402

PEER, TREE = "trl", "tree"

SHAPES: dict[str, dict[str, int | str]] = {
    "a": {"name": "256 image tokens, 2 x 40", "prompts": 2, "responses": 2, "image_tokens": 256, "response_tokens": 40},
    "b": {
        "name": "1,024 image tokens, 2 x 128",
        "prompts": 1,
        "responses": 2,
        "image_tokens": 1024,
        "response_tokens": 128,
    },
    "k4": {
        "name": "256 image tokens, 4 x 40",
        "prompts": 1,
        "responses": 4,
        "image_tokens": 256,
        "response_tokens": 40,
    },
    "k8": {
        "name": "256 image tokens, 8 x 40",
        "prompts": 1,
        "responses": 8,
        "image_tokens": 256,
        "response_tokens": 40,
    },
}
LARGEST_DISAGREEMENT = {"float32": 3e-5, "bfloat16": 3e-2}
"""How far losses, and gradients over the largest gradient, may be apart."""


@dataclass(frozen=True)
class Measured:
    """What one side did in one case."""

    memory_mib: float
    steps: tuple[Step, ...]

    @property
    def wall_s(self) -> float:
        """Median of the clock."""
        return statistics.median(step.wall_s for step in self.steps)

    def times(self, other: Measured, clock: str = "wall_s") -> float:
        """Return how many times the other takes: the median over the rounds."""
        rounds = zip(self.steps, other.steps, strict=True)
        return statistics.median(getattr(theirs, clock) / getattr(ours, clock) for ours, theirs in rounds)


def main() -> None:
    """Measure what the command line asks for and print a Markdown table."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as directory:
        setting = Setting(*save_models(Path(directory), scale="tiny" if arguments.quick else "bench"))
        rate = matrix_rate(setting, arguments.threads)
        print(heading(setting, arguments.threads, rate), flush=True)
        print(TABLE_HEAD, flush=True)
        with Bench(setting, arguments.sides, arguments.threads) as bench:
            for case in cases_of(arguments):
                bench.require_agreement(case)
                # Other work while the rate was taken must not lower the floor.
                rate = max(rate, matrix_rate(setting, arguments.threads))
                measured, operations = bench.measure(case, arguments.repeats)
                print(table_rows(case, measured, operations / rate), flush=True)
        print(f"\nAt the end: load {os.getloadavg()[0]:.1f}, best rate of matrix products {rate / 1e9:,.0f} GFLOP/s.")


class Bench:
    """The processes of all sides, alive over all cases.

    Args:
        sides: keys of `bench_sides.SIDES`; the peer and the tree must be among them.
    """

    def __init__(self, setting: Setting, sides: Sequence[str], threads: int) -> None:
        self.setting, self.sides = setting, sides
        options = {"device": setting.device, "threads": threads}
        make = {name: partial(build_side, name, setting) for name in sides}
        self._timed = {name: Worker(make[name], **options) for name in sides}
        self._weighed = self._timed
        if setting.device == "cpu":
            self._weighed = {name: Worker(make[name], **options, returns_memory=True) for name in sides}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for worker in {*self._timed.values(), *self._weighed.values()}:
            worker.close()

    def require_agreement(self, case: Case) -> None:
        """Stop unless the peer and the tree compute the same loss and the same gradients."""
        self._weighed[PEER].build(case)
        loss, gradient = self._weighed[PEER].distance_to(partial(build_side, TREE, self.setting))
        allowed = LARGEST_DISAGREEMENT[self.setting.dtype]
        if not (loss <= allowed and gradient <= allowed):
            sys.exit(
                f"{case}: the sides do not compute the same: losses differ by {loss:.1e}, gradients by {gradient:.1e} "
                f"of the largest, allowed is {allowed:.0e}. Nothing is timed."
            )

    def measure(self, case: Case, repeats: int) -> tuple[dict[str, Measured], int]:
        """Return what each side did, and the arithmetic of a step of the tree."""
        memory = {}
        for name, worker in self._weighed.items():
            worker.build(case)
            memory[name] = worker.working_memory_mib()
        for name, worker in self._timed.items():
            if worker is not self._weighed[name]:
                worker.build(case)
            worker.step()
        steps: dict[str, list[Step]] = {name: [] for name in self.sides}
        for repeat in range(repeats):
            for name in self.sides if repeat % 2 == 0 else reversed(self.sides):
                steps[name].append(self._timed[name].step())
        operations = self._timed[TREE].floating_point_operations()
        return {name: Measured(memory[name], tuple(steps[name])) for name in self.sides}, operations


def cases_of(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield the cases that the command line names."""
    for shape in arguments.cases.split(","):
        for tuning in arguments.tuning.split(","):
            for vision in arguments.vision.split(","):
                yield Case(**SHAPES[shape], vision=vision, tuning=tuning)


def matrix_rate(setting: Setting, threads: int) -> float:
    """Return the machine's rate at large matrix products, in operations per second: the best of ten."""
    import torch

    torch.set_num_threads(threads)
    size = 8192 if setting.device == "cuda" else 2048
    left = torch.randn(size, size, device=setting.device, dtype=getattr(torch, setting.dtype))
    seconds = []
    for _ in range(10):
        before = time.perf_counter()
        left @ left
        if setting.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - before)
    return 2 * size**3 / min(seconds)


def heading(setting: Setting, threads: int, rate: float) -> str:
    """Return what a figure means nothing without."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    return (
        f"{date.today()}; {machine(setting.device)}, {threads} threads, load {os.getloadavg()[0]:.1f} at the start; "
        f"{setting.dtype}, {setting.attention}; {packages}; Python {platform.python_version()}; "
        f"matrix products at {rate / 1e9:,.0f} GFLOP/s.\n"
    )


def machine(device: str) -> str:
    """Return the name of the processor that computes."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} ({os.cpu_count()} cores)"


TABLE_HEAD = (
    "| case | vision | tuning | side | pairs/s | x trl | x trl, CPU time | MiB | trl MiB / its | x floor |\n"
    "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def table_rows(case: Case, measured: dict[str, Measured], floor_s: float) -> str:
    """Return the lines of one case, one per side; "x floor" is its time over the time of the tree's arithmetic."""
    peer, lines = measured[PEER], []
    for name, side in measured.items():
        cells = [case.name, case.vision, case.tuning] if name == PEER else ["", "", ""]
        cells += [
            name,
            f"{case.pairs / side.wall_s:.2f}",
            f"{side.times(peer):.2f}",
            f"{side.times(peer, 'cpu_s'):.2f}",
        ]
        cells += [f"{side.memory_mib:,.0f}", f"{peer.memory_mib / max(side.memory_mib, 1):.1f}"]
        lines.append("| " + " | ".join([*cells, f"{side.wall_s / floor_s:.2f}"]) + " |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(SHAPES), help="of " + ", ".join(SHAPES))
    parser.add_argument("--vision", default="trained,frozen")
    parser.add_argument("--tuning", default="full,lora")
    parser.add_argument("--sides", default=";".join(SIDES), help="separated by semicolons, of " + "; ".join(SIDES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true", help="tiny model, one repeat, first shape: does it run?")
    arguments = parser.parse_args()
    arguments.sides = arguments.sides.split(";")
    if arguments.quick:
        arguments.repeats, arguments.cases = 1, "a"
    return arguments


if __name__ == "__main__":
    main()
