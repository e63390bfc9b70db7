"""`docs/papers.md` has one row per preset and states paper, formula and defaults as they are."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmalign.config.load import load_any
from mmalign.objectives.options import described
from mmalign.objectives.presets import ALIASES, PRESETS

REPOSITORY = Path(__file__).parents[2]
PAPERS = (REPOSITORY / "docs" / "papers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_row_with_paper_formula_and_defaults(name):
    preset = PRESETS[name]
    rows = [line for line in PAPERS.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    assert preset.formula.replace("|", "\\|") in rows[0]
    assert described(SimpleNamespace(**preset.options)) in rows[0]
    for number in re.findall(r"\d{4}\.\d{5}", preset.source):
        assert f"https://arxiv.org/abs/{number}" in rows[0]


def test_names_of_other_programs_are_listed():
    for name in [*ALIASES, *{option for preset in PRESETS.values() for option in preset.also}]:
        assert f"`{name}`" in PAPERS


def test_every_recipe_of_objectives_is_listed_with_them():
    """Stages stand in a table of their own; recipes of accelerate have no objective."""
    section = PAPERS.split("## Configs\n")[1].split("\n## ")[0]
    listed = {path: names.split(", ") for path, names in re.findall(r"`([^`]+\.yaml)` \(([^)]+)\)", section)}
    configs = REPOSITORY / "configs"
    recipes = {path: load_any(path) for path in configs.rglob("*.yaml") if path.parent.name != "accelerate"}
    written = {
        str(path.relative_to(configs)): [spec.name for spec in recipe.objective]
        for path, recipe in recipes.items()
        if getattr(recipe, "recipe", None) == "preference" and not recipe.stages
    }
    assert listed == written
