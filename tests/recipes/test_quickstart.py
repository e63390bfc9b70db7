"""The quickstart from its first line to its last, in seconds: what it writes, what it says, what it refuses."""

from __future__ import annotations

import json

import pytest
import yaml

from mmalign.errors import ConfigError
from mmalign.evaluate import captions
from mmalign.miniature import shapes
from mmalign.recipes import quickstart, quickstart_recipes, quickstart_story
from mmalign.recipes.configuration import load_recipe
from mmalign.recipes.quickstart_story import MODELS, Findings

SMALL = {"SFT_PICTURES": 24, "FRESH_PICTURES": 8, "HELD_OUT_PICTURES": 6}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A quickstart of few steps; it learns nothing, but goes all the way."""
    place = tmp_path_factory.mktemp("runs") / "quickstart"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(quickstart, name, value)
        patch.setattr(quickstart_recipes, "SFT_STEPS", 2)
        patch.setattr(quickstart_recipes, "ALIGN_STEPS", 2)
        patch.setattr(quickstart_recipes, "PHOTOGRAPH_STEPS", 2)
        return place, quickstart.run(place, seed=3, threads=1)


def test_summary_holds_every_figure_before_and_after_with_its_interval(told):
    place, summary = told
    assert json.loads((place / "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert set(summary["models"]) == {model.name for model in MODELS}
    for name, facts in summary["models"].items():
        for figures in (facts["metrics"], facts["change_from_sft"]) if name != "sft" else (facts["metrics"],):
            assert set(figures) == set(captions.METRICS)
            assert all(set(interval) == {"mean", "low", "high"} for interval in figures.values())
    assert set(summary["seconds"]) == {
        "world",
        "sft",
        "own_mistakes",
        "alignment",
        "evaluation",
        "photographs",
        "total",
    }


def test_every_training_run_is_a_recipe_file_that_loads_again(told):
    place, _ = told
    recipes = {path.stem: load_recipe(path) for path in place.glob("*.yaml")}
    assert set(recipes) == {*(model.name for model in MODELS), "photographs"}
    assert [spec.name for spec in recipes["aligned"].objective] == ["dpo", "sft"]
    assert [spec.name for spec in recipes["dpo_alone"].objective] == ["dpo"]
    steps = {name: recipe.train.max_steps for name, recipe in recipes.items() if name not in ("sft", "photographs")}
    assert len(set(steps.values())) == 1


def test_preference_rows_put_the_truth_before_the_models_own_words(told):
    place, summary = told
    rows = [json.loads(line) for line in (place / "rows" / "own_mistakes.jsonl").read_text().splitlines()]
    assert len(rows) == summary["preference_rows"] > 0
    for row in rows:
        assert shapes.parse_caption(row["chosen"][0]["content"][0]["text"]).well_formed
        assert row["chosen"] != row["rejected"]


def test_report_is_one_page_with_pictures_of_both_answers(told):
    place, _ = told
    page = (place / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "before" in page and "after" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_quickstart_replaces_the_first_and_nothing_else(told, tmp_path):
    place, _ = told
    fresh = quickstart._fresh(tmp_path / "again")
    (fresh / "old.txt").write_text("x")
    assert sorted(path.name for path in quickstart._fresh(fresh).iterdir()) == [quickstart.MARKER, "rows"][::-1]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="is not empty and no quickstart wrote it; name another directory"):
        quickstart._fresh(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert (place / "report.html").exists()


def test_missing_photographs_are_said_not_hidden(tmp_path, monkeypatch, capsys):
    from rich.console import Console

    from mmalign.miniature import photographs

    monkeypatch.setattr(photographs, "folder", lambda: None)
    (tmp_path / "rows").mkdir()
    said = quickstart._photographs(tmp_path, 0, 1, Console(width=200))
    assert said["rows"] == 0
    assert "scikit-image, which brings the photographs, is not installed" in capsys.readouterr().out


def findings_with(**hallucination):
    """Findings in which every model describes 40 pictures and hallucinates on the given share of them."""
    values = {}
    for name in (model.name for model in MODELS):
        share = hallucination.get(name, 0.5)
        wrong = [index < 40 * share for index in range(40)]
        values[name] = captions.score(
            [["cat", "fox"] if is_wrong else ["cat"] for is_wrong in wrong],
            [["cat"]] * 40,
            phantoms=["fox"] * 40,
            well_formed=[True] * 40,
        )
    return Findings.of(values)


def test_conclusions_follow_the_figures_whatever_they_are():
    cured = " ".join(quickstart_story.conclusions(findings_with(aligned=0.1, truth_sft=0.0)))
    assert "own mistakes lower the share of hallucinating captions: 50% of the captions" in cured
    assert "then 10% (-40 points" in cured
    assert "annotator's captions do not measurably change the share" in cured
    assert "reaches 0%, below the aligned model's 10%" in cured
    failed = " ".join(quickstart_story.conclusions(findings_with(aligned=0.9, more_sft=0.1, truth_sft=0.95)))
    assert "own mistakes raise the share" in failed
    assert "annotator's captions lower the share" in failed
    assert "reaches 95%, not below the aligned model's 90%" in failed


def test_recipes_name_the_keys_a_user_would_write(tmp_path):
    path = quickstart_recipes.photographs(tmp_path, seed=1, threads=2)
    values = yaml.safe_load(path.read_text())
    assert list(values) == ["recipe", "model", "data", "objective", "train"]
    assert values["model"]["freeze"] == ["vision"]
    assert path.read_text().startswith("# The way for your own data")


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0])
def test_the_cure_is_unmistakable(tmp_path, seed):
    models = quickstart.run(tmp_path / "quickstart", seed=seed)["models"]
    cured, more, truth = (models[name]["change_from_sft"] for name in ("aligned", "more_sft", "truth_sft"))
    assert models["sft"]["metrics"]["hallucination"]["mean"] > 0.4
    assert cured["hallucination"]["high"] < -0.2
    assert cured["recall"]["low"] > -0.1
    assert more["hallucination"]["low"] > -0.1
    assert truth["hallucination"]["high"] < -0.2
