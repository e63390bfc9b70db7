"""Training under changed media: the same run as tree, as separate rows, from a table, from a cache, after a kill."""

import json
from math import log

import pytest
import torch
import videos
from accelerate import PartialState
from torch.nn.functional import logsigmoid
from training_runs import (
    assert_close,
    assert_same_run,
    configured,
    final_weights,
    metrics,
    on_two_ranks,
    recipe,
    run,
    run_until,
    write_rows,
)

from mmalign.engine.load import load_model
from mmalign.engine.policy import Policy
from mmalign.objectives.compose import build
from mmalign.recipes import plan, training
from mmalign.train.rundir import RunDirectory

MDPO = {"objective": [{"name": "mdpo"}], "train__max_steps": 4, "train__save_steps": 2}
FEW_AND_SMALL = {"frames": 4, "fps": 5.0, "max_pixels": 3136}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("rows"), 6)


@pytest.fixture(scope="module")
def one(tmp_path_factory, tiny_model, rows):
    """A run that nothing disturbed."""
    output_dir = tmp_path_factory.mktemp("runs") / "one"
    run(recipe(tiny_model("qwen2_5_vl"), rows, output_dir, **MDPO))
    return output_dir


def quarantined(output_dir):
    return [json.loads(line)["reason"] for line in (output_dir / "quarantine.jsonl").read_text().splitlines()]


def test_mdpo_starts_at_three_times_ln2(one):
    first = metrics(one)[0]
    assert first["loss"] == pytest.approx(3 * log(2), abs=1e-6)
    assert {name for name in first if name.startswith("loss/")} == {"loss/mdpo", "loss/mdpo_visual", "loss/mdpo_anchor"}


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "flat"},
        {"model__precompute_reference": True},
        {"data__num_workers": 1, "train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
        {"train__max_tokens_per_batch": 200},
    ],
    ids=["separate rows", "a table", "another cut by another process", "cut by tokens"],
)
def test_the_run_is_the_same_however_it_is_computed(tmp_path, tiny_model, rows, one, changes):
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "other", **MDPO, **changes))
    other, expected = metrics(tmp_path / "other"), metrics(one)
    assert other[0]["loss"] == pytest.approx(expected[0]["loss"], abs=1e-5)
    assert_close(other[1:], expected[1:], 2e-3)


@pytest.mark.parametrize("name", ["povid", "chip"])
def test_the_first_loss_is_ln2_and_the_last_is_lower(tmp_path, tiny_model, rows, name):
    """povid's too: policy and reference find the same likeliest tokens while they are the same model."""
    run(recipe(tiny_model("llava"), rows, tmp_path / "run", objective=[{"name": name}], train__learning_rate=1e-2))
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert losses[0] == pytest.approx(log(2), abs=1e-5)
    assert losses[-1] < losses[0]


def test_v_dpo_begins_with_what_its_guidance_makes_of_what_is_seen(tmp_path, tiny_model, rows):
    """Where policy and reference are one, G = (guidance - 1) (S - S(c))."""
    changes = {"objective": [{"name": "v_dpo", "beta": 0.5, "guidance": 1.5}], "train__shuffle": False}
    values = recipe(tiny_model("llava"), rows, tmp_path / "run", **changes, train__max_steps=1)
    values["train"] |= {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 1}
    run(values)
    config, start = configured(values), values["model"]["path"]
    objective = build(config.objective)
    place = RunDirectory(tmp_path / "rows again")
    prepared = training.prepare_rows(config, place, start, objective, PartialState())
    reader = training.reader_of(prepared.train, prepared.train_tokeniser, objective, read_again=False)
    batch = reader[tuple(range(6))].batch
    with torch.no_grad():
        logps = Policy(load_model(start))(batch).masked_fill(~batch.response_mask, 0.0).sum(-1)
    looked = logps[:6] - logps[6:]  # the rows, then the rows in the view
    expected = -logsigmoid(0.5 * 0.5 * (looked[:, 0] - looked[:, 1])).mean().item()
    assert metrics(tmp_path / "run")[0]["loss"] == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(log(2), abs=1e-4)


def test_answers_judged_one_by_one_beside_changed_media_are_the_same_as_separate_rows(tmp_path, tiny_model, rows):
    both = {**MDPO, "objective": [{"name": "kto"}, {"name": "mdpo"}]}
    for engine in ("tree", "flat"):
        run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / engine, **both, engine=engine))
    tree, flat = metrics(tmp_path / "tree"), metrics(tmp_path / "flat")
    assert tree[0]["loss/kto"] == pytest.approx(0.5, abs=1e-5)  # policy and reference are one
    assert tree[0]["loss/mdpo_visual"] == pytest.approx(log(2), abs=1e-5)
    assert_close(tree[1:], flat[1:], 2e-3)


def test_a_shared_tower_and_its_features_on_disk_know_the_views(tmp_path, tiny_model, rows):
    frozen = {**MDPO, "model__freeze": ["vision"]}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "apart", **frozen, vision__share="off"))
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "shared", **frozen))
    cached = {**frozen, "vision__cache_dir": str(tmp_path / "features")}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "cached", **cached))
    for name in ("shared", "cached"):
        assert_close(metrics(tmp_path / name), metrics(tmp_path / "apart"), 1e-4)
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) == 12  # six pictures, as they are and cut out


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path, tiny_model, rows, one, monkeypatch):
    values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "killed", **MDPO)
    run_until(3, values, monkeypatch)
    run(values, resume=True)
    assert_same_run(tmp_path / "killed", one)


