"""From a file to a checked recipe: defaults, and the message for every kind of mistake."""

import json
import re

import pytest

from mmalign.config.load import dump, from_values, json_schema, loads
from mmalign.errors import ConfigError

SMALLEST = {
    "recipe": "preference",
    "model": {"path": "m"},
    "data": {"train": "rows.jsonl"},
    "objective": [{"name": "dpo"}],
    "train": {"output_dir": "runs/x", "learning_rate": 1e-6},
}


def test_the_documented_recipe_loads_as_it_stands(load_with):
    recipe = load_with()
    assert recipe.recipe == "preference"
    assert recipe.model.lora.rank == 32
    assert recipe.model.lora.parts == ("language",)
    assert recipe.model.freeze == ("vision",)
    assert recipe.train.learning_rate == 5e-6
    assert recipe.engine == "auto"
    assert [(spec.name, spec.weight, spec.options()) for spec in recipe.objective] == [
        ("dpo", 1.0, {"beta": 0.1}),
        ("sft", 0.1, {}),
    ]


def test_a_learning_rate_without_a_point_is_a_number(load_changed):
    assert load_changed("learning_rate: 5.0e-6", "learning_rate: 1e-5").train.learning_rate == 1e-5


def test_off_is_a_word_and_not_false():
    recipe = loads(dump(from_values(SMALLEST)).replace("share: auto", "share: off"))
    assert recipe.vision.share == "off"


def test_a_run_lasts_one_epoch_unless_told():
    recipe = from_values(SMALLEST)
    assert recipe.train.num_train_epochs == 1.0
    assert recipe.train.max_steps is None


def test_the_sft_recipe_brings_its_objective():
    values = {**SMALLEST, "recipe": "sft"}
    del values["objective"]
    assert [spec.name for spec in from_values(values).objective] == ["sft"]


def test_weights_are_bfloat16_only_as_the_frozen_base_of_lora_under_bf16(load_with):
    assert load_with("train.bf16=true").weights_dtype() == "bfloat16"
    assert load_with("train.bf16=true", "model.lora=null").weights_dtype() == "float32"
    assert load_with().weights_dtype() == "float32"
    assert load_with("model.dtype=bfloat16").weights_dtype() == "bfloat16"


def test_vision_moves_when_neither_frozen_nor_left_out_by_lora(load_with):
    assert not load_with().trains_vision()
    assert load_with("model.freeze=[]", "model.lora.parts=[vision, language]").trains_vision()
    assert load_with("model.freeze=[]", "model.lora=null").trains_vision()
    assert not load_with("model.lora=null").trains_vision()


def test_a_resolved_recipe_reads_back_equal(load_with):
    recipe = load_with("model.path='1e-5'", "data.root='off'", "data.format='null'", "train.report_to=[wandb]")
    text = dump(recipe)
    assert loads(text) == recipe
    assert "num_train_epochs: 1.0" in text
    assert "warmup_steps: null" in text


@pytest.mark.parametrize("sampling", ["fps", "uniform"])
def test_a_resolved_recipe_writes_a_rate_only_where_one_was_given(load_with, sampling):
    recipe = load_with(f"data.video.sampling={sampling}")
    assert loads(dump(recipe)) == recipe
    assert "fps: null" in dump(recipe)


