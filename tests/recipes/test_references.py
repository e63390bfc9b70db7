"""Where a reference comes from, when it cannot be had, and when it goes."""

import gc
import weakref
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from training_runs import configured, recipe, run, write_rows

from mmalign.errors import ConfigError
from mmalign.objectives.compose import build
from mmalign.recipes import references
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
