"""Parts of a model: which weights move, where adapters go, what is dropped."""

import re

import pytest
import torch
from torch import nn

from mmalign.engine.families import FAMILIES, family_of
from mmalign.engine.load import load_model
from mmalign.engine.parts import PartReport, add_lora, freeze_parts, part_of, trainable_report, turn_dropout_off
from mmalign.errors import ModelError
from mmalign.miniature import models


def load(directory):
    model = load_model(directory)
    return model, family_of(model.config)


def moving(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapted(model) -> set[str]:
    return {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}


# ---- parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "name", "part"),
    [
        ("qwen2_5_vl", "model.visual.blocks.0.attn.qkv.weight", "vision"),
        ("qwen2_5_vl", "model.visual.merger.mlp.0.weight", "projector"),
        ("qwen3_vl", "model.visual.deepstack_merger_list.0.norm.weight", "projector"),
        ("llava_next", "model.image_newline", "projector"),
        ("llava", "model.vision_tower.embeddings.class_embedding", "vision"),
        ("idefics3", "model.connector.modality_projection.proj.weight", "projector"),
        ("idefics3", "model.text_model.layers.0.mlp.up_proj.weight", "language"),
        ("llava", "lm_head.weight", "language"),
        ("llava", "model.vision_tower_2.weight", None),
    ],
)
def test_the_longest_prefix_names_the_part(family, name, part):
    assert part_of(name, FAMILIES[family]) == part


@pytest.mark.parametrize("name", models.FAMILIES)
def test_every_weight_of_every_family_belongs_to_a_part(tiny_model, name):
    model, family = load(tiny_model(name))
    report = trainable_report(model, family)
    assert set(report) == set(family.parts)
    assert sum(part.total for part in report.values()) == sum(p.numel() for p in model.parameters())
    assert all(part.trainable == part.total > 0 for part in report.values())


# ---- freezing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.VISION_FAMILIES)
@pytest.mark.parametrize("part", ["vision", "projector", "language"])
def test_freezing_a_part_stops_that_part_alone(tiny_model, name, part):
    model, family = load(tiny_model(name))
    freeze_parts(model, family, [part])
    for other, report in trainable_report(model, family).items():
        assert report.trainable == (0 if other == part else report.total)


def test_freezing_what_is_not_there_is_refused(tiny_model):
    model, family = load(tiny_model("llama"))
    with pytest.raises(ModelError, match="llama has no part 'vision'; its parts are language"):
        freeze_parts(model, family, ["vision"])


def test_the_merger_moves_while_the_rest_of_a_qwen_tower_is_frozen(tiny_model):
    model, family = load(tiny_model("qwen2_vl"))
    freeze_parts(model, family, ["vision", "language"])
    assert moving(model)
    assert all(name.startswith("model.visual.merger.") for name in moving(model))


# ---- adapters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.FAMILIES)
def test_all_linear_is_every_linear_layer_of_the_language_part_but_the_head(tiny_model, name):
    model, family = load(tiny_model(name))
    expected = {
        layer
        for layer, module in model.named_modules()
        if isinstance(module, nn.Linear) and part_of(layer, family) == "language" and layer != "lm_head"
    }
    wrapped = add_lora(model, family, rank=2, alpha=4)
    assert adapted(model) == expected
    assert all("lora_" in parameter for parameter in moving(wrapped))


def test_adapters_go_to_other_parts_when_asked(tiny_model):
    model, family = load(tiny_model("qwen3_vl"))
    add_lora(model, family, rank=2, alpha=4, parts=("vision", "projector"))
    assert {part_of(name, family) for name in adapted(model)} == {"vision", "projector"}
    assert "model.visual.merger.linear_fc1" in adapted(model)


def test_targets_by_ending_stay_inside_the_parts(tiny_model):
    model, family = load(tiny_model("llava"))
    add_lora(model, family, rank=2, alpha=4, targets=["q_proj", "v_proj"])
    assert adapted(model) == {
        f"model.language_model.layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qv"
    }


def test_targets_by_regular_expression_match_whole_names(tiny_model):
    model, family = load(tiny_model("llama"))
    add_lora(model, family, rank=2, alpha=4, targets=r".*layers\.1\.mlp\.(up|down)_proj")
    assert adapted(model) == {"model.layers.1.mlp.up_proj", "model.layers.1.mlp.down_proj"}


def test_targets_that_match_nothing_are_refused_with_what_there_is(tiny_model):
    model, family = load(tiny_model("llama"))
    message = r"lora.targets \['c_attn'\] matches no linear layer of part\(s\) language of llama; its layers end in "
    with pytest.raises(ModelError, match=message + "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"):
        add_lora(model, family, rank=2, alpha=4, targets=["c_attn"])


def test_a_broken_regular_expression_is_refused(tiny_model):
    model, family = load(tiny_model("llama"))
    with pytest.raises(ModelError, match=r"lora.targets '\(' is no regular expression"):
        add_lora(model, family, rank=2, alpha=4, targets="(")


def test_the_saved_target_pattern_is_short_and_exact(tiny_model):
    model, family = load(tiny_model("qwen2_5_vl", layers=3))
    wrapped = add_lora(model, family, rank=2, alpha=4, targets=["mlp.0", "o_proj"], parts=("language", "projector"))
    pattern = wrapped.peft_config["default"].target_modules
    assert pattern == r"(model\.visual\.merger\.mlp\.0)|(model\.language_model\.layers\.\d+\.self_attn\.o_proj)"
    assert {name for name, _ in model.named_modules() if re.fullmatch(pattern, name)} == adapted(model)


def test_modules_to_save_are_trained_whole(tiny_model):
    model, family = load(tiny_model("llava"))
    add_lora(model, family, rank=2, alpha=4, modules_to_save=["multi_modal_projector"])
    report = trainable_report(model, family)
    assert report["projector"].trainable * 2 == report["projector"].total
    assert report["vision"].trainable == 0


def test_the_report_counts_what_moves(tiny_model):
    model, family = load(tiny_model("llama"))
    add_lora(model, family, rank=3, alpha=4, targets=["q_proj"])
    hidden, layers = model.config.hidden_size, model.config.num_hidden_layers
    adapters = layers * 3 * (hidden + hidden)
    total = sum(parameter.numel() for parameter in model.parameters())
    assert trainable_report(model, family) == {"language": PartReport(trainable=adapters, total=total)}


# ---- dropout -------------------------------------------------------------------------------------------------------


def test_dropout_is_off_in_modules_and_in_numbers_that_kernels_read():
    layer = nn.TransformerEncoderLayer(8, 2, dropout=0.5)
    layer.attention_dropout, layer.layerdrop = 0.5, 0.1
    layer.self_attn.dropout = 0.5
    turn_dropout_off(layer.train())
    assert {module.p for module in layer.modules() if isinstance(module, nn.Dropout)} == {0.0}
    assert (layer.attention_dropout, layer.layerdrop, layer.self_attn.dropout) == (0.0, 0.0, 0.0)
    assert isinstance(layer.dropout, nn.Dropout)
    assert torch.equal(*(layer(torch.ones(2, 3, 8)) for _ in range(2)))
