"""What goes wrong in a run is said in words, and never reaches the weights."""

import errno
import json
import os
import shutil
import signal

import pytest
import torch
from pictures import encoded, noise
from safetensors import SafetensorError
from training_runs import final_weights, lose_a_medium, metrics, recipe, run, write_rows

from mmalign.errors import CheckpointError, DataError, ModelError, TrainingError
from mmalign.train import held_out as held_out_module
from mmalign.train import state, step
from mmalign.train.checkpoint import checkpoints


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows", 12, text_only=(5,))


def quarantined(output_dir):
    return [json.loads(line) for line in (output_dir / "quarantine.jsonl").read_text().splitlines()]


def lose_a_picture(monkeypatch, path):
    lose_a_medium(monkeypatch, lambda: path.unlink(missing_ok=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_vanishes_costs_its_row_and_not_the_run(tmp_path, tiny_model, rows, monkeypatch, workers):
    lose_a_picture(monkeypatch, rows.parent / "3.png")
    changes = {"data__max_refused_share": 0.2, "data__num_workers": workers, "train__max_steps": 6}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **changes))
    assert len(metrics(tmp_path / "run")) == 6
    (refusal,) = quarantined(tmp_path / "run")
    assert (refusal["file"], refusal["row"], refusal["reason"]) == ("rows.jsonl", 4, "image is missing")


def test_a_row_that_vanishes_is_replaced_by_nothing(tmp_path, tiny_model, rows, monkeypatch):
    """The curve is that of the rows without it: step 1 reads rows 1 to 4, of which the fourth is gone."""
    order = {"train__shuffle": False, "train__max_steps": 1, "data__max_refused_share": 0.5}
    with monkeypatch.context() as patch:
        lose_a_picture(patch, rows.parent / "3.png")
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "lost", **order))
    three = rows.with_name("three.jsonl")
    three.write_text("".join(rows.read_text().splitlines(keepends=True)[:3]))
    run(recipe(tiny_model("qwen2_5_vl"), three, tmp_path / "three", **order))
    lost, without = metrics(tmp_path / "lost")[0], metrics(tmp_path / "three")[0]
    assert lost["loss"] == pytest.approx(without["loss"], rel=1e-6)
    assert lost["grad_norm"] == pytest.approx(without["grad_norm"], rel=1e-5)


def test_pictures_that_vanish_in_numbers_stop_the_run(tmp_path, tiny_model, rows, monkeypatch):
    lose_a_picture(monkeypatch, rows.parent / "3.png")
    with pytest.raises(
        DataError, match=r"1 rows could not be loaded so far.*bring the files back, and go on with --resume"
    ):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__max_steps=6))


@pytest.mark.parametrize("place", ["train", "eval"])
def test_a_picture_that_vanishes_is_on_record_also_when_only_the_reference_wants_it(
    tmp_path, tiny_model, rows, monkeypatch, place
):
    held_out = write_rows(tmp_path / "held_out", 5)
    lose_a_picture(monkeypatch, (rows if place == "train" else held_out).parent / "3.png")
    changes = {"model__precompute_reference": True, "data__eval": str(held_out), "train__max_steps": 2}
    with pytest.raises(DataError, match=rf"reference log-probs of {place} rows: 1 rows could not be loaded so far"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **changes))
    assert [refusal["row"] for refusal in quarantined(tmp_path / "run")] == [4]
    lenient = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", data__max_refused_share=0.3, **changes)
    run(lenient, resume=True)
    assert len(metrics(tmp_path / "run")) == 2


def test_a_held_out_picture_that_vanishes_is_on_record_and_many_stop_the_run(tmp_path, tiny_model, rows, monkeypatch):
    held_out = write_rows(tmp_path / "held_out", 5)
    lose_a_picture(monkeypatch, held_out.parent / "3.png")
    changes = {"data__eval": str(held_out), "train__max_steps": 2, "train__eval_steps": 1}
    with pytest.raises(DataError, match="evaluation after step 1: 1 rows could not be loaded so far"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **changes))
    assert [refusal["row"] for refusal in quarantined(tmp_path / "run")] == [4]
    lenient = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", data__max_refused_share=0.3, **changes)
    run(lenient, resume=True)
    assert ["eval_loss" in line for line in metrics(tmp_path / "run")] == [True, True]


def test_no_held_out_row_at_all_gives_no_held_out_loss(tmp_path, tiny_model, rows, monkeypatch):
    held_out = write_rows(tmp_path / "held_out", 1)
    lose_a_picture(monkeypatch, held_out.parent / "0.png")
    changes = {"data__eval": str(held_out), "train__max_steps": 1, "data__max_refused_share": 1.0}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **changes))
    assert not [name for name in metrics(tmp_path / "run")[0] if name.startswith("eval_")]


def test_a_signal_during_evaluation_stops_the_run_right_after_it(tmp_path, tiny_model, rows, monkeypatch):
    held_out = write_rows(tmp_path / "held_out", 3)

    def asked_to_stop(learner, loaded):
        os.kill(os.getpid(), signal.SIGTERM)
        return step.forward(learner, loaded)

    monkeypatch.setattr(held_out_module, "forward", asked_to_stop)
    changes = {"data__eval": str(held_out), "train__max_steps": 3, "train__eval_steps": 1}
    changes["train__per_device_eval_batch_size"] = 3
    with pytest.raises(SystemExit) as stopped:
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **changes))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert [(line["step"], "eval_loss" in line) for line in metrics(tmp_path / "run")] == [(1, True)]
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].name == "step-00000001"


