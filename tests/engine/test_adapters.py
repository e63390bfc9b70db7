"""Adapters on disk: put on a model bit for bit, merged exactly, refused when they are another's."""

import json
import shutil

import pytest
import torch

from mmalign.config.schema import LoraConfig
from mmalign.engine.adapters import merge, put_weights
from mmalign.engine.load import load_model
from mmalign.engine.policy import load_policy
from mmalign.errors import ModelError
from mmalign.train.state import save_for_use

LORA = LoraConfig(rank=3, alpha=5.0)


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """An adapter whose weights are all drawn, so that it does something."""
    policy = load_policy(tiny_model("qwen2_5_vl"), lora=LORA)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    directory = tmp_path_factory.mktemp("adapter") / "adapter"
    save_for_use(policy.model, directory)
    return directory


def trained(policy):
    return {name: parameter.detach() for name, parameter in policy.named_parameters() if parameter.requires_grad}


def test_a_policy_goes_on_with_an_adapter_bit_for_bit(tiny_model, adapter):
    fresh = load_policy(tiny_model("qwen2_5_vl"), lora=LORA)
    going_on = load_policy(tiny_model("qwen2_5_vl"), lora=LORA, adapter=str(adapter))
    loaded = load_policy(adapter)
    assert trained(going_on).keys() == trained(fresh).keys() == trained(loaded).keys()
    assert all(torch.equal(value, trained(loaded)[name]) for name, value in trained(going_on).items())
    assert any(not torch.equal(value, trained(fresh)[name]) for name, value in trained(going_on).items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_merged_weight_is_the_sum_rounded_once(tiny_model, adapter, dtype):
    model = load_model(adapter, dtype=dtype)
    expected = {}
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_A"):
            up, down = module.lora_B["default"].weight, module.lora_A["default"].weight
            exact = module.base_layer.weight.double() + 5.0 / 3 * up.double() @ down.double()
            expected[f"{name}.weight"] = exact.detach()
    merged = dict(merge(model).named_parameters())
    assert expected
    unit = torch.finfo(getattr(torch, dtype)).eps / 2
    for name, exact in expected.items():
        assert merged[name].dtype == getattr(torch, dtype)
        error = (merged[name].double() - exact).abs()
        assert (error <= 1.01 * unit * exact.abs() + 1e-7).all()  # the product is made in single precision


def test_an_adapter_of_other_settings_is_refused(tiny_model, adapter):
    for lora, message in [
        (LoraConfig(rank=4, alpha=5.0), "has rank 3, model.lora.rank is 4; give the settings it was made with"),
        (LoraConfig(rank=3, alpha=6.0), "has alpha 5.0, model.lora.alpha is 6.0; give the settings"),
        (
            LoraConfig(rank=3, alpha=5.0, targets=("q_proj",)),
            "stands on other layers than model.lora says, e.g. 'base_",
        ),
    ]:
        with pytest.raises(ModelError, match=message):
            load_policy(tiny_model("qwen2_5_vl"), lora=lora, adapter=str(adapter))


def test_what_is_no_adapter_is_refused(tiny_model, adapter, tmp_path):
    model = load_policy(tiny_model("qwen2_5_vl"), lora=LORA).model
    with pytest.raises(ModelError, match="holds no adapter; name what a run with model.lora left behind"):
        put_weights(model, tiny_model("qwen2_5_vl"))
    broken = tmp_path / "broken"
    shutil.copytree(adapter, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot read adapter"):
        put_weights(model, broken)


def test_a_merge_that_is_not_finite_is_refused(adapter):
    model = load_model(adapter)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(ModelError, match="the adapter cannot be merged: the weights of .*q_proj would not be finite"):
        merge(model)


def test_settings_of_an_adapter_are_those_of_the_recipe(adapter):
    written = json.loads((adapter / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"]) == (3, 5.0)
