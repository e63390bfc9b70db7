"""The table of families: what it says of a config."""

from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from mmalign.engine.families import BACKBONES, FAMILIES, family_of, media_token_ids
from mmalign.miniature import models


@pytest.mark.parametrize("name", models.FAMILIES)
def test_every_miniature_is_known_and_may_be_a_tree(tiny_model, name):
    family = family_of(AutoConfig.from_pretrained(tiny_model(name)))
    assert (family.name, family.no_tree, family.known) == (name, None, True)
    assert family.has_vision == (name in models.VISION_FAMILIES)


def test_the_families_of_the_table_are_tested_by_a_miniature_each():
    assert set(FAMILIES) == set(models.VISION_FAMILIES)


def test_a_wrapper_around_an_unknown_decoder_says_which():
    config = AutoConfig.for_model("llava", text_config={"model_type": "gpt_neox"})
    family = family_of(config)
    assert family.no_tree == "its text decoder 'gpt_neox' is not in the table of engine/families.py"
    assert not family.known


def test_models_that_carry_state_say_so():
    family = family_of(AutoConfig.for_model("mamba"))
    assert family.no_tree == "its recurrent or convolutional layers carry state from one response into the next"


def test_paligemma_two_is_flat_with_its_own_reason():
    family = family_of(AutoConfig.for_model("paligemma", text_config={"model_type": "gemma2"}))
    assert family.known
    assert family.no_tree.startswith("PaliGemma 2 mixes windowed and full layers")


def test_an_unknown_vision_model_is_given_the_usual_media_inputs():
    family = family_of(AutoConfig.for_model("aya_vision"))
    assert "pixel_values" in family.media_inputs
    assert not family.known


def test_every_decoder_inside_a_known_wrapper_is_in_the_table(tiny_model):
    for name in models.VISION_FAMILIES:
        assert AutoConfig.from_pretrained(tiny_model(name)).get_text_config().model_type in BACKBONES


def test_placeholders_are_found_under_either_name():
    assert media_token_ids(SimpleNamespace(image_token_id=5, video_token_id=6)) == (5, 6)
    assert media_token_ids(SimpleNamespace(image_token_index=7)) == (7, None)
    assert media_token_ids(SimpleNamespace()) == (None, None)
