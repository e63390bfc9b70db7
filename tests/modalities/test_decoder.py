"""The decoder's process: whatever a file does to it, the process that asks goes on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from videos import number_of, numbered, write

from mmalign.errors import DataError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import decoder, video
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits

ROOT = Path(__file__).resolve().parents[2]

# The program of the child, with one verb that misbehaves when the file's name says so.
_MISBEHAVING = """
import json, os, signal, sys, time
sys.path[:] = json.loads(sys.argv[1])
from mmalign.modalities import decoder_child
honest = decoder_child.answer
def answer(request, content):
    path = request["path"] or ""
    if path.endswith("segfault.mp4"): os.kill(os.getpid(), signal.SIGSEGV)
    if path.endswith("killed.mp4"): os.kill(os.getpid(), signal.SIGKILL)
    if path.endswith("hangs.mp4"): time.sleep(60)
    if path.endswith("decords.mp4") and request["uses_decord"]: os.abort()
    if path.endswith("prints.mp4"): os.write(1, b"a library says hello\\n")
    return honest(request, content)
decoder_child.answer = answer
decoder_child.serve(int(sys.argv[2]))
"""


@pytest.fixture
def fresh():
    decoder.close()
    yield
    decoder.close()


@pytest.fixture
def misbehaving(fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", _MISBEHAVING)


def ref(name: str) -> MediaRef:
    return MediaRef(kind="video", uri=name)


def limits_in(folder, **values) -> VideoLimits:
    return VideoLimits(root=folder, sampling=Sampling(policy="uniform", frames=64), **values)


def child_pid() -> int:
    return decoder._child._process.pid


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def folder(tmp_path):
    for name in ("good.mp4", "segfault.mp4", "killed.mp4", "hangs.mp4", "prints.mp4", "decords.mp4"):
        write(tmp_path / name, numbered(5))
    return tmp_path


def test_one_child_serves_many_clips(folder, fresh):
    first = [number_of(frame) for frame in video.load(ref("good.mp4"), limits_in(folder)).frames]
    pid = child_pid()
    for _ in range(3):
        video.load(ref("good.mp4"), limits_in(folder))
    assert (child_pid(), first) == (pid, [0, 1, 2, 3, 4])


def test_a_child_is_replaced_after_many_clips(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_CLIPS_PER_CHILD", 2)
    pids = []
    for _ in range(4):
        video.load(ref("good.mp4"), limits_in(folder))
        pids.append(child_pid())
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert not is_running(pids[0])


@pytest.mark.parametrize(("name", "how"), [("segfault.mp4", "SIGSEGV"), ("killed.mp4", r"SIGKILL \(out of memory\?\)")])
def test_a_crash_of_the_decoder_is_a_bad_row(folder, misbehaving, name, how):
    video.check(ref("good.mp4"), limits_in(folder))
    for verb in (video.check, video.load):
        with pytest.raises(RowError, match=f"videos.0.: video crashes the decoder .*ended by {how}") as error:
            verb(ref(name), limits_in(folder), field="videos[0]")
        assert error.value.reason == "video crashes the decoder"
    assert video.load(ref("good.mp4"), limits_in(folder)).source_frames == 5


def test_where_decord_crashes_pyav_is_asked(folder, misbehaving):
    assert [number_of(f) for f in video.load(ref("decords.mp4"), limits_in(folder)).frames] == [0, 1, 2, 3, 4]


def test_without_decord_pyav_serves_alone(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", "import sys; sys.modules['decord'] = None; " + decoder._PROGRAM)
    assert [number_of(f) for f in video.load(ref("good.mp4"), limits_in(folder)).frames] == [0, 1, 2, 3, 4]


def test_a_file_that_hangs_is_refused_after_its_time(folder, misbehaving):
    video.check(ref("good.mp4"), limits_in(folder))
    pid, started = child_pid(), time.monotonic()
    with pytest.raises(RowError, match="video takes too long to decode .*more than decode_timeout_s = 0.4"):
        video.load(ref("hangs.mp4"), limits_in(folder, decode_timeout_s=0.4))
    assert time.monotonic() - started < 3
    assert not is_running(pid)
    assert video.load(ref("good.mp4"), limits_in(folder)).source_frames == 5


def test_what_libraries_print_does_not_mix_with_pixels(folder, misbehaving):
    assert [number_of(f) for f in video.load(ref("prints.mp4"), limits_in(folder)).frames] == [0, 1, 2, 3, 4]


def test_a_child_killed_from_outside_costs_no_row(tmp_path, fresh):
    write(tmp_path / "long.mp4", numbered(28) * 20, codec="libx264", options={"preset": "ultrafast"})
    video.check(ref("long.mp4"), limits_in(tmp_path))
    killer = threading.Timer(0.03, os.kill, (child_pid(), signal.SIGKILL))
    killer.start()
    clip = video.load(ref("long.mp4"), limits_in(tmp_path))
    killer.join()
    assert clip.source_frames == 560
    assert [number_of(frame) for frame in clip.frames] == [index % 28 for index in clip.indices]


def test_a_child_that_cannot_be_started_is_no_fault_of_the_row(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(DataError, match="the video decoder cannot be started: it ended with status 3; try") as error:
        video.check(ref("good.mp4"), limits_in(folder))
    assert not isinstance(error.value, RowError)


def test_a_clip_that_needs_too_much_memory_is_refused(folder, fresh, monkeypatch):
    monkeypatch.setattr(decoder, "_PROGRAM", decoder._PROGRAM.replace("int(sys.argv[2])", str(400 << 20)))
    with pytest.raises(RowError, match="video needs too much memory .*lower max_decoded_pixels"):
        video.load(ref("good.mp4"), limits_in(folder, min_pixels=60_000_000))
    assert video.load(ref("good.mp4"), limits_in(folder)).source_frames == 5


def test_a_child_has_the_memory_that_is_asked_for(folder, fresh):
    pids = []
    for memory_bytes in (4 * 10**9, 5 * 10**8, 5 * 10**8):
        assert video.load(ref("good.mp4"), limits_in(folder, decode_memory_bytes=memory_bytes)).source_frames == 5
        limits = Path(f"/proc/{child_pid()}/limits").read_text()
        assert int(limits.partition("Max data size")[2].split()[0]) == memory_bytes
        pids.append(child_pid())
    assert pids[0] != pids[1] == pids[2]


def test_a_long_clip_needs_no_more_memory_than_its_taken_frames(tmp_path, fresh):
    frame = np.full((1080, 1920, 3), 90, dtype=np.uint8)  # 6.2 MB each, 547 MB together
    write(tmp_path / "long.mp4", [frame] * 88, codec="libx264", options={"preset": "ultrafast"}, gop=30)
    limits = VideoLimits(root=tmp_path, sampling=Sampling(policy="uniform", frames=44), max_pixels=10_000)
    video.check(ref("long.mp4"), limits)
    before = peak_bytes(child_pid())
    assert video.load(ref("long.mp4"), limits).frames.shape[0] == 44
    assert peak_bytes(child_pid()) - before < 100 << 20


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def run_program(program: str, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


_PARENT = """
import sys, time
from mmalign.formats.media import MediaRef
from mmalign.modalities import decoder, video
from mmalign.modalities.video import VideoLimits
decoder._PROGRAM = sys.argv[2] or decoder._PROGRAM
video.check(MediaRef(kind="video", uri="good.mp4"), VideoLimits(root=sys.argv[1]))
print(decoder._child._process.pid, flush=True)
if sys.argv[2]: video.check(MediaRef(kind="video", uri="hangs.mp4"), VideoLimits(root=sys.argv[1]))
time.sleep(60 if sys.argv[3] else 0)
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_no_child_outlives_a_parent_that_is_killed(folder, hangs):
    parent = run_program(_PARENT, str(folder), _MISBEHAVING if hangs else "", "waits")
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    time.sleep(0.2 if hangs else 0.0)
    parent.kill()
    parent.communicate()
    assert until(lambda: not is_running(pid))


