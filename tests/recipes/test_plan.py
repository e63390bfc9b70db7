"""`mmalign plan`: what it finds, what it proposes, and what it leaves alone."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import videos
from safetensors.torch import load_file
from training_runs import recipe as recipe_values
from training_runs import write_rows
from transformers import AutoConfig

from mmalign.cli import main
from mmalign.config.load import from_values
from mmalign.engine.teacher_table import TeacherTable
from mmalign.errors import ConfigError, DataError, ModelError
from mmalign.recipes import plan, plan_teacher
from mmalign.recipes.configuration import load_recipe
from mmalign.train.rows import COLUMNS

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = REPOSITORY / "configs" / "miniature" / "preference_qwen2_5_vl.yaml"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The miniature preference recipe with its run directory in a temporary place."""
    monkeypatch.chdir(REPOSITORY)
    return lambda *overrides: load_recipe(RECIPE, [f"train.output_dir={tmp_path / 'run'}", *overrides])


def test_rows_batches_and_engine_are_those_of_the_run(recipe, capsys):
    made = plan.run(recipe())
    assert len(made.rows) == 64
    assert made.engine[0] == "tree"
    assert made.batches.total_steps == 16
    assert made.batches.rows_per_step == 8
    assert made.batches.rows_per_batch == (4, 4, 4)
    longest = int(made.rows.tokens("tree").max())
    assert made.batches.largest.columns == longest
    printed = capsys.readouterr().out
    assert "64 rows; tokens of a row" in printed
    assert f"longest {longest}" in printed
    assert "It fits." in printed


def test_a_token_budget_makes_batches_of_several_sizes(recipe):
    made = plan.run(recipe("train.max_tokens_per_batch=600"))
    assert made.batches.largest.rows * made.batches.largest.columns <= 600
    assert made.batches.rows_per_batch[0] <= 2 <= made.batches.rows_per_batch[2]


def test_separate_rows_compute_the_prompt_again(recipe):
    tree, flat = plan.run(recipe()), plan.run(recipe("engine=flat"))
    assert flat.engine == ("flat", "as configured")
    assert flat.batches.largest.rows == 2 * tree.batches.largest.rows


def test_rows_over_the_limit_are_named(recipe, capsys):
    with pytest.raises(DataError, match="refused"):
        plan.run(recipe("data.max_length=60"))
    plan.run(recipe("data.max_length=60", "data.max_refused_share=1.0", "data.eval=null", "data.max_length=150"))
    assert "refused: " in capsys.readouterr().out


def test_what_does_not_fit_gets_changes_one_on_top_of_the_other(recipe, capsys):
    made = plan.run(recipe("model.lora=null", "train.bf16=false"), memory_gb=0.9)
    totals = [made.footprint.total, *(change.footprint.total for change in made.changes)]
    assert totals == sorted(totals, reverse=True)
    proposed = " ".join(override for change in made.changes for override in change.overrides)
    assert "model.precompute_reference=true" in proposed
    assert "train.gradient_checkpointing=true" in proposed
    assert "model.lora='{rank: 16}'" in proposed
    printed = capsys.readouterr().out
    assert "model.freeze=[vision]" in printed
    assert "It does not fit." in printed
    assert "spread it over several devices" in printed


def test_a_proposed_change_is_a_valid_override(recipe):
    for change in plan.run(recipe("model.lora=null"), memory_gb=0.9).changes:
        if "quantize" not in change.overrides[0]:
            recipe(*(override.replace("'", "") for override in change.overrides))


def test_training_finds_the_rows_ready(recipe, tmp_path):
    plan.run(recipe())
    assert json.loads((tmp_path / "run" / "data" / "train" / "prepared.json").read_text())["rows"] == 64


def test_a_run_that_exists_is_left_alone(recipe, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    plan.run(recipe())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_refused_rows_of_a_plan_beside_a_run_are_kept_and_the_way_out_is_said(tmp_path, recipe):
    made = recipe("data.train=configs/miniature/corners_judged_train.jsonl", "objective.0.name=dpo")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(DataError, match="answers judged one by one are for kto") as refused:
        plan.run(made)
    kept = Path(re.search(r"See (\S+?quarantine\.jsonl)", str(refused.value))[1])
    assert "row gives the objective nothing to compare" in kept.read_text(encoding="utf-8")
    assert [place.name for place in kept.parent.iterdir()] == ["quarantine.jsonl"]
    shutil.rmtree(kept.parent)


def test_a_mistake_in_the_recipe_stops_the_plan(recipe):
    with pytest.raises(ConfigError, match="train.lr: unknown key"):
        plan.run(recipe("train.lr=1"))


def test_the_command_prints_a_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(RECIPE), f"train.output_dir={tmp_path}", "--memory-gb", "80"])
    assert ended.value.code == 0
    assert "of 80.0 GB (as given)" in capsys.readouterr().out


