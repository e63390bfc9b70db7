"""The near end of the decoder's process: ask it for a clip, within a time.

Each process that decodes has one child (`decoder_child.py`), started when the first video is met. It is started anew
after a crash, after a time limit, and every few hundred clips, because native decoders leak. Plain pipes and
`subprocess` serve where `multiprocessing` does not: in the workers of a DataLoader, which may have no such children.
The child ends with its parent, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import numpy as np

from mmalign.errors import DataError
from mmalign.modalities.clips import ClipShape, Refused, Taken, Thumbnails, Want, too_slow

_CLIPS_PER_CHILD = 300
_START_TIMEOUT_S = 60.0
_PIPE_BYTES = 1 << 20
Answer = tuple[dict[str, Any], np.ndarray | None]
"""Facts, and pixels where the question is about pixels."""

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from mmalign.modalities.decoder_child import serve; serve(int(sys.argv[2]))"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def shape(path: str | None, content: bytes, want: Want, timeout_s: float) -> ClipShape:
    """Return the shape of what `take` gives, decoding no more than one frame; arguments and errors as `ask`."""
    header, _ = ask("shape", path, content, want, timeout_s)
    return _shape_from(header)


def take(path: str | None, content: bytes, want: Want, timeout_s: float) -> Taken:
    """Return the frames of a file; arguments and errors as `ask`."""
    header, frames = ask("frames", path, content, want, timeout_s)
    return Taken(_shape_from(header), header["indices"], frames)


def _shape_from(header: dict[str, Any]) -> ClipShape:
    return ClipShape(**{**header["shape"], "timestamps_s": tuple(header["shape"]["timestamps_s"])})


def thumbnails(
    path: str | None, content: bytes, want: Want, timeout_s: float, *, width: int, height: int
) -> Thumbnails:
    """Return every frame of a file at one small size; arguments and errors as `ask`."""
    header, frames = ask("thumbnails", path, content, want, timeout_s, width=width, height=height)
    return Thumbnails(frames, header["times_s"], header["fps"])


def ask(verb: str, path: str | None, content: bytes, want: Want, timeout_s: float, **more: Any) -> Answer:
    """Return the decoder's facts and pixels, uint8 of the shape it says.

    A file that ends a child is tried once more, on a fresh one and without decord: other files may have worn the first
    child out, and decord may crash where PyAV does not.

    Args:
        verb: "shape", "frames" or "thumbnails".
        path: of the file, None when `content` is the file.
        content: the file when there is no path.
        want: which frames, how large, and what the child may allocate.
        timeout_s: longest time the answer may take.
        more: what else the verb needs.

    Raises:
        Refused: the file is refused, takes too long, or ends the child.
        DataError: no child can be started.
    """
    global _child
    request = {"verb": verb, "path": path, "want": dataclasses.asdict(want), **more}
    with _lock:
        for uses_decord in (True, False):
            if _child is None or not _child.serves(want.decode_memory_bytes):
                close()
                _child = _Child(want.decode_memory_bytes)
            try:
                return _child.ask({**request, "uses_decord": uses_decord}, content, timeout_s)
            except Refused:
                raise
            except _Ended as ended:
                close()
                how, timed_out = ended.how, ended.timed_out
            except BaseException:  # Ctrl-C, a signal, no memory: the answer it is going to give is nobody's
                close()
                raise
            if timed_out:
                raise too_slow(timeout_s)
        raise Refused("crashes the decoder", how)


def close() -> None:
    """End the child, if there is one; the next request starts another."""
    global _child
    ended, _child = _child, None
    if ended is not None:
        ended.end()


class _Ended(Exception):  # noqa: N818
    def __init__(self, *, timed_out: bool, how: str) -> None:
        super().__init__(how)
        self.timed_out, self.how = timed_out, how


class _Child:
    """One process of the decoder, what it may allocate, and how many clips it was asked for."""

    def __init__(self, memory_bytes: int) -> None:
        self.clips, self._memory_bytes = 0, memory_bytes
        command = [sys.executable, "-c", _PROGRAM, json.dumps([str(place) for place in sys.path]), str(memory_bytes)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, **_ONE_THREAD},
        )
        with contextlib.suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._within(_START_TIMEOUT_S, self._header)
        except _Ended as ended:
            self.end()
            hint = "try `python -c 'import av, decord'`; install the packages of pyproject.toml"
            raise DataError(f"the video decoder cannot be started: {ended.how}; {hint}") from None
        except BaseException:
            self.end()
            raise

    def serves(self, memory_bytes: int) -> bool:
        """Tell whether it is fit for another clip, within this memory."""
        return self.clips < _CLIPS_PER_CHILD and self._memory_bytes == memory_bytes

    def ask(self, request: dict[str, Any], content: bytes, timeout_s: float) -> Answer:
        self.clips += 1
        more = {"number": self.clips, "timeout_s": timeout_s, "content_bytes": len(content)}
        line = json.dumps({**request, **more}).encode("ascii") + b"\n"
        header, pixels = self._within(timeout_s, lambda: self._exchange(line, content))
        if "refused" in header:
            raise Refused(header["refused"], header["hint"])
        return header, pixels

    def end(self) -> None:
        """Kill the process and leave nothing of it behind."""
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close the pipes without ending the process: it belongs to the parent of a fork."""
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    def _within(self, timeout_s: float, exchange: Any) -> Any:
        """Run `exchange`; a timer kills the process when it takes too long, which ends the reading."""
        timed_out = threading.Event()  # of this exchange alone: a timer may fire when the answer is there already

        def give_up() -> None:
            timed_out.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            return exchange()
        except (OSError, EOFError) as error:
            raise _Ended(timed_out=timed_out.is_set(), how=self._how_it_ended()) from error
        finally:
            timer.cancel()

    def _exchange(self, line: bytes, content: bytes) -> Answer:
        for part in (line, content):
            left = memoryview(part)
            while left:
                left = left[self._process.stdin.write(left) :]
        header = self._header()
        if header["number"] != self.clips:
            raise _Ended(timed_out=False, how="it answered another question")
        if "pixels" not in header:
            return header, None
        pixels = np.empty(header["pixels"], dtype=np.uint8)
        left = memoryview(pixels).cast("B")
        while left:
            count = self._process.stdout.readinto(left)
            if not count:
                raise EOFError
            left = left[count:]
        return header, pixels

    def _header(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return json.loads(line)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"it was ended by {name}" + (" (out of memory?)" if name in ("SIGKILL", "SIGABRT") else "")


_child: _Child | None = None
_lock = threading.RLock()


def _after_fork() -> None:
    """Leave the parent's child to the parent; a lock that another thread held at the fork is made anew."""
    global _child, _lock
    _lock = threading.RLock()
    if _child is not None:
        _child.forget()
        _child = None


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
