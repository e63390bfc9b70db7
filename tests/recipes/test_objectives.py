"""`mmalign objectives`: every preset has its line, and its page says what a recipe needs to know."""

from io import StringIO

import pytest
from rich.console import Console

from mmalign.errors import ConfigError
from mmalign.objectives.presets import PRESETS
from mmalign.recipes.objectives import show


def printed(name=None, width=120):
    out = StringIO()
    show(name, Console(file=out, width=width, highlight=False))
    return out.getvalue()


def words(name=None, width=400):
    return " ".join(printed(name, width).split())


def test_every_preset_has_a_line_with_what_it_does_and_its_paper():
    lines = [line.split() for line in printed().splitlines()]
    named = {line[0]: " ".join(line) for line in lines if line and line[0] in PRESETS}
    assert set(named) == set(PRESETS)
    assert "the log-ratio of the better response must lead" in named["dpo"]
    assert named["dpo"].endswith("arXiv:2305.18290")
    assert named["sail"].endswith("SAIL 2025")


@pytest.mark.parametrize("name", PRESETS)
def test_a_page_has_formula_source_departures_and_every_option_with_its_default(name):
    preset, text = PRESETS[name], words(name)
    for said in (preset.formula, preset.source, preset.says, *preset.departures):
        assert " ".join(said.split()) in text
    rows = [line.split()[:2] for line in printed(name, 400).splitlines() if line.split()]
    for option, default in preset.options.items():
        shown = str(default).lower() if isinstance(default, bool) else str(default).replace("'", "")
        assert [option, shown] in rows


def test_a_page_says_what_the_objective_reads():
    assert "rows of 2 or more ranked responses; log-probs under a reference model" in words("dpo")
    assert "rows of 3 or more ranked responses; no reference model" in words("tpo")
    assert "the best response of a row; no reference model" in words("sft")
    judged = "an answer judged good or bad, or the best and the worst of a list; log-probs under a reference model"
    assert judged in words("kto")
    assert "all responses of a row" in words("dckd")
    assert "rows with media, computed once more under changed media" in words("mdpo")
    assert "rows with media, computed once more under changed media" in words("symmpo")
    assert "rows with media" not in words("dpo")
    assert "the whole optimiser step, on all ranks" in words("aot")
    assert "the steps before (kept in checkpoints)" in words("bco")
    assert "how sharp the policy's predictions are" in words("wpo")


def test_a_page_is_not_cut_on_a_narrow_terminal():
    for name, preset in PRESETS.items():
        facts = " ".join(printed(name, 80).replace("│", " ").split())
        assert " ".join(preset.says.split()) in facts


def test_a_name_of_trl_leads_to_our_page():
    assert words("sigmoid_norm") == words("dpo_norm")
    assert "also called sigmoid_norm" in words("dpo_norm")
    assert "weight of the likelihood of the best response; also cpo_alpha" in words("cpo")


def test_the_recipe_at_the_end_of_a_page_can_be_used():
    import yaml

    from mmalign.objectives.compose import build

    for name, preset in PRESETS.items():
        recipe = yaml.safe_load(printed(name)[printed(name).index("objective:") :])
        assert build(recipe["objective"]).description == build([{"name": preset.name}]).description


def test_a_page_fits_a_narrow_terminal():
    assert max(len(line) for line in printed("dpo", 80).splitlines()) <= 80
    assert max(len(line) for line in printed(width=80).splitlines()) <= 80


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown objective 'aott'; did you mean 'aot'"):
        show("aott")
