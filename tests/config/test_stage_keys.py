"""Stages of a recipe: what each of them becomes, and the message for every mistake."""

import pytest

from mmalign.config.load import dump, loads
from mmalign.config.stages import stages_of
from mmalign.errors import ConfigError
from mmalign.recipes.configuration import needs_of

RECIPE = """\
recipe: preference
model:
  path: base
  lora: {rank: 16}
data:
  train: rows.jsonl
objective:
  - {name: dpo, beta: 0.1}
train:
  output_dir: runs/x
  learning_rate: 5.0e-6
  warmup_ratio: 0.1
stages:
  - name: sft
    recipe: sft
    train: {learning_rate: 1.0e-4}
  - name: easy
    data: {select: {score_gap: {above: 2}}}
  - name: hard
    data: {select: {score_gap: {at_most: 2}}}
    adapter: keep
"""


def stages(old="", new="", first=None):
    assert not old or RECIPE.count(old) == 1, f"{old!r} stands {RECIPE.count(old)} times in the recipe"
    return stages_of(loads(RECIPE.replace(old, new), source="r.yaml", check_objectives=needs_of), first)


def test_a_stage_is_an_ordinary_recipe_that_reads_back_equal():
    for stage in stages():
        assert stage.recipe.stages == ()
        assert loads(dump(stage.recipe)) == stage.recipe


def test_a_recipe_with_stages_reads_back_equal():
    recipe = loads(RECIPE)
    assert loads(dump(recipe)) == recipe
    assert stages_of(loads(dump(recipe))) == stages_of(recipe)


def test_what_a_stage_does_not_say_is_inherited():
    sft, easy, hard = (stage.recipe for stage in stages())
    assert [recipe.train.learning_rate for recipe in (sft, easy, hard)] == [1e-4, 5e-6, 5e-6]
    assert [recipe.train.warmup_ratio for recipe in (sft, easy, hard)] == [0.1, 0.1, 0.1]
    assert [recipe.data.train for recipe in (sft, easy, hard)] == ["rows.jsonl"] * 3
    assert (sft.data.select, easy.data.select.score_gap.above, hard.data.select.score_gap.at_most) == (None, 2, 2)


def test_a_stage_with_another_recipe_does_not_inherit_the_objective():
    sft, easy, _ = (stage.recipe for stage in stages())
    assert (sft.recipe, [spec.name for spec in sft.objective]) == ("sft", ["sft"])
    assert (easy.recipe, [spec.name for spec in easy.objective]) == ("preference", ["dpo"])


def test_a_selection_is_replaced_whole_and_other_sections_key_by_key():
    base = "data:\n  train: rows.jsonl\n  select: {difficulty: {at_most: 3}}\n  max_pixels: 9000\n"
    _, easy, _ = stages("data:\n  train: rows.jsonl\n", base)
    assert easy.recipe.data.select.difficulty is None
    assert easy.recipe.data.max_pixels == 9000


def test_a_length_in_steps_takes_the_place_of_inherited_epochs():
    _, easy, _ = stages("- name: easy\n", "- name: easy\n    train: {max_steps: 7, warmup_steps: 2}\n")
    train = easy.recipe.train
    assert (train.max_steps, train.num_train_epochs, train.warmup_steps, train.warmup_ratio) == (7, None, 2, None)


def test_stages_have_directories_in_order():
    assert [str(stage.directory) for stage in stages()] == [
        "runs/x/stages/1-sft",
        "runs/x/stages/2-easy",
        "runs/x/stages/3-hard",
    ]


def test_an_adapter_is_merged_into_the_next_start_or_goes_on():
    sft, easy, hard = stages(first="runs/x/start")
    assert (sft.recipe.model.path, sft.merges) == ("runs/x/start", None)
    assert easy.recipe.model.path == "runs/x/stages/2-easy/start"
    assert easy.merges == ("runs/x/start", "runs/x/stages/1-sft/final")
    assert (hard.recipe.model.path, hard.recipe.model.adapter, hard.merges) == (
        "runs/x/stages/2-easy/start",
        "runs/x/stages/2-easy/final",
        None,
    )


def test_an_adapter_is_merged_into_weights_of_the_type_it_was_trained_on():
    _, easy, _ = stages("  warmup_ratio: 0.1\n", "  warmup_ratio: 0.1\n  bf16: true\n")
    assert easy.merged_dtype == "bfloat16"
    assert stages()[1].merged_dtype == "float32"


def test_without_adapters_a_stage_starts_from_the_result_before():
    text = RECIPE.replace("  lora: {rank: 16}\n", "").replace("    adapter: keep\n", "    optimizer: kept\n")
    _, easy, hard = stages_of(loads(text))
    assert easy.recipe.model.path == "runs/x/stages/1-sft/final"
    assert easy.recipe.train.optimizer_from is None
    assert (hard.recipe.model.path, hard.recipe.train.optimizer_from) == (
        "runs/x/stages/2-easy/final",
        "runs/x/stages/2-easy",
    )


