"""The recipe file of the documentation runs as it stands on a saved model of every family, and on real rows."""

import json
import shutil

import pytest
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from training_runs import configured, metrics, recipe, run, write_rows
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from mmalign.engine.footprint import Skeleton
from mmalign.engine.load import has_vision, load_config
from mmalign.errors import ModelError
from mmalign.miniature import models
from mmalign.recipes import preference
from mmalign.recipes.configuration import load_recipe

AS_IT_STANDS = """
recipe: preference
model:
  path: ./my-model            # directory or hub id; `miniature/qwen2_5_vl` names a built-in one
  reference: ./my-reference   # optional; default: the start of the run (adapter off with LoRA, a frozen copy without)
  lora: {rank: 32, alpha: 64, targets: all-linear}   # leave out for full fine-tuning
  freeze: [vision]
data:
  train: rows.jsonl
  eval: held_out.jsonl
  root: .                     # media paths are below it
  max_pixels: 401408
objective:
  - {name: dpo, beta: 0.1}
  - {name: sft, weight: 0.1}
train:
  output_dir: runs/mine
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 2
  learning_rate: 5.0e-6
  num_train_epochs: 1         # or max_steps
  save_steps: 50
  logging_steps: 1
  shuffle: true
  seed: 42
"""
NAMES = "step loss rewards/chosen rewards/rejected rewards/accuracies rewards/margins logps/chosen logps/rejected"
NAMES += " grad_norm learning_rate epoch num_tokens step_time_s data_time_s"


@pytest.mark.parametrize("family", models.FAMILIES)
def test_the_documented_recipe_runs_on_every_family(tmp_path, monkeypatch, tiny_model, family):
    monkeypatch.chdir(tmp_path)
    start = tiny_model(family)
    config = load_config(str(start))
    text_only = () if has_vision(config) else range(9)
    write_rows(tmp_path, 9, text_only=text_only)
    write_rows(tmp_path, 3, text_only=text_only, name="held_out.jsonl")
    shutil.copytree(start, "my-model")
    shutil.copytree(tiny_model(family, seed=3), "my-reference")
    values = yaml.safe_load(AS_IT_STANDS)
    if not has_vision(config):
        del values["model"]["freeze"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))

    result = preference.run(load_recipe("mine.yaml"))

    lines = [json.loads(line) for line in (result.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(NAMES.split()) <= lines[0].keys()
    assert {"eval_loss", "eval_rewards/margins"} <= lines[-1].keys()
    left = {path.name for path in result.output_dir.iterdir()}
    assert {"config.yaml", "manifest.json", "metrics.jsonl", "checkpoints", "final", "report.html"} <= left
    assert load_recipe(result.output_dir / "config.yaml") == load_recipe("mine.yaml")
    loader = AutoModelForImageTextToText if has_vision(config) else AutoModelForCausalLM
    PeftModel.from_pretrained(loader.from_pretrained("my-model"), result.final_dir)
    AutoProcessor.from_pretrained(result.final_dir)


def test_a_built_in_model_is_named_and_fully_trained(tmp_path):
    rows = write_rows(tmp_path / "rows", 4)
    result = run(recipe("miniature/llava", rows, tmp_path / "run"))
    AutoModelForImageTextToText.from_pretrained(result.final_dir)


@pytest.mark.parametrize("changes", [{"train__bf16": True}, {"train__bf16": True, "model__lora": {"rank": 4}}])
def test_bfloat16_follows_float32_loosely(tmp_path, tiny_model, changes):
    rows = write_rows(tmp_path / "rows", 12)
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "fp32", **{**changes, "train__bf16": False}))
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "bf16", **changes))
    for exact, rough in zip(metrics(tmp_path / "fp32"), metrics(tmp_path / "bf16"), strict=True):
        assert rough["loss"] == pytest.approx(exact["loss"], rel=0.02)


def test_demonstrations_with_real_photographs(tmp_path, tiny_model, shared_data):
    source = shared_data / "preferences" / "llamafactory_mllm_demo.json"
    root = tmp_path / "media" / "mllm_demo_data"
    root.mkdir(parents=True)
    for number in (1, 2, 3):
        shutil.copy(shared_data / "image" / f"mllm_demo_{number}.jpg", root / f"{number}.jpg")
    changes = {"recipe": "sft", "objective": None, "data__root": str(root.parent), "data__max_pixels": 50176}
    result = run(recipe(tiny_model("qwen2_5_vl"), source, tmp_path / "run", **changes))
    assert [line["step"] for line in result.metrics] == [1, 2, 3]
    assert result.metrics[0]["loss"] > result.metrics[2]["loss"] * 0.5


def test_published_preferences_of_text(tmp_path, tiny_model, shared_data):
    source = shared_data / "preferences" / "llamafactory_dpo_60.json"
    changes = {"data__max_length": 2048, "data__max_refused_share": 0.7, "train__max_steps": 1}
    result = run(recipe(tiny_model("qwen2"), source, tmp_path / "run", **changes))
    assert result.metrics[0]["loss/dpo"] == pytest.approx(0.693147, abs=1e-6)


def test_training_goes_on_from_the_adapter_of_an_earlier_run(tmp_path, tiny_model):
    """The reference is then the start of the new run, its adapter included; only the adapter moves and is saved."""
    rows = write_rows(tmp_path / "rows", 4, text_only=(1,))
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "first", model__lora={"rank": 4, "alpha": 8.0}))
    again = recipe(tmp_path / "first" / "final", rows, tmp_path / "second", train__max_steps=2)
    run(again)
    first_step = metrics(tmp_path / "second")[0]
    assert first_step["rewards/margins"] == pytest.approx(0, abs=1e-5)
    before, after = (load_file(tmp_path / name / "final" / "adapter_model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)
    last = metrics(tmp_path / "first")[-1]["loss/sft"]
    assert first_step["loss/sft"] < last
    with pytest.raises(ModelError, match="is an adapter, whose memory is not predicted; plan with model.path: .*qwen"):
        Skeleton(configured(again), again["model"]["path"])
