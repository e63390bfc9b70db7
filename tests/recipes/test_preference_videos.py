"""Text, images and videos in one run: the same curve on one rank and on two, after a kill, and when a video breaks."""

import base64
import json
import shutil

import pytest
import videos
from processes import started
from training_runs import (
    assert_close,
    assert_same_run,
    final_weights,
    lose_a_medium,
    metrics,
    on_two_ranks,
    recipe,
    run,
    run_until,
    wait_for_line,
    write_rows,
)

from mmalign.modalities import decoder, video
from mmalign.modalities.clips import Refused

FEW_AND_SMALL = {"frames": 4, "max_pixels": 3136}
STEPS = {"train__max_steps": 7, "train__save_steps": 3}


@pytest.fixture(scope="module")
def mixed_rows(tmp_path_factory):
    """Nine rows: text, an image, a video file, and so on; the last video is carried in its row as bytes."""
    directory = tmp_path_factory.mktemp("rows")
    names = {2: "a.mp4", 5: "b.mp4", 8: "c.mp4"}
    for row, name in names.items():
        videos.write(directory / name, videos.numbered(3 * row), fps=5)
    inside = base64.b64encode((directory / "c.mp4").read_bytes()).decode()
    return write_rows(directory, 9, text_only=(0, 3, 6), videos={**names, 8: f"data:video/mp4;base64,{inside}"})


@pytest.fixture(scope="module")
def settings(tiny_model, mixed_rows):
    def make(output_dir, name="qwen2_5_vl", **changes):
        changes = {"data__video": FEW_AND_SMALL, **STEPS, **changes}
        return recipe(tiny_model(name), mixed_rows, output_dir, **changes)

    return make


def quarantined(output_dir):
    return [json.loads(line) for line in (output_dir / "quarantine.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen2_5_vl", {"data__num_workers": 2}),
        ("llava_onevision", {"model__freeze": ["vision"], "train__max_tokens_per_batch": 200}),
    ],
    ids=["loaded by two workers", "batches by tokens, shared tower"],
)
def test_a_run_on_real_videos_is_killed_and_resumed_bit_for_bit(tmp_path, tiny_model, shared_data, name, changes):
    folder = tmp_path / "rows"
    shutil.copytree(shared_data / "video", folder)
    files = dict(enumerate(["baby_reading.mp4", "cooking.avi", "flipping_a_pancake.mkv"]))
    rows = write_rows(folder, 8, text_only=(3, 6), videos={**files, 7: "cooking.avi"})
    changes = {"data__video": FEW_AND_SMALL, **STEPS, **changes}
    run(recipe(tiny_model(name), rows, tmp_path / "straight", **changes))
    process = started(run, recipe(tiny_model(name), rows, tmp_path / "killed", **changes))
    wait_for_line(tmp_path / "killed", 4)
    process.kill()
    process.join(timeout=60)
    assert not (tmp_path / "killed" / "final").exists()
    run(recipe(tiny_model(name), rows, tmp_path / "killed", **changes), resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "straight")


def test_the_corrupt_real_video_is_refused_before_training(tmp_path, tiny_model, shared_data):
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copy(shared_data / "video" / "corrupted.mp4", folder)
    rows = write_rows(folder, 3, videos={1: "corrupted.mp4"})
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", data__max_refused_share=0.5))
    (refusal,) = quarantined(tmp_path / "run")
    assert refusal["row"] == 2 and refusal["reason"].startswith("video ")