def test_no_child_outlives_a_parent_that_ends(folder):
    parent = run_program(_PARENT, str(folder), "", "")
    pid = int(parent.stdout.readline())
    parent.communicate()
    assert parent.returncode == 0
    assert until(lambda: not is_running(pid))


def test_the_child_imports_no_torch(folder, fresh):
    video.check(ref("good.mp4"), limits_in(folder))
    libraries = Path(f"/proc/{child_pid()}/maps").read_text()
    assert "libtorch" not in libraries
    assert "av.libs" in libraries or "libav" in libraries


class Clips:
    """A data set that tells which frames were seen, and by which child of which worker."""

    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return 6

    def __getitem__(self, place):
        clip = video.load(ref("good.mp4"), limits_in(self.folder))
        return [number_of(frame) for frame in clip.frames], os.getpid(), child_pid()


def test_workers_of_a_loader_have_children_of_their_own(folder, fresh):
    from torch.utils.data import DataLoader

    video.check(ref("good.mp4"), limits_in(folder))  # the parent has one before the workers are forked
    own = child_pid()
    answers = list(DataLoader(Clips(folder), batch_size=None, num_workers=2, collate_fn=list))
    assert {tuple(numbers) for numbers, _, _ in answers} == {(0, 1, 2, 3, 4)}
    workers = {worker: child for _, worker, child in answers}
    assert len(set(workers.values()) | {own}) == len(workers) + 1 == 3
    assert until(lambda: not any(is_running(child) for child in workers.values()))
    assert is_running(own)
    video.load(ref("good.mp4"), limits_in(folder))
    assert child_pid() == own


def test_threads_take_turns(folder, fresh):
    numbers = []

    def work():
        numbers.append([number_of(frame) for frame in video.load(ref("good.mp4"), limits_in(folder)).frames])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [[0, 1, 2, 3, 4]] * 4