@pytest.mark.parametrize(
    ("start", "path"),
    [("first", "base"), ("some/model", "some/model"), ("sft", "runs/x/stages/3-hard/start")],
)
def test_a_stage_may_start_elsewhere(start, path):
    _, _, hard = stages("    adapter: keep\n", f"    start: {start}\n")
    assert hard.recipe.model.path == path
    assert (hard.merges is not None) == (start == "sft")


@pytest.mark.parametrize(
    ("reference", "model"),
    [
        ("stage_start", None),
        ("first_start", "base"),
        ("sft", "runs/x/stages/1-sft/final"),
        ("easy", None),  # what it starts from
        ("some/model", "some/model"),
    ],
)
def test_the_reference_is_named_by_a_word_a_stage_or_a_model(reference, model):
    _, _, hard = stages("    adapter: keep\n", f"    adapter: keep\n    reference: {reference}\n")
    assert hard.recipe.model.reference == model


def test_a_reference_of_the_recipe_is_inherited_by_stages_that_compare():
    sft, easy, hard = stages("  path: base\n", "  path: base\n  reference: judge\n")
    assert [stage.recipe.model.reference for stage in (sft, easy, hard)] == [None, "judge", "judge"]


def test_the_first_start_is_no_second_model_where_the_run_begins_there():
    text = RECIPE.replace("    recipe: sft\n", "    reference: first_start\n")
    assert stages_of(loads(text))[0].recipe.model.reference is None