def test_resuming_decodes_no_frames_of_the_steps_before(tmp_path, settings, monkeypatch):
    run_until(6, settings(tmp_path / "run"), monkeypatch)
    decoded, load = [], video.load
    monkeypatch.setattr(video, "load", lambda ref, *args, **how: decoded.append(ref) or load(ref, *args, **how))
    run(settings(tmp_path / "run"), resume=True)
    assert len(decoded) <= 3  # step 7 reads four of the nine rows, and three of the nine have a video


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sharded"), [("qwen2_5_vl", False), ("smolvlm", True)], ids=["DDP", "FSDP2"])
def test_a_rank_with_text_and_one_with_videos_give_the_curve_of_one(tmp_path, tiny_model, settings, name, sharded):
    """Rows are dealt by length, longest first: of two one-row batches a step one holds a video, the other is text."""
    directory = tmp_path / "rows"
    directory.mkdir()
    videos.write(directory / "a.mp4", videos.numbered(8), fps=5)
    rows = write_rows(directory, 8, text_only=(0, 2, 4, 7), videos={1: "a.mp4", 3: "a.mp4", 6: "a.mp4"})
    one = {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2, "train__shuffle": False}
    changes = {"data__video": FEW_AND_SMALL, "train__max_steps": 4, "train__save_steps": None}
    changes |= {"model__precompute_reference": sharded}
    run(recipe(tiny_model(name), rows, tmp_path / "one", **changes, **one))
    two = recipe(
        tiny_model(name), rows, tmp_path / "two", **changes, **{**one, "train__gradient_accumulation_steps": 1}
    )
    on_two_ranks(two, sharded=sharded)
    assert_close(metrics(tmp_path / "two")[:1], metrics(tmp_path / "one")[:1], 1e-5)
    assert_close(metrics(tmp_path / "two"), metrics(tmp_path / "one"), 5e-4)
    first, second = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    assert max((first[key] - second[key]).abs().max() for key in first) < 2e-3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_breaks_costs_its_row_and_not_the_run(tmp_path, settings, mixed_rows, monkeypatch, workers):
    kept = (mixed_rows.parent / "b.mp4").read_bytes()
    lose_a_medium(monkeypatch, lambda: (mixed_rows.parent / "b.mp4").write_bytes(kept[:200]))
    try:
        run(settings(tmp_path / "run", data__num_workers=workers, data__max_refused_share=0.2))
    finally:
        (mixed_rows.parent / "b.mp4").write_bytes(kept)
    assert len(metrics(tmp_path / "run")) == 7
    (refusal,) = quarantined(tmp_path / "run")
    assert refusal["row"] == 6 and refusal["reason"].startswith("video ")


@pytest.mark.parametrize("rule", ["crashes the decoder", "takes too long to decode"])
def test_a_decoder_that_crashes_or_hangs_costs_its_row(tmp_path, settings, monkeypatch, rule):
    take = decoder.take

    def take_or_die(path, *args):
        if path is not None and path.endswith("a.mp4"):
            raise Refused(rule)
        return take(path, *args)

    monkeypatch.setattr(decoder, "take", take_or_die)
    run(settings(tmp_path / "run", data__max_refused_share=0.2))
    assert [refusal["reason"] for refusal in quarantined(tmp_path / "run")] == [f"video {rule}"]
    assert len(metrics(tmp_path / "run")) == 7


def test_other_frames_are_other_rows_and_a_cache_is_not(tmp_path, settings, capsys):
    short = {"train__max_steps": 1, "train__save_steps": None}
    run(settings(tmp_path / "run", **short))
    prepared = (tmp_path / "run" / "data" / "train" / "prepared.json").read_text()
    cached = {**FEW_AND_SMALL, "cache_dir": str(tmp_path / "frames")}
    shutil.copytree(tmp_path / "run" / "data", tmp_path / "again" / "data")
    run(settings(tmp_path / "again", data__video=cached, **short))
    assert (tmp_path / "again" / "data" / "train" / "prepared.json").read_text() == prepared
    assert list((tmp_path / "frames").rglob("*.safetensors"))
    shutil.copytree(tmp_path / "run" / "data", tmp_path / "fewer" / "data")
    run(settings(tmp_path / "fewer", data__video={**FEW_AND_SMALL, "frames": 2}, **short))
    assert (tmp_path / "fewer" / "data" / "train" / "prepared.json").read_text() != prepared
    assert metrics(tmp_path / "again") == metrics(tmp_path / "run") != metrics(tmp_path / "fewer")