def test_decoders_are_counted_beside_the_device(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan.psutil, "virtual_memory", lambda: SimpleNamespace(total=10 * 10**9))
    assert plan.run(recipe()).decoders.processes == 0
    assert "decoding videos" not in capsys.readouterr().out
    videos.write(tmp_path / "a.mp4", videos.numbered(4, width=112, height=84), fps=4)
    rows = write_rows(tmp_path, 4, text_only=(0,), videos={1: "a.mp4"})
    shown = recipe(f"data.train={rows}", f"data.eval={rows}", "data.num_workers=2", "data.video.decode_memory_gb=2.5")
    found = plan.run(shown)
    # Two workers for training and two for evaluation, of which none knows of the others.
    assert (found.decoders.processes, found.decoders.bytes) == (4, 10_000_000_000)
    assert found.decoders.free_bytes == 10_000_000_000 - found.footprint.total - plan.RUNTIME_BYTES
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 processes decoding videos may take up to 10.0 GB of" in printed
    assert "each at most data.video.decode_memory_gb = 2.5" in printed
    assert "more than there is: lower data.video.decode_memory_gb or data.num_workers" in printed


def test_videos_are_counted_and_how_they_are_decoded_is_among_what_to_change(tmp_path, tiny_model, capsys):
    directory = tmp_path / "rows"
    directory.mkdir()
    videos.write(directory / "a.mp4", videos.numbered(16, width=112, height=84), fps=4)
    rows = write_rows(directory, 4, text_only=(0,), videos={1: "a.mp4", 2: "a.mp4"})
    values = recipe_values(tiny_model("qwen2_5_vl"), rows, tmp_path / "run")
    values["data"]["video"] = {"sampling": "uniform", "frames": 8, "max_total_pixels": 8 * 112 * 84}
    made = plan.run(from_values(values), memory_gb=0.9)
    # 8 frames in 4 pairs, each of 4 x 3 squares of 28 pixels.
    counted = dict(zip(COLUMNS, made.rows.lengths[:, 0].T.tolist(), strict=True))
    assert counted["video_tokens"] == [0, 48, 48, 0]
    assert [media - video for media, video in zip(counted["media_tokens"], counted["video_tokens"], strict=True)][
        :3
    ] == [0] * 3
    assert made.batches.largest.video_tokens == 96
    proposed = [override for change in made.changes for override in change.overrides]
    assert {"data.video.frames=4", f"data.video.max_total_pixels={4 * 112 * 84}"} <= set(proposed)
    printed = " ".join(capsys.readouterr().out.split())
    assert "% videos" in printed
    assert "beside it, 1 process decoding videos may take up to 4.0 GB of" in printed
    fewer = from_values({**values, "data": {**values["data"], "video": {**values["data"]["video"], "frames": 4}}})
    assert plan.run(fewer, memory_gb=0.9).batches.largest.video_tokens == 48


def taught(tmp_path, tiny_model, **teacher):
    """Return a recipe whose policy imitates a teacher of four layers, on four rows."""
    rows = write_rows(tmp_path / "rows", 4, text_only=(0, 1, 2, 3))
    values = recipe_values(tiny_model("qwen2"), rows, tmp_path / "run", objective=[{"name": "dckd"}])
    values["model"]["teacher"] = {"path": str(tiny_model("qwen2", layers=4)), "top_k": 5, **teacher}
    values["data"]["eval"] = str(rows)
    return values