def test_a_step_that_is_not_finite_is_not_taken(tmp_path, tiny_model, rows, monkeypatch):
    """A learning rate that throws the weights out of range: step 2 sees it, names its rows, and does not step."""
    stepped = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *args: stepped.append(1) or step(self, *args))
    with pytest.raises(
        TrainingError, match=r"step 2: loss nan, .*not finite.*weights are those of step 1. Rows: rows.jsonl:"
    ):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__learning_rate=1e30, train__shuffle=False))
    assert len(stepped) == 1
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1]


def test_a_gradient_that_is_not_finite_stops_the_run_too(tmp_path, tiny_model, rows, monkeypatch):
    from mmalign.train import step

    monkeypatch.setattr(step, "_with_gradient", lambda loss, policy: loss * torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match=r"step 1: loss \d.*, gradient norm (inf|nan); a number is not finite"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run"))


def test_a_full_disk_at_a_checkpoint_leaves_the_one_before(tmp_path, tiny_model, rows, monkeypatch):
    save, saved = state.save_optimizer, []

    def full_at_the_second(optimizer, model, path):
        saved.append(path)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(optimizer, model, path)

    values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__save_steps=1)
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_optimizer", full_at_the_second)
        with pytest.raises(CheckpointError, match="step-00000002 could not be written .*No space left.*step-00000001"):
            run(values)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000001"]
    run(values, resume=True)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error")])
def test_a_full_disk_at_the_end_leaves_the_last_checkpoint(tmp_path, tiny_model, rows, monkeypatch, error):
    def full(*arguments):
        raise error

    monkeypatch.setattr(state, "save_for_use", full)
    values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__max_steps=1)
    with pytest.raises(CheckpointError, match=r"trained model could not be written.*goes on from .*step-00000001"):
        run(values)
    monkeypatch.undo()
    run(values, resume=True)
    assert final_weights(tmp_path / "run")


def test_bytes_inside_rows_are_stored_once_and_found_again(tmp_path, tiny_model):
    import base64

    picture = base64.b64encode(encoded(noise(56, 28))).decode()
    source = tmp_path / "rows.jsonl"
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    answers = [[{"role": "assistant", "content": text}] for text in ("A cat", "Nothing")]
    row = {
        "prompt": prompt,
        "images": [f"data:image/png;base64,{picture}"],
        "chosen": answers[0],
        "rejected": answers[1],
    }
    source.write_text("".join(json.dumps(row) + "\n" for _ in range(4)))
    run(recipe(tiny_model("qwen2_5_vl"), source, tmp_path / "run", train__max_steps=1))
    stored = [path for path in (tmp_path / "run" / "data" / "media").rglob("*") if path.is_file()]
    assert len(stored) == 1
    assert picture not in (tmp_path / "run" / "data" / "train" / "rows.jsonl").read_text()


def test_a_run_directory_may_be_moved_and_resumed(tmp_path, tiny_model, rows):
    values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__max_steps=3)
    run(values)
    weights = final_weights(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    values["train"]["output_dir"] = str(tmp_path / "moved")
    run(values, resume=True)
    assert final_weights(tmp_path / "moved").keys() == weights.keys()


def test_single_answers_give_a_comparison_nothing(tmp_path, tiny_model, rows):
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    for number in range(5):
        turns = [("user", "<image>What is it?"), ("assistant", f"It is {number}.")]
        messages = [{"role": role, "content": content} for role, content in turns]
        lines[number] = {"messages": messages, "images": lines[number]["images"]}
    mixed = rows.with_name("mixed.jsonl")
    mixed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    only_dpo = {"objective": [{"name": "dpo"}], "data__max_refused_share": 0.6}
    run(recipe(tiny_model("qwen2_5_vl"), mixed, tmp_path / "dpo", **only_dpo))
    reasons = {refusal["reason"] for refusal in quarantined(tmp_path / "dpo")}
    assert reasons == {"row gives the objective nothing to compare"}
    run(recipe(tiny_model("qwen2_5_vl"), mixed, tmp_path / "both"))
    assert quarantined(tmp_path / "both") == []


def test_a_model_directory_without_processor_stops_before_the_rows(tmp_path, tiny_model, rows):
    model = shutil.copytree(tiny_model("qwen2_5_vl"), tmp_path / "model")
    for name in ("processor_config.json", "preprocessor_config.json"):
        (model / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="image processor"):
        run(recipe(model, rows, tmp_path / "run"))


def test_too_many_bad_rows_stop_before_the_model_is_loaded(tmp_path, tiny_model, rows, monkeypatch):
    from mmalign.recipes import training

    monkeypatch.setattr(training, "load_policy", None)
    for number in (0, 1, 2):
        (rows.parent / f"{number}.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"3 of 12 rows .*not in a known format: 3; .*raise data.max_refused_share"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run"))


def test_a_tracker_that_is_not_installed_is_named(tmp_path, tiny_model, rows):
    from mmalign.errors import ConfigError

    with pytest.raises(ConfigError, match="report_to names clearml, which is not installed"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__report_to=["clearml"]))


def test_tensorboard_gets_the_metrics(tmp_path, tiny_model, rows):
    pytest.importorskip("tensorboard")
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", train__report_to=["tensorboard"]))
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
