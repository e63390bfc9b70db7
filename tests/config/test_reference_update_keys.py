"""A reference that follows the policy, in our words and in TRL's."""

import pytest
from training_runs import configured, recipe

from mmalign.config.load import dump, loads
from mmalign.errors import ConfigError
from mmalign.recipes.configuration import load_recipe


def settings(tmp_path, **model):
    return recipe("model", tmp_path / "rows.jsonl", tmp_path / "run", **{f"model__{k}": v for k, v in model.items()})


@pytest.mark.parametrize(
    ("trl", "ours"),
    [
        ({}, ("ema", 512, 0.6)),
        ({"ref_model_sync_steps": 64, "ref_model_mixup_alpha": 0.5}, ("ema", 64, 0.5)),
        ({"ref_model_sync_steps": 64, "ref_model_mixup_alpha": 1.0}, ("sync", 64, None)),
    ],
    ids=str,
)
def test_trls_names_mean_what_they_mean_there(tmp_path, trl, ours):
    config = configured(settings(tmp_path, sync_ref_model=True, **trl))
    update = config.model.reference_update
    assert (update.kind, update.every_steps, update.mixup_alpha) == ours
    assert loads(dump(config)) == config


@pytest.mark.parametrize(
    "model",
    [
        {"ref_model_sync_steps": 64},
        {"sync_ref_model": False, "ref_model_sync_steps": 64},
        {"sync_ref_model": True, "reference_update": {"kind": "sync", "every_steps": 3}},
    ],
    ids=str,
)
def test_trls_names_that_nothing_would_read_are_refused(tmp_path, model):
    with pytest.raises(ConfigError, match="sync"):
        configured(settings(tmp_path, **model))


def test_an_average_takes_less_than_all(tmp_path):
    with pytest.raises(ConfigError, match="mixup_alpha.*less than 1"):
        configured(settings(tmp_path, reference_update={"kind": "ema", "every_steps": 1, "mixup_alpha": 1.0}))


def test_an_objective_without_a_reference_has_none_to_move(tmp_path):
    (tmp_path / "r.yaml").write_text(
        dump(configured(settings(tmp_path, reference_update={"kind": "sync", "every_steps": 3}))).replace(
            "name: dpo\n  weight: 1.0\n  beta: 0.1", "name: simpo"
        )
    )
    with pytest.raises(
        ConfigError, match="model.reference_update: objective .* compares with no reference; remove this"
    ):
        load_recipe(tmp_path / "r.yaml")
