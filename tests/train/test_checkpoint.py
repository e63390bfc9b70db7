"""Checkpoints exist whole or not at all, and belong to one run."""

import errno
import os
import signal

import pytest
from processes import started

from mmalign.errors import CheckpointError
from mmalign.train.checkpoint import Position, checkpoints, latest, prune, read_position, writing

IDENTITY = {"train.seed": 42, "data.train": "abc"}


def save(root, step, identity=IDENTITY):
    with writing(root, Position(step=step, num_tokens=7 * step), identity) as directory:
        (directory / "model").mkdir()
        (directory / "model" / "weights").write_bytes(b"w" * step)
    return latest(root)


def test_the_newest_checkpoint_is_found_with_its_position(tmp_path):
    save(tmp_path, 3)
    path = save(tmp_path, 11)
    assert path.name == "step-00000011"
    assert read_position(path, IDENTITY) == Position(step=11, num_tokens=77)


def test_no_checkpoint_is_no_error(tmp_path):
    assert latest(tmp_path / "checkpoints") is None


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 3)
    save(tmp_path, 3)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000003"]


def test_only_the_newest_are_kept_and_rests_of_killed_processes_removed(tmp_path):
    for step in (2, 3, 5, 7):
        save(tmp_path, step)
    (tmp_path / ".unfinished-step-00000011").mkdir()
    (tmp_path / ".doomed-step-00000001").mkdir()
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000007"]
    prune(tmp_path, keep=None)
    assert len(checkpoints(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["missing", "short", "no manifest", "broken manifest"])
def test_a_damaged_checkpoint_is_never_picked_up(tmp_path, damage):
    whole, damaged = save(tmp_path, 3), save(tmp_path, 5)
    weights, manifest = damaged / "model" / "weights", damaged / "checkpoint.json"
    {
        "missing": weights.unlink,
        "short": lambda: weights.write_bytes(b"w"),
        "no manifest": manifest.unlink,
        "broken manifest": lambda: manifest.write_text('{"files"'),
    }[damage]()
    assert latest(tmp_path) == whole


def die_while_writing(root):
    with writing(root, Position(step=5), {}) as directory:
        (directory / "weights").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_killed_while_writing_leaves_the_earlier_checkpoint(tmp_path):
    whole = save(tmp_path, 3)
    killed = started(die_while_writing, tmp_path)
    killed.join(timeout=60)
    assert killed.exitcode == -signal.SIGKILL
    assert (tmp_path / ".unfinished-step-00000005").exists()
    assert latest(tmp_path) == whole


def test_a_full_disk_is_said_in_words_and_leaves_the_earlier_checkpoint(tmp_path):
    whole = save(tmp_path, 3)
    said = "No space left on device.*last whole checkpoint is .*step-00000003"
    with pytest.raises(CheckpointError, match=said), writing(tmp_path, Position(step=5), IDENTITY):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert latest(tmp_path) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]


def test_a_checkpoint_of_another_run_names_what_differs(tmp_path):
    path = save(tmp_path, 3)
    with pytest.raises(CheckpointError, match=r"train.seed: 42 in the checkpoint, 43 now"):
        read_position(path, {**IDENTITY, "train.seed": 43})
    with pytest.raises(CheckpointError, match=r"data.new: None in the checkpoint, 1 now"):
        read_position(path, {**IDENTITY, "data.new": 1})
