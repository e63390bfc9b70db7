"""Ctrl-C and SIGTERM: finish the step, save, then leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Interrupted(SystemExit):
    """The run was asked to stop and has saved a checkpoint; `code` is 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        number: the signal.
        checkpoint: what was saved.
    """

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(128 + number)
        self.checkpoint = checkpoint

    def __str__(self) -> str:
        name = signal.Signals(self.code - 128).name
        return f"stopped by {name}; saved {self.checkpoint}; run again with --resume to go on"


class StopRequest:
    """Whether somebody asked this process to stop, and by which signal."""

    number: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn the first SIGINT or SIGTERM into a request; a second one acts as it always did.

    Outside the main thread, where Python takes no signals, the request simply never comes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        request.number = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
