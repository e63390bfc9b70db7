"""An interrupted run that is resumed is the run that was not: same lines, same weights, bit for bit."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from processes import started
from training_runs import (
    assert_same_run,
    assert_same_weights,
    command,
    environment,
    final_weights,
    metrics,
    recipe,
    run,
    run_until,
    wait_for_line,
    write_rows,
)

from mmalign.config.load import load
from mmalign.errors import CheckpointError, ConfigError
from mmalign.modalities import image
from mmalign.train import checkpoint
from mmalign.train.checkpoint import checkpoints

STEPS, SAVE_STEPS = 11, 3
ROWS = 18  # 5 steps of 4 rows an epoch, the last with 2: the run crosses two epochs


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), ROWS, text_only=(3, 8))


@pytest.fixture(scope="module")
def settings(tiny_model, rows):
    def make(output_dir, **changes):
        changes = {"train__max_steps": STEPS, "train__save_steps": SAVE_STEPS, **changes}
        return recipe(tiny_model("qwen2_5_vl"), rows, output_dir, **changes)

    return make


@pytest.fixture(scope="module")
def straight(tmp_path_factory, settings):
    """A run that nobody interrupts."""
    output_dir = tmp_path_factory.mktemp("straight") / "run"
    run(settings(output_dir))
    return output_dir


@pytest.mark.parametrize("lines", [2, 7], ids=["before the first checkpoint", "inside the second epoch"])
def test_killed_at_some_moment_and_resumed(tmp_path, settings, straight, lines):
    process = started(run, settings(tmp_path / "run"))
    wait_for_line(tmp_path / "run", lines)
    process.kill()
    process.join(timeout=60)
    assert not (tmp_path / "run" / "final").exists()
    run(settings(tmp_path / "run"), resume=True)
    assert_same_run(tmp_path / "run", straight)


def run_until_step_6_is_written(values):
    """Run, and die when the files of step 6 are written but the checkpoint is not yet in its place."""
    flush = checkpoint._flush

    def flush_or_die(directory):
        if "00000006" in directory.name:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(directory)

    checkpoint._flush = flush_or_die
    run(values)


def test_killed_while_a_checkpoint_is_written_and_resumed(tmp_path, settings, straight):
    process = started(run_until_step_6_is_written, settings(tmp_path / "run"))
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
    assert (tmp_path / "run" / "checkpoints" / ".unfinished-step-00000006").exists()
    run(settings(tmp_path / "run"), resume=True)
    assert_same_run(tmp_path / "run", straight)
    assert not (tmp_path / "run" / "checkpoints" / ".unfinished-step-00000006").exists()


def test_ctrl_c_saves_a_checkpoint_and_exits_with_130(tmp_path, settings, straight):
    process = started(run, settings(tmp_path / "run", train__save_steps=None, data__num_workers=1))
    wait_for_line(tmp_path / "run", 4)
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 130
    assert len(checkpoints(tmp_path / "run" / "checkpoints")) == 1
    run(settings(tmp_path / "run", train__save_steps=None), resume=True)
    assert_same_run(tmp_path / "run", straight)


def test_sigterm_saves_a_checkpoint_says_so_and_exits_with_143(tmp_path, settings, straight):
    line = command(settings(tmp_path / "run", train__save_steps=None))
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_line(tmp_path / "run", 4)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    (saved,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert f"stopped by SIGTERM; saved {saved}; run again with --resume to go on" in said
    assert "Traceback" not in said
    run(settings(tmp_path / "run", train__save_steps=None), resume=True)
    assert_same_run(tmp_path / "run", straight)


def test_adapters_resume_bit_for_bit(tmp_path, settings, monkeypatch):
    changes = {"model__lora": {"rank": 4, "alpha": 8.0}, "model__freeze": ["vision"], "data__num_workers": 1}
    run(settings(tmp_path / "straight", **changes))
    run_until(8, settings(tmp_path / "run", **changes), monkeypatch)
    run(settings(tmp_path / "run", **changes), resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_a_precomputed_reference_is_used_again(tmp_path, settings, straight, monkeypatch):
    from mmalign.engine.reference_table import ReferenceTable

    run_until(8, settings(tmp_path / "run", model__precompute_reference=True), monkeypatch)
    monkeypatch.setattr(ReferenceTable, "write", None)
    run(settings(tmp_path / "run", model__precompute_reference=True), resume=True)
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, STEPS + 1))


def test_resuming_decodes_no_media_of_the_steps_before(tmp_path, settings, monkeypatch):
    run_until(10, settings(tmp_path / "run"), monkeypatch)
    decoded = []
    decode = image.decode
    monkeypatch.setattr(
        image, "decode", lambda content, ref, *args, **how: decoded.append(ref) or decode(content, ref, *args, **how)
    )
    run(settings(tmp_path / "run"), resume=True)
    assert len(decoded) <= 2 * 4  # steps 10 and 11, four rows each


def test_resuming_a_finished_run_changes_nothing(tmp_path, settings, straight):
    before = metrics(straight), final_weights(straight)
    result = run(settings(straight), resume=True)
    assert metrics(straight) == before[0]
    assert_same_weights(final_weights(straight), before[1])
    assert result.metrics[-1]["step"] == STEPS


def test_a_finished_run_is_not_overwritten(settings, straight):
    with pytest.raises(ConfigError, match="is not empty .*checkpoints, final, metrics.jsonl.*--resume, name another"):
        run(settings(straight))


def test_nothing_to_resume_is_said(tmp_path, settings):
    with pytest.raises(CheckpointError, match="there is no run to resume"):
        run(settings(tmp_path / "never"), resume=True)


def test_another_learning_rate_is_another_run(settings, straight):
    before = [(straight / name).read_text() for name in ("config.yaml", "manifest.json")]
    with pytest.raises(CheckpointError, match=r"train.learning_rate: 0.001 in the checkpoint, 0.002 now"):
        run(settings(straight, train__learning_rate=0.002), resume=True)
    assert [(straight / name).read_text() for name in ("config.yaml", "manifest.json")] == before


def test_other_rows_are_another_run(tmp_path, settings, straight, rows):
    changed = tmp_path / "rows.jsonl"
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    lines[0]["chosen"][0]["content"] = "Something else"
    changed.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(CheckpointError, match="belongs to another run"):
        run(settings(straight, data__train=str(changed), data__root=str(rows.parent)), resume=True)


@pytest.mark.parametrize("which", ["model", "reference"])
def test_other_weights_under_the_same_name_are_another_run(tmp_path, settings, tiny_model, which):
    """The files keep their names and sizes, as when the run that this one starts from was repeated."""
    named = {"model": tmp_path / "model", "reference": tmp_path / "reference"}
    for place in named.values():
        shutil.copytree(tiny_model("qwen2_5_vl"), place)
    values = settings(tmp_path / "run", train__max_steps=1, model__reference=str(named["reference"]))
    values["model"]["path"] = str(named["model"])
    run(values)
    shutil.copytree(tiny_model("qwen2_5_vl", seed=3), named[which], dirs_exist_ok=True)
    with pytest.raises(CheckpointError, match=f"belongs to another run:\n  {which}: "):
        run(values, resume=True)


def test_other_held_out_rows_are_another_run(tmp_path, settings):
    held_out = write_rows(tmp_path / "held_out", 2, text_only=(0, 1))
    values = settings(tmp_path / "run", train__max_steps=1, data__eval=str(held_out))
    run(values)
    held_out.write_text(held_out.read_text().replace("It is", "It was"))
    with pytest.raises(CheckpointError, match="held_out_rows"):
        run(values, resume=True)


def test_what_no_number_depends_on_may_change(tmp_path, settings, straight):
    run(settings(straight, train__save_steps=5, train__save_total_limit=1, data__num_workers=1), resume=True)
    assert load(straight / "config.yaml").train.save_steps == 5


def test_ranks_may_be_traded_for_accumulation(settings, straight):
    cut = {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4}
    run(settings(straight, **cut), resume=True)


def test_only_the_newest_checkpoints_are_kept(tmp_path, settings):
    run(settings(tmp_path / "run", train__save_steps=2, train__save_total_limit=2))
    kept = [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")]
    assert kept == ["step-00000010", "step-00000011"]