def test_a_teacher_is_planned_with_its_table_on_disk_and_what_it_takes_beforehand(tmp_path, tiny_model, capsys):
    made = plan.run(from_values(taught(tmp_path, tiny_model)))
    table = TeacherTable.open(
        tmp_path / "t", rows=list(made.rows.table_rows()), made_with={}, top_k=5, contrasted=False
    )
    files = [tmp_path / "t" / column.file for column in table.columns]
    assert made.teacher.table == 2 * sum(path.stat().st_size for path in files)  # the same rows are held out
    assert made.teacher.weights == weights_of(tiny_model("qwen2", layers=4))
    # A pass of 4 bytes a number: three activations of the widest layer, states twice; logits twice.
    shape, text = made.batches.largest, AutoConfig.from_pretrained(tiny_model("qwen2", layers=4))
    layer, states = 3 * shape.rows * shape.columns * text.intermediate_size, 2 * text.hidden_size
    tokens = shape.response_tokens
    assert made.teacher.passing == 4 * (layer + tokens * states) + 2 * 4 * tokens * text.vocab_size
    printed = " ".join(capsys.readouterr().out.split())
    assert "before it, the teacher is asked in" in printed and "its table takes" in printed
    assert "does not fit" not in printed


def weights_of(path):
    """Return the bytes of a model's weights, from its file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in load_file(path / "model.safetensors").values())


def test_a_contrasted_teacher_is_two_models_and_a_wider_table(tmp_path, tiny_model):
    one = plan.run(from_values(taught(tmp_path, tiny_model))).teacher
    values = taught(tmp_path, tiny_model, contrast=str(tiny_model("qwen2")))
    values["objective"], values["train"]["output_dir"] = [{"name": "adpa"}], str(tmp_path / "other")
    two = plan.run(from_values(values)).teacher
    assert two.weights == one.weights + weights_of(tiny_model("qwen2"))
    assert two.table / one.table == (5 + 6 + 6) / (5 + 6)  # ids, and log-probs with one for all other tokens


def test_a_teacher_or_table_too_large_is_said_with_the_way_out(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.setattr(plan_teacher.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    plan.run(from_values(taught(tmp_path, tiny_model)), memory_gb=0.1)
    printed = " ".join(capsys.readouterr().out.split())
    assert "The teacher does not fit: take a smaller one, or set train.bf16: true or model.quantize: 4bit." in printed
    assert "The table does not fit on the disk: lower model.teacher.top_k." in printed


def test_a_teacher_that_reads_other_tokens_stops_the_plan_as_it_would_the_run(tmp_path, tiny_model):
    with pytest.raises(ModelError, match=r"model.teacher.path is a llama, the policy a qwen2"):
        plan.run(from_values(taught(tmp_path, tiny_model, path=str(tiny_model("llama")))))


def test_a_model_of_token_rewards_is_named_among_what_takes_memory(tmp_path, tiny_model, capsys):
    rows = write_rows(tmp_path / "rows", 4, text_only=(0, 1, 2, 3))
    values = recipe_values(tiny_model("qwen2"), rows, tmp_path / "run", objective=[{"name": "sail"}])
    values["model"]["token_reward"] = str(tiny_model("qwen2", layers=4))
    made = plan.run(from_values(values))
    assert made.footprint.token_reward == weights_of(tiny_model("qwen2", layers=4))
    assert "the model whose log-probs are rewards of single tokens" in " ".join(capsys.readouterr().out.split())


def test_built_in_models_beside_the_policy_are_made_in_the_run_directory(tmp_path, tiny_model):
    values = taught(tmp_path, tiny_model)
    values["model"] |= {"path": "miniature/qwen2", "teacher": {"path": "miniature/qwen2", "top_k": 5}}
    made = plan.run(from_values(values))
    assert made.recipe.model.teacher.path == str(tmp_path / "run" / "start-qwen2")
    assert made.teacher.weights == weights_of(tmp_path / "run" / "start-qwen2")
    values |= {"objective": [{"name": "dpo"}]}
    values["model"] = {"path": "miniature/qwen2", "reference": "miniature/qwen2"}
    made = plan.run(from_values(values))
    assert made.footprint.reference == weights_of(tmp_path / "run" / "start-qwen2")


@pytest.mark.parametrize("verb", ["plan", "train"])
def test_a_directory_that_is_not_there_is_named_with_its_line_before_anything_is_loaded(tmp_path, verb, capsys):
    (tmp_path / "r.yaml").write_text(
        "recipe: preference\nmodel:\n  path: miniature/qwen2\n  teacher:\n    path: runs/nothing\n"
        "data: {train: rows.jsonl}\nobjective:\n  - {name: dckd}\n"
        "train: {output_dir: runs/mine, learning_rate: 1.0e-3}\n"
    )
    with pytest.raises(SystemExit):
        main([verb, str(tmp_path / "r.yaml")])
    said = " ".join(capsys.readouterr().err.split())
    assert "r.yaml:5: model.teacher.path: no such directory runs/nothing" in said