@pytest.mark.slow
def test_two_ranks_give_the_curve_of_one(tmp_path, tiny_model, rows, one):
    half = {"train__per_device_train_batch_size": 2, "train__gradient_accumulation_steps": 1}
    on_two_ranks(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "two", **MDPO, **half))
    other, expected = metrics(tmp_path / "two"), metrics(one)
    assert other[0]["loss"] == pytest.approx(expected[0]["loss"], abs=1e-5)
    assert_close(other[1:], expected[1:], 2e-3)


def test_rows_without_media_are_quarantined_by_name(tmp_path, tiny_model):
    rows = write_rows(tmp_path / "rows", 4, text_only=(1,))
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **MDPO, data__max_refused_share=0.5))
    assert quarantined(tmp_path / "run") == [
        "row has no media to change, and the objective compares with changed media"
    ]


def test_the_plan_counts_every_view(tmp_path, tiny_model, rows):
    make = lambda name, **changes: plan.run(  # noqa: E731
        configured(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / name, **changes)), memory_gb=8.0
    )
    plain, visual = make("plain", objective=[{"name": "dpo"}]), make("visual", objective=[{"name": "mdpo"}])
    prompt, media, _, responses, _ = plain.rows.lengths[:, 0].astype(int).T
    seen = visual.rows.lengths.astype(int)
    assert visual.rows.views == ("crop",)
    assert (seen[:, 0] == plain.rows.lengths[:, 0]).all()
    assert (seen[:, 1, 0] == prompt).all()
    assert (seen[:, 1, 1] == media).all()
    assert (seen[:, 1, 4] == 1).all()  # of the two responses the better one alone
    assert (visual.rows.tokens("tree") == 2 * prompt + responses + seen[:, 1, 3]).all()
    assert visual.batches.largest.rows == 2 * plain.batches.largest.rows


@pytest.mark.parametrize("contrast", ["shuffle", "drop", "black"])
def test_frames_of_videos_are_changed_too(tmp_path, tiny_model, contrast):
    names = {row: f"{row}.mp4" for row in range(4)}
    for row, name in names.items():
        (tmp_path / "rows").mkdir(exist_ok=True)
        videos.write(tmp_path / "rows" / name, videos.numbered(4 + row), fps=5)
    rows = write_rows(tmp_path / "rows", 5, videos=names)
    objective = [{"name": "mdpo", "contrast": contrast}]
    values = recipe(
        tiny_model("qwen2_5_vl"),
        rows,
        tmp_path / "run",
        objective=objective,
        data__video=FEW_AND_SMALL,
        data__max_refused_share=0.5,
    )
    run(values)
    still = "picture has no order in time to change"
    assert quarantined(tmp_path / "run") == ([] if contrast == "black" else [still])
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert losses[0] == pytest.approx(3 * log(2), abs=1e-6)
    assert losses[-1] < losses[0]


def test_what_a_rejected_answer_saw_is_the_other_side(tmp_path, tiny_model):
    """Rows as ms-swift has them: `rejected_images` beside `images`."""
    rows = write_rows(tmp_path / "rows", 4)
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    swift = [
        {
            "messages": [
                {"role": "user", "content": "<image>What is it?"},
                {"role": "assistant", "content": line["chosen"][0]["content"]},
            ],
            "rejected_response": line["rejected"][0]["content"],
            "images": line["images"],
            "rejected_images": [f"{(number + 1) % 4}.png"],
        }
        for number, line in enumerate(lines)
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in swift))
    objective = [{"name": "mixed_image"}]
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=objective))
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    assert losses[0] == pytest.approx(log(2), abs=1e-6)
    assert losses[-1] < losses[0]
    table = {"model__precompute_reference": True}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "table", objective=objective, **table))
    assert_close(metrics(tmp_path / "table"), metrics(tmp_path / "run"), 1e-4)
    assert final_weights(tmp_path / "run").keys() == final_weights(tmp_path / "table").keys()


def test_rows_of_vistadpo_are_compared_at_every_level(tmp_path, tiny_model):
    folder = tmp_path / "rows"
    folder.mkdir()
    for number, name in enumerate(["whole.mp4", "good.mp4", "bad.mp4", "frame.mp4"]):
        videos.write(folder / name, videos.numbered(8 - number), fps=5)
    line = {
        "video": "whole.mp4",
        "prompt": "What does he put on the stove?",
        "chosen": "He puts a red kettle on the stove.",
        "rejected": "He puts a pan on the stove.",
        "rejected_2": "He reads a book on the sofa.",
        "bbox": "'x': 5.0, 'y': 7.0, 'w': 20.0, 'h': 30.0",
        "clip_w": "good.mp4",
        "clip_l": "bad.mp4",
        "frame": "frame.mp4",
    }
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({**line, "id": str(number)}) + "\n" for number in range(4)))
    values = recipe(
        tiny_model("qwen2_5_vl"), rows, tmp_path / "run", objective=[{"name": "vista_dpo"}], data__video=FEW_AND_SMALL
    )
    run(values)
    first, last = metrics(tmp_path / "run")[0], metrics(tmp_path / "run")[-1]
    assert first["loss"] == pytest.approx((1 + 0.8 + 0.6 + 0.4 + 0.1) * log(2), abs=1e-6)
    terms = [f"loss/vista_dpo{level}" for level in ("", "_video", "_clip", "_frame", "_token")]
    assert all(last[name] < log(2) for name in terms)