def test_a_recipe_does_not_change_after_loading(load_with):
    with pytest.raises(ValueError, match="frozen"):
        load_with().train.seed = 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  seed: 42", "  sede: 42", "r.yaml:24: train.sede: unknown key; did you mean 'seed'?"),
        ("  seed: 42", "  lr: 1", "r.yaml:24: train.lr: unknown key; did you mean 'learning_rate'?"),
        ("rank: 32", "r: 32", "r.yaml:5: model.lora.r: unknown key; did you mean 'rank'?"),
        ("recipe: preference", "recipe: prefrence", "r.yaml:1: recipe: 'prefrence' is not one of preference, sft; did"),
        (
            "recipe: preference",
            "recipe: preference\nbeta: 1",
            "r.yaml:2: beta: unknown key; valid here: recipe, model,",
        ),
        ("recipe: preference", "recipe: preference\nseed: 1", "r.yaml:2: seed: unknown key; it belongs to train.seed"),
        ("  path: ./my-model\n", "", "r.yaml:2: model.path: is missing and has no default; add it"),
        ("  seed: 42", "  seed: 42.0", "r.yaml:24: train.seed: must be a whole number, got 42.0"),
        ("  seed: 42", "  seed: '42'", "r.yaml:24: train.seed: must be a whole number, got '42'"),
        ("  seed: 42", "  seed: -1", "r.yaml:24: train.seed: must be at least 0, got -1"),
        ("  seed: 42", "  seed:", "r.yaml:24: train.seed: must be a whole number, got None"),
        ("5.0e-6", "fast", "r.yaml:19: train.learning_rate: must be a number, got 'fast'"),
        ("5.0e-6", "0", "r.yaml:19: train.learning_rate: must be greater than 0, got 0"),
        ("5.0e-6", ".nan", "r.yaml:19: train.learning_rate: must be finite, got nan"),
        ("5.0e-6", ".inf", "r.yaml:19: train.learning_rate: must be finite, got inf"),
        ("shuffle: true", "shuffle: yes", "r.yaml:23: train.shuffle: must be true or false, got 'yes'"),
        ("shuffle: true", "shuffle: 1", "r.yaml:23: train.shuffle: must be true or false, got 1"),
        (
            "output_dir: runs/mine",
            "output_dir: {a: 1}",
            "train.output_dir: must be text, not a mapping of keys, got {'a'",
        ),
        ("output_dir: runs/mine", "output_dir: 7", "r.yaml:16: train.output_dir: must be text; quote it, got 7"),
        ("train: rows.jsonl", "train: ''", "r.yaml:8: data.train: must not be empty, got ''"),
        ("[vision]", "vision", "r.yaml:6: model.freeze: must be a list, such as [a, b], got 'vision'"),
        ("[vision]", "[vison]", "r.yaml:6: model.freeze.0: 'vison' is not one of vision, projector, language; did you"),
        ("{rank: 32, alpha: 64, targets: all-linear}", "true", "r.yaml:5: model.lora: must be a mapping of keys, got"),
        ("  - {name: sft, weight: 0.1}", "  - sft", "r.yaml:14: objective.1: must be a mapping of keys, got 'sft'"),
        ("weight: 0.1", "weight: heavy", "r.yaml:14: objective.1.weight: must be a number, got 'heavy'"),
        ("name: sft", "nmae: sft", "r.yaml:14: objective.1.name: is missing and has no default; add it"),
    ],
)
def test_a_mistake_is_named_with_line_value_rule_and_way_out(load_changed, old, new, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_changed(old, new)


def test_several_mistakes_are_named_at_once(load_changed):
    with pytest.raises(ConfigError) as caught:
        load_changed("  shuffle: true\n  seed: 42", "  shufle: true\n  seed: many")
    assert str(caught.value).splitlines() == [
        "r.yaml:24: train.seed: must be a whole number, got 'many'",
        "r.yaml:23: train.shufle: unknown key; did you mean 'shuffle'?",
    ]


def test_a_missing_section_is_named():
    with pytest.raises(ConfigError, match="recipe: train: is missing and has no default; add it"):
        from_values({key: value for key, value in SMALLEST.items() if key != "train"})


def check_only_beta(specs):
    """Stands in for the objectives' own check: knows beta only, and that sft needs no reference."""
    for spec in specs:
        for name in set(spec) - {"name", "weight", "beta"}:
            raise ConfigError(f"unknown option {name!r}; did you mean 'beta'?")
    return {"reference"} if any(spec["name"] != "sft" for spec in specs) else set()


def test_the_objectives_own_check_gets_a_line(load_changed):
    with pytest.raises(ConfigError, match=re.escape("r.yaml:13: objective.0.bta: unknown option 'bta'; did you mean")):
        load_changed("beta: 0.1", "bta: 0.1", check_objectives=check_only_beta)


def test_a_reference_that_no_objective_reads_is_refused(load_changed):
    with pytest.raises(
        ConfigError, match=r"r\.yaml:4: model\.reference: objective sft \+ sft compares with no reference"
    ):
        load_changed("{name: dpo, beta: 0.1}", "{name: sft}", check_objectives=check_only_beta)


def test_the_json_schema_describes_every_key():
    schema = json.loads(json_schema())
    assert " ".join(schema["properties"]) == "recipe model engine vision data objective train stages"
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        key for section in sections for key, value in section["properties"].items() if "description" not in value
    ]
    assert undescribed == []
