"""`key=value` on the command line."""

import re

import pytest

from mmalign.errors import ConfigError


def test_dotted_keys_and_list_positions_reach_their_value(load_with):
    recipe = load_with("train.learning_rate=1e-5", "objective.0.beta=0.2", "data.max_length=128")
    assert recipe.train.learning_rate == 1e-5
    assert recipe.objective[0].options() == {"beta": 0.2}
    assert recipe.data.max_length == 128


def test_values_are_yaml(load_with):
    recipe = load_with("model.freeze=[vision, projector]", "model.lora={rank: 4}", "train.bf16=true", "engine=flat")
    assert recipe.model.freeze == ("vision", "projector")
    assert recipe.model.lora.rank == 4
    assert recipe.train.bf16 is True


def test_a_value_may_hold_an_equals_sign(load_with):
    assert load_with("data.root=a=b").data.root == "a=b"


def test_null_and_nothing_remove_a_value(load_with):
    assert load_with("model.lora=null").model.lora is None
    assert load_with("model.lora=").model.lora is None


def test_a_section_that_the_file_leaves_out_is_made(load_with):
    assert load_with("vision.share=off").vision.share == "off"


def test_the_position_after_the_last_appends(load_with):
    names = [spec.name for spec in load_with("objective.2.name=simpo", "objective.2.weight=0.5").objective]
    assert names == ["dpo", "sft", "simpo"]


def test_the_last_override_wins(load_with):
    assert load_with("train.seed=1", "train.seed=2").train.seed == 2


def test_steps_on_the_command_line_take_the_place_of_epochs_in_the_file(load_with):
    train = load_with("train.max_steps=20").train
    assert (train.max_steps, train.num_train_epochs) == (20, None)


def test_both_lengths_on_the_command_line_are_refused(load_with):
    with pytest.raises(
        ConfigError, match=r"override 'train\.max_steps=2': train\.max_steps: 2, and train\.num_train_ep"
    ):
        load_with("train.max_steps=2", "train.num_train_epochs=3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.seed", "override 'train.seed': write key=value, for example train.learning_rate=1e-6"),
        ("=3", "override '=3': write key=value"),
        ("train..seed=3", "override 'train..seed=3': write key=value"),
        ("train.sede=3", "override 'train.sede=3': train.sede: unknown key; did you mean 'seed'?"),
        ("train.seed=x", "override 'train.seed=x': train.seed: must be a whole number, got 'x'"),
        ("model.freeze=[vision", "override 'model.freeze=[vision': is not valid YAML"),
        ("objective.7.beta=1", "override 'objective.7.beta=1': objective is a list of 2; positions 0 to 2 can be set"),
        ("objective.beta=1", "override 'objective.beta=1': objective is a list of 2; positions"),
        (
            "objective.0.beta.x=1",
            "override 'objective.0.beta.x=1': objective.0.beta is 0.1, which has no key 'x' inside",
        ),
        ("train.0=1", "override 'train.0=1': train is a mapping and has no position 0; name one of its keys"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(load_with, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_with(override)
