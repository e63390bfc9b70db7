"""One process per side, kept alive and asked for one step at a time, so that sides alternate and never share memory."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench_sides import compare

MIB = 2**20
_QUIET_S = 0.3
"""Pause before a step, for the threads of the side that just stepped to go to sleep."""


@dataclass(frozen=True)
class Step:
    """One timed step: seconds on the clock, seconds of all cores, and the loss."""

    wall_s: float
    cpu_s: float
    loss: float


class Worker:
    """A side in a process of its own; builds one case after the other.

    Args:
        make: a case -> the side, which has `step()` and `model`; it is sent to the process.
        device: "cpu" or "cuda".
        threads: of its matrix products.
        returns_memory: give every freed tensor back to the system at once, so that resident memory is what is in use.
            Costs time, so it is not for timing.

    Raises:
        RuntimeError: the side could not be built or a step failed; carries the other process's traceback.
    """

    def __init__(
        self, make: Callable[[Any], Any], *, device: str = "cpu", threads: int, returns_memory: bool = False
    ) -> None:
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        environment |= {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
        environment |= {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024)} if returns_memory else {}
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, make, device, threads), daemon=True)
        self._environment = environment

    def build(self, case: Any) -> None:
        """Build the side for a case, in place of the one before."""
        self._ask("build", case)

    def step(self) -> Step:
        """Take one step."""
        time.sleep(_QUIET_S)
        return Step(*self._ask("step"))

    def working_memory_mib(self) -> float:
        """Take two steps; return the peak of the second less what stood before it. Gradients belong to the step."""
        return self._ask("memory")

    def floating_point_operations(self) -> int:
        """Take one step and return its arithmetic, counted by torch."""
        return self._ask("operations")

    def distance_to(self, other: Callable[[Any], Any]) -> tuple[float, float]:
        """Build another side in the same process and return the distance of losses and of gradients."""
        return self._ask("distance", other)

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._pipe.send(("quit",))
            self._process.join(timeout=30)

    def _ask(self, *question):
        if self._process.pid is None:
            with _environment(self._environment):
                self._process.start()
        self._pipe.send(question)
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"a side's process ended with code {self._process.exitcode}; out of memory?") from None
        if not good:
            raise RuntimeError(answer)
        return answer


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(pipe: Connection, make: Callable[[Any], Any], device: str, threads: int) -> None:
    """Answer until asked to quit."""
    try:
        import torch
        import transformers

        logging.disable(logging.WARNING)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        desk = _Desk(make, device)
        while (question := pipe.recv())[0] != "quit":
            pipe.send((True, getattr(desk, question[0])(*question[1:])))
    except Exception:
        pipe.send((False, traceback.format_exc()))


class _Desk:
    """Answers the questions of `Worker`, inside the side's process."""

    def __init__(self, make: Callable[[Any], Any], device: str) -> None:
        self.make, self.device, self.side = make, device, None

    def build(self, case: Any) -> None:
        self.side = None
        gc.collect()
        self.case, self.side = case, self.make(case)

    def step(self) -> tuple[float, float, float]:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        loss = self.side.step()
        self._wait()
        return time.perf_counter() - wall, time.process_time() - cpu, loss

    def memory(self) -> float:
        self.side.step()
        self.side.model.zero_grad(set_to_none=True)
        gc.collect()
        return _cuda_peak_mib(self.side) if self.device == "cuda" else _resident_peak_mib(self.side)

    def operations(self) -> int:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.side.step()
        return counter.get_total_flops()

    def distance(self, other: Callable[[Any], Any]) -> tuple[float, float]:
        return compare(self.side, other(self.case))

    def _wait(self) -> None:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def _resident_peak_mib(side) -> float:
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status_mib("VmRSS")
    side.step()
    return _status_mib("VmHWM") - before


def _cuda_peak_mib(side) -> float:
    import torch

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side.step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024
