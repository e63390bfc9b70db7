"""Runs whose reference follows the policy: margins begin anew; resumed runs and ranks agree, sharded ones refuse."""

from math import log
from types import SimpleNamespace

import pytest
from accelerate.utils import DistributedType
from safetensors.torch import load_file
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

from mmalign.errors import ConfigError
from mmalign.objectives.compose import build
from mmalign.recipes import references

SYNC = {"kind": "sync", "every_steps": 2}
EMA = {"kind": "ema", "every_steps": 1, "mixup_alpha": 0.3}
LORA = {"model__lora": {"rank": 4, "alpha": 8.0}, "model__freeze": ["vision"]}


@pytest.fixture(scope="module")
def settings(tmp_path_factory, tiny_model):
    rows = write_rows(tmp_path_factory.mktemp("rows"), 8, text_only=(1,))

    def make(output_dir, **changes):
        steps = {"train__max_steps": 5, "train__save_steps": 3, "train__shuffle": False}
        return recipe(
            tiny_model("qwen2_5_vl"), rows, output_dir, **{"objective": [{"name": "dpo"}], **steps, **changes}
        )

    return make


@pytest.mark.parametrize("model", [{}, LORA], ids=["full", "adapters"])
def test_after_a_copy_policy_and_reference_are_one_again(tmp_path, settings, model):
    """Steps 3 and 5 are the first after a copy: their margin is that of a first step."""
    run(settings(tmp_path / "run", model__reference_update=SYNC, **model))
    margins = [line["rewards/margins"] for line in metrics(tmp_path / "run")]
    assert [abs(margin) < 1e-6 for margin in margins] == [True, False, True, False, True]
    assert [line["reference_moves"] for line in metrics(tmp_path / "run")] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("model", [{}, LORA], ids=["full", "adapters"])
def test_divergences_too_begin_anew_after_a_copy(tmp_path, settings, model):
    objective = [{"name": "tdpo1", "beta": 0.5}, {"name": "tdpo2", "beta": 0.5}]
    run(settings(tmp_path / "run", objective=objective, model__reference_update=SYNC, **model))
    losses = [(line["loss/tdpo1"], line["loss/tdpo2"]) for line in metrics(tmp_path / "run")]
    anew = [loss == pytest.approx((log(2), log(2)), abs=1e-6) for loss in losses]
    assert anew == [True, False, True, False, True]


@pytest.mark.parametrize("model", [{}, LORA], ids=["full", "adapters"])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, settings, model, monkeypatch):
    changes = {"model__reference_update": EMA, **model}
    run(settings(tmp_path / "straight", **changes))
    run_until(4, settings(tmp_path / "run", **changes), monkeypatch)
    run(settings(tmp_path / "run", **changes), resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "straight")


def test_the_checkpoint_holds_the_reference(tmp_path, settings):
    """The last move of three steps with copies every two is that after step 2; at the end that after step 4."""
    run(settings(tmp_path / "run", model__reference_update={"kind": "sync", "every_steps": 5}))
    held = load_file(tmp_path / "run" / "checkpoints" / "step-00000005" / "reference.safetensors")
    final = final_weights(tmp_path / "run")
    assert sum(weight.numel() for weight in held.values()) == sum(weight.numel() for weight in final.values())
    assert sorted(w.double().sum().item() for w in held.values()) == sorted(
        w.double().sum().item() for w in final.values()
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, LORA], ids=["full", "adapters"])
def test_two_ranks_give_the_curve_of_one(tmp_path, settings, model):
    run(settings(tmp_path / "one", model__reference_update=EMA, **model))
    cut = {"train__per_device_train_batch_size": 1}
    on_two_ranks(settings(tmp_path / "two", model__reference_update=EMA, **cut, **model))
    assert_close(metrics(tmp_path / "one")[:1], metrics(tmp_path / "two")[:1], 1e-5)
    assert_close(metrics(tmp_path / "one"), metrics(tmp_path / "two"), 5e-4)


@pytest.mark.parametrize("model", [{}, LORA], ids=["full", "adapters"])
def test_ranks_that_share_the_weights_cannot_copy_them(settings, tmp_path, model):
    config = configured(settings(tmp_path / "run", model__reference_update=SYNC, **model))
    sharded = SimpleNamespace(distributed_type=DistributedType.FSDP)
    with pytest.raises(ConfigError, match="FSDP spreads the policy.*model.reference_update would copy; leave it out"):
        references.require_possible(config, build(config.objective), config.model.path, sharded)
