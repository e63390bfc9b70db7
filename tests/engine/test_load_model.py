"""Loading a model: what is missing is named, nothing is trained on randomly filled gaps."""

import importlib.util
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmalign.engine.load import load_model
from mmalign.errors import ModelError


def copied(source, directory):
    for file in source.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    return directory


def test_a_vision_model_is_loaded_with_its_vision_side(tiny_model):
    model = load_model(tiny_model("qwen2_5_vl"))
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.training
    assert model.dtype == torch.float32


def test_a_text_model_is_loaded_as_a_language_model(tiny_model):
    assert type(load_model(tiny_model("llama"), dtype="bfloat16")).__name__ == "LlamaForCausalLM"


def test_the_type_of_the_weights_is_the_one_asked_for(tiny_model):
    assert load_model(tiny_model("llama"), dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ModelError, match="dtype 'int4' is unknown; use one of float32, bfloat16, float16"):
        load_model(tiny_model("llama"), dtype="int4")


def test_a_directory_without_config_is_named(tmp_path):
    with pytest.raises(
        ModelError, match=r"model directory '.*' has no config.json; give one that save_pretrained wrote"
    ):
        load_model(tmp_path)


def test_a_broken_config_is_named(tiny_model, tmp_path):
    directory = copied(tiny_model("llama"), tmp_path)
    (directory / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot read the config of model"):
        load_model(directory)


def test_a_config_of_an_unknown_kind_is_named(tiny_model, tmp_path):
    directory = copied(tiny_model("llama"), tmp_path)
    (directory / "config.json").write_text(json.dumps({"model_type": "nobody_knows"}), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot read the config of model .*nobody_knows"):
        load_model(directory)


def test_a_path_that_is_neither_directory_nor_hub_id_is_named():
    with pytest.raises(ModelError, match="'./no-such-model' does not exist .* no hub id of"):
        load_model("./no-such-model")


def test_a_directory_without_weights_is_named(tiny_model, tmp_path):
    directory = copied(tiny_model("llama"), tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load the weights of model"):
        load_model(directory)


def test_a_truncated_weight_file_is_named(tiny_model, tmp_path):
    directory = copied(tiny_model("llama"), tmp_path)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load the weights of model"):
        load_model(directory)


def test_a_missing_tensor_is_not_filled_with_noise(tiny_model, tmp_path):
    directory = copied(tiny_model("llama"), tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has no weights for 1 of its tensors, e.g. 'model.norm.weight'"):
        load_model(directory)


def test_a_kernel_the_family_does_not_have_is_named(tiny_model):
    with pytest.raises(ModelError, match="cannot load the weights of model .*no_such_kernel"):
        load_model(tiny_model("gemma2"), attn_implementation="no_such_kernel")


def test_a_kernel_that_is_not_installed_is_named(tiny_model):
    if importlib.util.find_spec("flash_attn"):
        pytest.skip("flash_attn is installed")
    with pytest.raises(ModelError, match="cannot load the weights of model .*[Ff]lash"):
        load_model(tiny_model("llama"), attn_implementation="flash_attention_2")


def test_quantisation_without_its_library_says_what_to_install(tiny_model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"quantize: 4bit needs bitsandbytes, .* pip install 'mmalign\[qlora\]'"):
        load_model(tiny_model("llama"), quantize="4bit")


@pytest.mark.parametrize("text", ["{}", "{", "[]", ""])
def test_an_adapter_that_names_no_model_is_refused(tmp_path, text):
    (tmp_path / "adapter_config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="adapter_config.json' names no model; set base_model_name_or_path in it"):
        load_model(tmp_path)


def test_an_adapter_without_weights_is_named(tiny_model, tmp_path):
    config = {"base_model_name_or_path": str(tiny_model("llama")), "peft_type": "LORA", "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot put adapter .* on model"):
        load_model(tmp_path)
