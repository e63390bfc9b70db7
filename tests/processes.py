"""Processes of their own for tests, forked from one that has imported everything and computed nothing.

A fresh interpreter imports torch and transformers for seconds. A fork of the testing process starts at once, but cannot
go backward after any test did so here: autograd's threads do not survive a fork. The server that `multiprocessing`
forks from has neither fault; it starts with the first process and ends with this one.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["pytest", "torch.distributed", "mmalign.recipes.preference", "mmalign.recipes.sft"])


def started(target: Callable[..., Any], *arguments: Any, log: Path | None = None) -> BaseProcess:
    """Start `target(*arguments)`, which is found by its name, in a process of its own.

    Args:
        log: file for the traceback if there is one.
    """
    process = _SERVER.Process(target=_call, args=(target, arguments, log))
    process.start()
    return process


def finish_together(target: Callable[..., Any], argument_lists: list[tuple[Any, ...]], log: Path) -> None:
    """Run a process for each list of arguments side by side and check that all end well.

    Args:
        log: folder for tracebacks.
    """
    logs = [log / f"process-{number}.log" for number in range(len(argument_lists))]
    processes = [started(target, *arguments, log=path) for arguments, path in zip(argument_lists, logs, strict=True)]
    _wait(processes)
    said = "\n".join(path.read_text() for path in logs if path.exists())
    assert [process.exitcode for process in processes] == [0] * len(processes), said


def finish_ranks(target: Callable[..., Any], arguments: tuple[Any, ...], log: Path, *, ranks: int = 2) -> None:
    """Run `target(*arguments)` as every rank of a group, as `torchrun` would, and check that all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group["ACCELERATE_USE_CPU"] = "true"
    variables = [group | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    finish_together(_as_rank, [(names, target, arguments) for names in variables], log)


def _as_rank(variables: Mapping[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(variables)
    target(*arguments)


def _call(target: Callable[..., Any], arguments: tuple[Any, ...], log: Path | None) -> None:
    try:
        target(*arguments)
    except Exception:
        if log is not None:
            log.write_text(traceback.format_exc())
        raise


def _wait(processes: list[BaseProcess], seconds: float = 300.0) -> None:
    """Wait until all have ended; when one fails, the others would wait for it without end and are ended too."""
    deadline = time.monotonic() + seconds
    while any(process.is_alive() for process in processes):
        if time.monotonic() > deadline or any(process.exitcode not in (None, 0) for process in processes):
            for process in processes:
                process.kill()
        time.sleep(0.02)
