"""The decoder's process: it answers one request after another on its pipes until they close. Imports no torch.

Native decoders crash, hang and leak, and none of that may touch the process that trains. A request is a line of JSON,
followed by the bytes of the file when it comes as bytes; an answer is a line of JSON, followed by the pixels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
from typing import Any, BinaryIO

import numpy as np

from mmalign.modalities.animation import Animation, is_animation
from mmalign.modalities.clips import FrameReader, Refused, Want, shape_of, take, thumbnails
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video_file import VideoFile

_GRACE_S = 5.0
"""The parent ends a slow child; should it be gone, the child ends itself this much later."""


def serve(memory_bytes: int) -> None:
    """Answer requests on standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print must not mix with answers
    _limit_memory(memory_bytes)
    requests: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()
    # A thread of its own notices that the parent is gone while a decoder hangs.
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    _send(answers, {})
    with open(os.devnull, "w") as nowhere:
        while True:
            request, content = requests.get()
            faulthandler.dump_traceback_later(request["timeout_s"] + _GRACE_S, exit=True, file=nowhere)
            header, pixels = answer(request, content)
            faulthandler.cancel_dump_traceback_later()
            header["number"] = request["number"]  # by which the parent knows which question this answers
            _send(answers, header if pixels is None else {**header, "pixels": pixels.shape}, pixels)


def _listen(pipe: BinaryIO, requests: queue.SimpleQueue) -> None:
    status = 1  # without memory for a request, or with half of one, nothing sensible can be answered
    try:
        while line := pipe.readline():
            request = json.loads(line)
            requests.put((request, pipe.read(request["content_bytes"])))
        status = 0
    finally:
        os._exit(status)


def _send(pipe: BinaryIO, header: dict[str, Any], pixels: np.ndarray | None = None) -> None:
    with contextlib.suppress(BrokenPipeError):
        pipe.write(json.dumps(header).encode("ascii") + b"\n")
        left = memoryview(b"") if pixels is None else memoryview(pixels).cast("B")
        while left:
            left = left[pipe.write(left) :]


def _limit_memory(memory_bytes: int) -> None:
    """Bound what this process may allocate, where the system can."""
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def answer(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return what is sent back: facts and pixels, or the rule that the file breaks."""
    try:
        want = _want(request["want"])
        reader = _reader(content if request["path"] is None else request["path"], want, request["uses_decord"])
        if request["verb"] == "shape":
            return {"shape": dataclasses.asdict(shape_of(reader, want))}, None
        if request["verb"] == "thumbnails":
            frames, times_s, fps = thumbnails(reader, request["width"], request["height"])
            return {"times_s": times_s, "fps": fps}, frames
        taken = take(reader, want)
        return {"shape": dataclasses.asdict(taken.shape), "indices": taken.indices}, taken.frames
    except Refused as refused:
        return {"refused": refused.rule, "hint": refused.hint}, None
    except MemoryError:
        return {"refused": "needs too much memory", "hint": "lower max_decoded_pixels or the number of frames"}, None
    except Exception as error:  # libraries raise whatever broken bytes lead them to
        return {"refused": "is truncated or broken", "hint": f"{type(error).__name__}: {error}"}, None


def _want(raw: dict[str, Any]) -> Want:
    listed = {name: None if raw[name] is None else tuple(raw[name]) for name in ("span_s", "frame_indices")}
    return Want(**{**raw, **listed, "sampling": Sampling(**raw["sampling"])})


def _reader(source: str | bytes, want: Want, uses_decord: bool) -> FrameReader:
    return Animation(source, want) if is_animation(source) else VideoFile(source, want, uses_decord=uses_decord)
