"""The decoder's process when the process that asks is interrupted: no answer ever reaches another question."""

import signal
import threading
import time
from pathlib import Path

import pytest
from videos import number_of, numbered, write

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import decoder, video
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits

# Of this child, `slow.mp4` takes a second for its answer.
_SLOW = """
import json, os, sys, time
sys.path[:] = json.loads(sys.argv[1])
from mmalign.modalities import decoder_child
honest, send = decoder_child.answer, decoder_child._send
def answer(request, content):
    if (request["path"] or "").endswith("slow.mp4"): time.sleep(1)
    return honest(request, content)
def twice(pipe, header, pixels=None):
    if header.get("number") == 1: send(pipe, {**header, "number": 0}, pixels)
    send(pipe, header, pixels)
decoder_child.answer = answer
"""
_SERVE = "decoder_child.serve(int(sys.argv[2]))"


@pytest.fixture
def fresh():
    decoder.close()
    yield
    decoder.close()


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "slow.mp4", numbered(5))
    write(tmp_path / "good.mp4", numbered(8)[5:])
    return tmp_path


def ref(name: str) -> MediaRef:
    return MediaRef(kind="video", uri=name)


def limits_in(folder, **values) -> VideoLimits:
    return VideoLimits(root=folder, sampling=Sampling(policy="uniform", frames=64), **values)


def numbers(name: str, limits: VideoLimits) -> list[int]:
    return [number_of(frame) for frame in video.load(ref(name), limits).frames]


class _Interrupted(BaseException):
    pass


def test_after_an_interruption_the_next_video_is_itself(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", _SLOW + _SERVE)
    limits = limits_in(folder, cache_dir=str(folder / "cache"))
    video.check(ref("good.mp4"), limits)

    def interrupt(*_):
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(_Interrupted):
            video.load(ref("slow.mp4"), limits)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert numbers("good.mp4", limits) == [5, 6, 7] == numbers("good.mp4", limits)


def test_an_answer_to_another_question_ends_the_child(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", _SLOW + "decoder_child._send = twice\n" + _SERVE)
    started = time.monotonic()
    with pytest.raises(RowError, match="video crashes the decoder .*it answered another question"):
        video.check(ref("good.mp4"), limits_in(folder))
    assert time.monotonic() - started < 30  # at once, and not when the time for the file is over


def test_a_timer_that_fires_behind_the_answer_refuses_no_other_file(folder, fresh, monkeypatch):
    class Late(threading.Timer):
        """Fires when it is told that it need not."""

        def cancel(self):
            super().cancel()
            self.function(*self.args)

    video.check(ref("good.mp4"), limits_in(folder))
    with monkeypatch.context() as late:
        late.setattr(decoder.threading, "Timer", Late)
        assert numbers("good.mp4", limits_in(folder)) == [5, 6, 7]
    assert numbers("good.mp4", limits_in(folder)) == [5, 6, 7]


def test_a_child_without_memory_for_a_request_ends_at_once(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", decoder._PROGRAM.replace("int(sys.argv[2])", str(200 << 20)))
    large = MediaRef(kind="video", content=(folder / "good.mp4").read_bytes() + bytes(300 << 20))
    started = time.monotonic()
    with pytest.raises(RowError, match="video crashes the decoder .*ended with status 1"):
        video.check(large, limits_in(folder))
    assert time.monotonic() - started < 20
    assert numbers("good.mp4", limits_in(folder)) == [5, 6, 7]


def test_bytes_are_bounded_below_the_memory_of_the_child(folder):
    content = Path(folder / "good.mp4").read_bytes()
    limits = limits_in(folder, decode_memory_bytes=4 * (len(content) - 1))
    for verb in (video.check, video.load):
        with pytest.raises(RowError, match=f"video file is too large .*at most {len(content) - 1:,} bytes are read"):
            verb(MediaRef(kind="video", content=content), limits)
    assert video.check(ref("good.mp4"), limits_in(folder)).frames == 3
