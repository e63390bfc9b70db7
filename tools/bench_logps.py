"""Log-probs of response tokens, forward and backward: ours against `log_softmax` and `gather`, in time and memory.

    python tools/bench_logps.py
    python tools/bench_logps.py --tokens 512 --tile-mib 8,32,128

Each way runs in a process of its own; the processes take turns. Memory is the peak of a step less what stood before it,
the gradients of hidden states and head included. Hidden width 1,024, vocabulary 152,064, float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import torch  # noqa: E402
from bench_workers import Worker  # noqa: E402

VOCABULARY, WIDTH = 152_064, 1024


class LogpsSide:
    """One way to score N tokens, as a side of `bench_workers`."""

    def __init__(self, way: str, case: tuple[int, bool]) -> None:
        tokens, frozen = case
        generator = torch.Generator().manual_seed(0)
        self._hidden = torch.randn(tokens, WIDTH, generator=generator).requires_grad_()
        weight = 0.02 * torch.randn(VOCABULARY, WIDTH, generator=generator)
        self.model = torch.nn.ParameterDict({"weight": torch.nn.Parameter(weight, requires_grad=not frozen)})
        self._targets = torch.randint(0, VOCABULARY, (tokens,), generator=generator)
        self._score = self._ours if way.startswith("ours") else self._plain
        if "/" in way:
            from mmalign.engine import tiles

            tiles.TILE_BYTES = int(way.split("/")[1]) * 2**20

    def step(self) -> float:
        """Score, and make the gradients."""
        self._hidden.grad = None
        self.model.zero_grad(set_to_none=True)
        loss = -self._score().mean()
        loss.backward()
        return float(loss.detach())

    def _plain(self) -> torch.Tensor:
        logits = self._hidden @ self.model["weight"].T
        return logits.log_softmax(-1).gather(1, self._targets[:, None])

    def _ours(self) -> torch.Tensor:
        from mmalign.engine.logps import response_logps

        return response_logps(self._hidden, self.model["weight"], None, self._targets)


def main() -> None:
    """Measure and print a Markdown table."""
    arguments = _arguments()
    ways = ["log_softmax and gather", *(f"ours, tiles of/{size}/MiB" for size in arguments.tile_mib.split(","))]
    timed = {way: Worker(partial(LogpsSide, way), threads=arguments.threads) for way in ways}
    weighed = {way: Worker(partial(LogpsSide, way), threads=arguments.threads, returns_memory=True) for way in ways}
    print(f"{arguments.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}\n")
    print("| tokens | head | way | s | CPU s | MiB |\n| ---: | --- | --- | ---: | ---: | ---: |")
    for tokens in map(int, arguments.tokens.split(",")):
        for frozen in (False, True):
            for way in ways:
                timed[way].build((tokens, frozen))
                weighed[way].build((tokens, frozen))
            memory = {way: weighed[way].working_memory_mib() for way in ways}
            rounds = [{way: timed[way].step() for way in ways} for _ in range(arguments.repeats + 1)][1:]
            for way in ways:
                wall, cpu = (statistics.median(getattr(r[way], c) for r in rounds) for c in ("wall_s", "cpu_s"))
                cells = [tokens, "frozen" if frozen else "trained", way.replace("/", " ")]
                cells += [f"{wall:.2f}", f"{cpu:.2f}", f"{memory[way]:,.0f}"]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for worker in (*timed.values(), *weighed.values()):
        worker.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="64,512,2048")
    parser.add_argument("--tile-mib", default="32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    return parser.parse_args()


if __name__ == "__main__":
    main()
