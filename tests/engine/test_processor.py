"""Loading processors, and what is said when there is none."""

import shutil

import pytest

from mmalign.engine.processor import load_processor
from mmalign.errors import ModelError
from mmalign.miniature import models

NEEDED = "a model directory needs config.json, tokenizer.json and, if the model sees images, preprocessor_config.json"


def without(directory, tmp_path, *names: str):
    """Return a copy of a model directory that lacks some files."""
    copy = tmp_path / "model"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns(*names))
    return copy


@pytest.mark.parametrize("name", models.FAMILIES)
def test_every_family_has_one(tiny_model, name):
    processor = load_processor(tiny_model(name))
    assert hasattr(processor, "image_processor") == (name in models.VISION_FAMILIES)


@pytest.mark.parametrize("name", ["qwen2_vl", "llava", "idefics3", "gemma3"])
def test_a_directory_without_processor_is_refused(tiny_model, tmp_path, name):
    directory = without(tiny_model(name), tmp_path, "*processor_config.json")
    with pytest.raises(ModelError, match=f"no processor or tokenizer could be loaded from .*{NEEDED}.*image processor"):
        load_processor(directory)


@pytest.mark.parametrize("name", ["qwen2_vl", "llava", "gemma3", "llama", "qwen2"])
def test_a_directory_without_tokenizer_is_refused(tiny_model, tmp_path, name):
    directory = without(tiny_model(name), tmp_path, "tokenizer*")
    with pytest.raises(ModelError, match=f"(could be loaded|knows special tokens only).*{NEEDED}"):
        load_processor(directory)


def test_a_directory_without_config_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no processor or tokenizer could be loaded"):
        load_processor(tmp_path)


def test_a_broken_config_is_refused(tiny_model, tmp_path):
    directory = without(tiny_model("llama"), tmp_path)
    (directory / "config.json").write_text("{broken")
    with pytest.raises(ModelError, match="no processor or tokenizer could be loaded"):
        load_processor(directory)


def test_a_name_that_is_neither_directory_nor_hub_id_is_refused():
    with pytest.raises(ModelError, match="no processor or tokenizer could be loaded from 'no/such/directory'"):
        load_processor("no/such/directory")
