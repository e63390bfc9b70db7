"""Where a reference comes from, when it cannot be had, and when it goes."""

import gc
import weakref
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from training_runs import configured, recipe, run, write_rows
from transformers import Gemma2Config

from mmalign.errors import CheckpointError, ConfigError, ModelError
from mmalign.objectives.compose import build
from mmalign.recipes import references
from mmalign.recipes.identity import identity_of
from mmalign.train import loop

SHARDED = SimpleNamespace(distributed_type=DistributedType.FSDP)
LORA = {"rank": 4, "alpha": 8.0}


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"model__reference": "other"},
        {"model__reference": "other", "model__lora": LORA},
        {"model__reference": "other", "model__precompute_reference": True},
    ],
    ids=["frozen copy", "other model", "other model beside adapters", "other model into a table"],
)
def test_no_second_model_stands_beside_a_policy_that_is_spread_over_ranks(tmp_path, model):
    config = configured(recipe("model", tmp_path / "rows.jsonl", tmp_path / "run", **model))
    with pytest.raises(ConfigError, match="FSDP spreads the policy over ranks.*leave out model.reference"):
        references.build_reference(config, None, build(config.objective), SHARDED)


@pytest.mark.parametrize(("cap", "history_weight", "refused"), [(30.0, 0.1, True), (30.0, 0, False), (None, 1, False)])
def test_what_history_adds_to_capped_logits_is_refused_from_the_configuration(tmp_path, cap, history_weight, refused):
    Gemma2Config(final_logit_softcapping=cap).save_pretrained(tmp_path / "model")
    objective = [{"name": "nextquill", "history_weight": history_weight}]
    config = configured(recipe("model", tmp_path / "rows.jsonl", tmp_path / "run", objective=objective))
    alone = SimpleNamespace(distributed_type=DistributedType.NO)
    expected = pytest.raises(ModelError, match="this model caps its logits .at 30., .*history_weight: 0")
    with expected if refused else nullcontext():
        references.require_possible(config, build(config.objective), str(tmp_path / "model"), alone)


def test_a_run_knows_the_teacher_and_the_contrast_that_it_began_with(tmp_path):
    for name in ("model", "teacher", "contrast"):
        Gemma2Config().save_pretrained(tmp_path / name)
    taught = {"path": str(tmp_path / "teacher"), "contrast": str(tmp_path / "contrast")}
    changes = {"objective": [{"name": "adpa"}], "model__teacher": taught}
    config = configured(recipe("model", tmp_path / "rows.jsonl", tmp_path / "run", **changes))
    found = [identity_of(config, {}, str(tmp_path / "model"), 1)]
    for name in ("teacher", "contrast"):
        Gemma2Config(hidden_size=64 if name == "teacher" else 32).save_pretrained(tmp_path / name)
        found.append(identity_of(config, {}, str(tmp_path / "model"), 1))
    assert found[0] != found[1] != found[2] != found[0]


def test_a_reference_model_that_became_a_table_is_held_by_nobody(tmp_path, tiny_model, monkeypatch):
    """The table takes its place, so that training has the memory of one model."""
    models, alive = [], []

    def build_and_watch(*arguments):
        reference = build_reference(*arguments)
        models.append(weakref.ref(reference.models[0]))
        return reference

    def train(course, start):
        gc.collect()
        alive.extend(model() is not None for model in models)
        return start

    build_reference = references.build_reference
    monkeypatch.setattr(references, "build_reference", build_and_watch)
    monkeypatch.setattr(loop, "train", train)
    rows = write_rows(tmp_path / "rows", 3, text_only=(0, 1, 2))
    choice = {"model__reference": str(tiny_model("qwen2_5_vl", seed=3)), "model__precompute_reference": True}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **choice))
    assert alive == [False]


def test_features_cached_while_the_table_is_filled_are_there_for_the_first_epoch(tmp_path, tiny_model, monkeypatch):
    cached = []

    def train(course, start):
        cached.extend((tmp_path / "cache").rglob("*.safetensors"))
        return start

    monkeypatch.setattr(loop, "train", train)
    rows = write_rows(tmp_path / "rows", 4, text_only=(1,))
    choice = {"model__freeze": ["vision"], "model__precompute_reference": True}
    cache = {"vision__cache_dir": str(tmp_path / "cache")}
    run(recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **choice, **cache))
    assert len(cached) == 3


def test_a_table_begun_in_another_precision_is_refused(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(loop, "train", lambda course, start: start)
    rows = write_rows(tmp_path / "rows", 3, text_only=(0, 1, 2))
    values = recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", model__precompute_reference=True)
    run(values)
    values["train"]["bf16"] = True
    with pytest.raises(CheckpointError, match=r"stale: what changed is precision \(then no, now bf16\)"):
        run(values, resume=True)
