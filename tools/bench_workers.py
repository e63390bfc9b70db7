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
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from bench_sides import Case, Setting

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
    """A side in a process of its own.

    Args:
        name: key of `bench_sides.SIDES`.
        threads: of its matrix products.

    Raises:
        RuntimeError: the side could not be built or a step failed; carries the other process's traceback.
    """

    def __init__(self, name: str, setting: Setting, case: Case, *, threads: int) -> None:
        os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="false")
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, name, setting, case, threads), daemon=True)
        self._process.start()
        self._answer()

    def step(self) -> Step:
        """Take one step."""
        time.sleep(_QUIET_S)
        return Step(*self._ask("step"))

    def working_memory_mib(self) -> float:
        """Take one step and return its peak memory less what stood before it, in MiB. Gradients belong to the step."""
        return self._ask("memory")

    def floating_point_operations(self) -> int:
        """Take one step and return its arithmetic, counted by torch."""
        return self._ask("operations")

    def distance_to(self, other: str) -> tuple[float, float]:
        """Build another side in the same process and return the distance of losses and of gradients."""
        return self._ask(f"distance {other}")

    def close(self) -> None:
        """End the process."""
        self._pipe.send("quit")
        self._process.join(timeout=30)

    def _ask(self, what: str):
        self._pipe.send(what)
        return self._answer()

    def _answer(self):
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(
                f"the process of a side ended with code {self._process.exitcode}; out of memory?"
            ) from None
        if not good:
            raise RuntimeError(answer)
        return answer


def _serve(pipe: Connection, name: str, setting: Setting, case: Case, threads: int) -> None:
    """Build a side and answer until asked to quit."""
    try:
        import torch
        import transformers
        from bench_sides import SIDES, build_side, compare

        logging.disable(logging.WARNING)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(threads)
        side = build_side(name, setting, case)
        answers = {
            "step": lambda: _timed(side, setting.device),
            "memory": lambda: _peak_mib(side, setting.device),
            "operations": lambda: _operations(side),
            **{f"distance {n}": lambda n=n: compare(side, build_side(n, setting, case)) for n in SIDES},
        }
        pipe.send((True, None))
        while (question := pipe.recv()) != "quit":
            pipe.send((True, answers[question]()))
    except Exception:
        pipe.send((False, traceback.format_exc()))


def _timed(side, device: str) -> tuple[float, float, float]:
    import torch

    gc.collect()
    before = time.perf_counter(), time.process_time()
    loss = side.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - before[0], time.process_time() - before[1], loss


def _operations(side) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        side.step()
    return counter.get_total_flops()


def _peak_mib(side, device: str) -> float:
    """Return the peak of one step above what stood before it."""
    gc.collect()
    if device == "cuda":
        return _cuda_peak_mib(side)
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give freed memory back, or a step could hide in it
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status_mib("VmRSS")
    side.step()
    return _status_mib("VmHWM") - before


def _cuda_peak_mib(side) -> float:
    import torch

    side.model.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side.step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 1024