MISTAKES = [
    ("learning_rate: 1.0e-4", "learning_rate: -1", "r.yaml:16: stages.0.train.learning_rate: must be greater than 0,"),
    ("learning_rate: 1.0e-4", "learning_rat: 1", "r.yaml:16: stages.0.train.learning_rat: unknown key; did you mean '"),
    ("above: 2", "abov: 2", "r.yaml:18: stages.1.data.select.score_gap.abov: unknown key; did you mean 'above'? (stag"),
    ("{above: 2}", "{}", "r.yaml:18: stages.1.data.select.score_gap: has no bound; give above, at_least, below or at_"),
    ("{above: 2}", "{above: 2, at_most: 2}", "stages.1.data.select.score_gap: above 2, at most 2 leaves no number; me"),
    ("{score_gap: {above: 2}}", "{}", "stages.1.data.select: selects by nothing; name one of pair, difficulty, score_"),
    ("name: hard", "name: sft", "r.yaml:19: stages.2.name: 'sft' names stage 1 too; take another name"),
    ("name: hard", "name: previous", "r.yaml:19: stages.2.name: 'previous' is a word of start and reference; take ano"),
    ("name: hard", "name: a/b", "r.yaml:19: stages.2.name: "),
    ("name: hard", "nmae: hard", "r.yaml:19: stages.2.nmae: unknown key; did you mean 'name'?"),
    ("recipe: sft", "start: previous", "r.yaml:15: stages.0.start: 'previous', but no stage stands before; remove it,"),
    ("recipe: sft", "start: hard", "r.yaml:15: stages.0.start: 'hard' comes later, or is the stage itself; name a sta"),
    ("recipe: sft", "recipe: sft\n    reference: first_start", "r.yaml:16: stages.0.reference: recipe 'sft' uses no r"),
    ("recipe: sft", "adapter: merge", "r.yaml:15: stages.0.adapter: 'merge', but no adapter was trained by what it st"),
    ("recipe: sft", "optimizer: kept", "r.yaml:15: stages.0.optimizer: 'kept', but it starts from no stage whose opti"),
    ("recipe: sft", "recipe: sft\n    objective: [{name: dpo}]", "stages.0.objective.0.name: recipe 'sft' cannot trai"),
    ("adapter: keep", "optimizer: kept", "r.yaml:21: stages.2.optimizer: 'kept' needs weights that go on, and a merge"),
    ("adapter: keep", "adapter: keep\n    model: {lora: {rank: 8}}", "stages.2.adapter: 'keep' goes on with lora.rank"),
    ("adapter: keep", "adapter: keep\n    model: {lora: null}", "stages.2.adapter: 'keep' needs model.lora, which thi"),
    (
        "adapter: keep",
        "adapter: keep\n    optimizer: kept\n    model: {freeze: [vision]}",
        "stages.2.optimizer: 'kept' needs the trained weights of stage 'easy'; leave model.lora and model.freeze as th",
    ),
    ("adapter: keep", "model: {path: x}", "r.yaml:21: stages.2.model.path: write `start:` in the stage: previous, fir"),
    ("adapter: keep", "model: {reference: x}", "stages.2.model.reference: write `reference:` in the stage: stage_star"),
    ("adapter: keep", "model: {adapter: x}", "stages.2.model.adapter: write `adapter: keep` in the stage to go on wit"),
    ("adapter: keep", "train: {output_dir: x}", "stages.2.train.output_dir: a stage has its directory below that of t"),
    ("adapter: keep", "train: {optimizer_from: x}", "stages.2.train.optimizer_from: write `optimizer: kept` in the st"),
    ("adapter: keep", "objective: [{name: dpo, bta: 1}]", "r.yaml:21: stages.2.objective.0.bta: dpo: unknown option '"),
    (
        "adapter: keep",
        "reference: stage_start\n    objective: [{name: simpo}]",
        "r.yaml:21: stages.2.reference: objective simpo compares with no reference; remove this key, or use one that d",
    ),
    (
        "adapter: keep",
        "objective: [{name: mdpo}, {name: dckd}]\n    model: {teacher: {path: big}}",
        "r.yaml:21: stages.2.objective: mdpo reads rows under changed media, and dckd a teacher's table",
    ),
    ("adapter: keep", "start: esay", "r.yaml:21: stages.2.start: 'esay' is no stage before; did you mean 'easy'? (wri"),
    (
        "adapter: keep",
        "reference: first_strat",
        "stages.2.reference: 'first_strat' is no stage before; did you mean 'f",
    ),
    ("lora: {rank: 16}", "lora: {rank: 16}\n  quantize: 4bit", "stages.1.adapter: an adapter on weights in 4bit canno"),
    ("recipe: preference", "recipe: sft\nobjective: [{name: sft}]", "r.yaml:8: objective: stands twice"),
    ("{score_gap: {above: 2}}", "{pair: 0}", "stages.1.data.select.pair: must be at least 1, got 0"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES, ids=[message[:60] for _, _, message in MISTAKES])
def test_a_mistake_is_named_with_line_stage_and_key(old, new, message):
    with pytest.raises(ConfigError) as caught:
        stages(old, new)
    assert message in str(caught.value)


def test_a_mistake_of_a_stage_names_the_stage():
    with pytest.raises(ConfigError, match=r"got -1 \(stage 'sft'\)$"):
        stages("learning_rate: 1.0e-4", "learning_rate: -1")


def test_a_preference_stage_of_an_sft_recipe_names_its_objective():
    text = RECIPE.replace("recipe: preference", "recipe: sft").replace("objective:\n  - {name: dpo, beta: 0.1}\n", "")
    text = text.replace("    recipe: sft\n", "").replace("  - name: easy\n", "  - name: easy\n    recipe: preference\n")
    with pytest.raises(ConfigError, match="stages.1.objective: recipe 'preference' needs at least one; add `- {name"):
        loads(text)


def test_relabelling_options_are_checked_with_the_recipe():
    for new, message in [
        ("[{how: swp}]", "r.yaml:7: data.relabel.0.how: how 'swp' is no relabelling; did you mean 'swap'?"),
        ("[{how: nxn, most_uses: 0}]", "r.yaml:7: data.relabel.0.most_uses: most_uses must be a whole number from 1"),
        ("[{how: swap, seed: 1}]", "r.yaml:7: data.relabel.0.seed: seed is no option of 'swap'; it has none"),
    ]:
        with pytest.raises(ConfigError) as caught:
            stages("  train: rows.jsonl\n", f"  train: rows.jsonl\n  relabel: {new}\n")
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("key", "objective"),
    [
        ("reference_update: {kind: sync, every_steps: 8}", "{name: dpo}"),
        ("teacher: {path: big}", "{name: dckd}"),
        ("token_reward: judge", "{name: sail}"),
    ],
)
def test_an_sft_stage_leaves_out_what_only_preferences_read(key, objective):
    text = RECIPE.replace("  path: base\n", f"  path: base\n  {key}\n").replace("{name: dpo, beta: 0.1}", objective)
    sft, easy, _ = stages_of(loads(text, check_objectives=needs_of))
    name = key.split(":")[0]
    assert getattr(sft.recipe.model, name) is None
    assert getattr(easy.recipe.model, name) is not None


def test_teachers_and_reward_models_may_be_results_of_stages_before():
    taught = "    adapter: keep\n    model: {teacher: {path: easy, contrast: sft}}\n    objective: [{name: adpa}]\n"
    teacher = stages("    adapter: keep\n", taught)[2].recipe.model.teacher
    assert (teacher.path, teacher.contrast) == ("runs/x/stages/2-easy/final", "runs/x/stages/1-sft/final")
    rewarded = "    adapter: keep\n    model: {token_reward: easy}\n    objective: [{name: sail}]\n"
    assert stages("    adapter: keep\n", rewarded)[2].recipe.model.token_reward == "runs/x/stages/2-easy/final"


def test_an_adapter_to_go_on_with_needs_its_settings():
    with pytest.raises(ConfigError, match="model.adapter: goes on with an adapter, but model.lora is missing"):
        loads(RECIPE[: RECIPE.index("stages:")].replace("  lora: {rank: 16}\n", "  adapter: a\n"))
