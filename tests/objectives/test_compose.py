"""Building an objective from a recipe, what it says about itself, and every mistake a recipe can make."""

from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch

from mmalign.errors import ConfigError
from mmalign.objectives.compose import build
from mmalign.objectives.options import OPTIONS
from mmalign.objectives.pairwise import PairRule
from mmalign.objectives.presets import PRESETS


def test_the_issue_s_objective_describes_itself():
    objective = build([{"name": "dpo", "beta": 0.1}, {"name": "sft", "weight": 0.1}])
    assert objective.description == "dpo(beta=0.1, pairs=all) + 0.1 * sft(normalise=token)"
    assert objective.needs_reference


def test_only_these_need_no_reference():
    free = {name for name in PRESETS if not build([{"name": name}]).needs_reference}
    of_sides = {"simpo", "alphapo", "cpo", "cpo_simpo", "orpo", "tpo", "tpo_l", "sft"}
    lists, taught = {"pro", "knowpat", "rrhf"}, {"dckd", "adpa", "aligndistil", "nextquill"}
    assert free == of_sides | lists | taught | {"poft"}


def test_calling_without_the_reference_it_needs_is_an_error():
    policy, _, facts = random_batch()
    with pytest.raises(ValueError, match=r"dpo\(beta=0.1, pairs=all\).*needs log-probs of a reference"):
        build([{"name": "dpo"}])(policy, None, facts)


def test_responses_read_say_what_a_row_teaches():
    sft, pairs = build([{"name": "sft"}]), build([{"name": "dpo", "pairs": "best_worst"}])
    both = build([{"name": "dpo", "pairs": "best_worst"}, {"name": "sft"}])
    assert sft.responses_read((0, 1, 2)) == (0,)
    assert pairs.responses_read((0, 1, 2)) == (0, 2)
    assert pairs.responses_read((0,)) == pairs.responses_read((0, 0)) == ()
    assert both.responses_read((0,)) == (0,)


def test_counts_come_from_the_batch_alone():
    facts = facts_of([(0, 1), (0, 0)], weight=[2.0, 3.0])
    counts = build([{"name": "orpo"}]).counts(facts, torch.tensor([[3, 5], [7, 2]]))
    assert {name: value.tolist() for name, value in counts.items()} == {"orpo": [2.0, 0.0], "orpo_nll": [6.0, 21.0]}


def test_the_same_preset_twice_gets_two_names():
    objective = build([{"name": "dpo", "beta": 0.1}, {"name": "dpo", "beta": 0.5}, {"name": "dpo", "beta": 0.9}])
    assert [named.name for named in objective.parts] == ["dpo", "dpo_2", "dpo_3"]


def test_parts_have_names_of_their_own_where_a_preset_has_none_without_a_suffix():
    names = [named.name for named in build([{"name": "dckd"}, {"name": "dckd", "chosen_weight": 0.0}]).parts]
    assert names == ["dckd_chosen", "dckd_rejected", "dckd_nll", "dckd_2_rejected", "dckd_2_nll"]


def described(value):
    """Return what a part is made of, functions by what they hold, so that equal options give equal values."""
    if is_dataclass(value):
        return type(value).__name__, [(field.name, described(getattr(value, field.name))) for field in fields(value)]
    if isinstance(value, partial):
        return described(value.func), described(value.args), described(value.keywords)
    if isinstance(value, FunctionType):
        held = [described(cell.cell_contents) for cell in value.__closure__ or ()]
        return value.__qualname__, held, described(value.__defaults__), described(value.__kwdefaults__)
    if isinstance(value, PairRule):
        return type(value).__name__, described(vars(value))
    if isinstance(value, (tuple, list)):
        return [described(one) for one in value]
    return {key: described(one) for key, one in value.items()} if isinstance(value, dict) else value


def another(name, value):
    """Return a value of the option that is not `value`."""
    candidates = (not value if isinstance(value, bool) else None, 0.25, 0.75, 2.0, 3, "another", ["another"])
    words = [word.strip() for word in OPTIONS[name].rule.removeprefix("one of ").split(",")]
    return next(one for one in (*candidates, *words) if one != value and OPTIONS[name].broken(one) is None)


@pytest.mark.parametrize("name", PRESETS)
def test_every_option_changes_what_a_preset_is_made_of(name):
    def parts(**options):
        made = build([{"name": name, **options}]).parts
        return [(part.name, part.weight, described(part.part)) for part in made]

    assert parts() == parts()
    for option, value in PRESETS[name].options.items():
        given = dict([OPTIONS[option].only_if]) if OPTIONS[option].only_if else {}
        assert parts(**given, **{option: another(option, value)}) != parts(**given), option


@pytest.mark.parametrize(
    ("name", "option"), [("cream", "label_smoothing"), ("crm", "use_weighting"), ("scir", "use_weighting")]
)
def test_an_option_whose_place_a_rule_takes_is_refused(name, option):
    with pytest.raises(ConfigError, match=f"{name}: option '{option}' makes no sense here"):
        build([{"name": name, option: 0.1}])


def test_a_preset_without_a_main_part_has_names_of_its_own_the_second_time():
    names = [part.name for part in build([{"name": "dckd"}, {"name": "dckd", "chosen_weight": 2.0}]).parts]
    assert len(set(names)) == 6
    assert names[3:] == ["dckd_2_chosen", "dckd_2_rejected", "dckd_2_nll"]


def test_a_preset_whose_weights_are_all_0_is_refused_by_name():
    nothing = {"name": "dckd", "chosen_weight": 0, "rejected_weight": 0, "sft_weight": 0}
    with pytest.raises(ConfigError, match=r"^objective\[1\] dckd: all its weights are 0, so it teaches nothing; set"):
        build([{"name": "sft"}, nothing])


def test_metrics_have_the_same_names_on_every_batch():
    objective = build([{"name": "dpo"}, {"name": "sft"}])
    some = objective(*random_batch()[:2], random_batch()[2]).metrics
    policy = logps_of([[(-6.0, 3)]])
    none = objective(policy, policy, facts_of([(0,)])).metrics
    assert set(some) == set(none)
    assert none["rewards/margins"].count == 0


def test_metrics_of_a_list_by_hand():
    """Rewards 1, 3, 0 for a > b > c: the pair ab is wrong, ac and bc are right."""
    policy, zero = logps_of([[(-2.0, 2), (0.0, 1), (-3.0, 7)]]), logps_of([[(-3.0, 2), (-3.0, 1), (-3.0, 7)]])
    metrics = build([{"name": "dpo", "beta": 1.0}])(policy, zero, facts_of([(0, 1, 2)])).metrics
    values = {name: (ratio.total / ratio.count).item() for name, ratio in metrics.items()}
    assert values["rewards/accuracies"] == pytest.approx(2 / 3)
    assert values["rewards/chosen"] == pytest.approx((1 + 1 + 3) / 3)
    assert values["rewards/rejected"] == pytest.approx((3 + 0 + 0) / 3)
    assert values["rewards/margins"] == pytest.approx((-2 + 1 + 3) / 3)
    assert values["logps/chosen"] == pytest.approx((-2 - 2 + 0) / 3)
    assert values["lengths/rejected"] == pytest.approx((1 + 7 + 7) / 3)
    assert values["lengths/chosen_longer"] == pytest.approx(1 / 3)


def test_an_sft_run_logs_no_rewards():
    output = build([{"name": "sft"}])(logps_of([[(-6.0, 3)], [(-4.0, 1)]]), None, facts_of([(0,), (0,)]))
    assert output.rewards is None
    assert {name: (ratio.total / ratio.count).item() for name, ratio in output.metrics.items()} == {
        "loss/sft": pytest.approx(2.5),
        "logps/chosen": pytest.approx(-5),
        "lengths/chosen": pytest.approx(2),
    }


MISTAKES = [
    ([], "objective is empty; name at least one of dpo"),
    ([{"beta": 0.1}], "name is missing .*it is one of dpo"),
    ([{"name": "dop"}], "unknown objective 'dop'; did you mean 'dpo'\\?"),
    ([{"name": "DPO"}], "did you mean 'dpo'"),
    ([{"name": "dpo", "betta": 0.1}], "dpo: unknown option 'betta'; did you mean 'beta'\\?"),
    (
        [{"name": "sft"}, {"name": "dpo", "tau": 0.1}],
        r"objective\[1\] dpo: unknown option 'tau'\. It has: weight, beta",
    ),
    ([{"name": "dpo", "beta": 0}], r"dpo: option 'beta' must be a number above 0 \(got 0\)"),
    ([{"name": "dpo", "beta": float("nan")}], "option 'beta' must be a number above 0"),
    ([{"name": "dpo", "beta": True}], "option 'beta' must be a number above 0"),
    ([{"name": "dpo", "beta": "1e-1"}], "YAML reads 1e-1 as text, write it with a point"),
    ([{"name": "sigmoid", "label_smoothing": 0.1}], "'label_smoothing' makes no sense here: TRL.*write name: cdpo"),
    ([{"name": "aot", "use_weighting": True}], "'use_weighting' makes no sense here, nothing would read it"),
    ([{"name": "bco_pair", "f_divergence_type": "forward_kl"}], "'f_divergence_type' makes no sense here.*read by dpo"),
    (
        [{"name": "dpo", "f_alpha_divergence_coef": 0.3}],
        "'f_alpha_divergence_coef' is read only with f_divergence_type: alpha_divergence .*got f_divergence_type: rev",
    ),
    ([{"name": "dpo", "f_divergence_type": "kl"}], "must be one of reverse_kl, forward_kl, js_div"),
    ([{"name": "dpo", "ld_alpha": 1.5}], "option 'ld_alpha' must be a number at least 0 and at most 1 .*got 1.5"),
    ([{"name": "dpo", "use_weighting": 1}], "option 'use_weighting' must be true or false .*got 1"),
    ([{"name": "exo_pair", "label_smoothing": 0}], "exo_pair: option 'label_smoothing' must be a number above 0"),
    ([{"name": "cpo", "cpo_alpha": 1, "sft_weight": 2}], "is another name of 'sft_weight', and both are given"),
    ([{"name": "sigmiod"}], "did you mean 'sigmoid'"),
    ([{"name": "robust", "label_smoothing": 0.5}], "must be a number at least 0 and below 0.5 .*got 0.5"),
    ([{"name": "simpo", "gamma": -1}], "option 'gamma' must be a number at least 0"),
    ([{"name": "dpo", "gamma": 1.0}], "'gamma' makes no sense here, nothing would read it; it is read by simpo"),
    ([{"name": "dpo", "sft_weight": 1.0}], "'sft_weight' makes no sense here.*it is read by rpo, mpo, cpo"),
    ([{"name": "sft", "beta": 0.1}], "'beta' makes no sense here.*it is read by dpo, cdpo, .*, \\.\\.\\."),
    ([{"name": "dpo", "pairs": "best-worst"}], "option 'pairs' must be one of all.*did you mean 'best_worst'"),
    ([{"name": "mdpo", "contrast": ["crop"]}], r"option 'contrast' must be one of crop, .*got \['crop'\]"),
    ([{"name": "dpo", "f_divergence_type": ["reverse_kl"]}], "option 'f_divergence_type' must be one of reverse_kl"),
    ([{"name": "dpo", "weight": 0}], "option 'weight' must be a number above 0.*to switch it off, remove it"),
]


@pytest.mark.parametrize(("specs", "message"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_named_with_its_way_out(specs, message):
    with pytest.raises(ConfigError, match=message):
        build(specs)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_where_it_comes_from(name):
    preset = PRESETS[name]
    assert preset.name == name
    assert preset.source
    assert preset.formula
    assert preset.says
    assert set(preset.options) <= set(OPTIONS)
    assert set(preset.also.values()) <= set(preset.options)


TRL_NAMES = [
    ({"name": "sigmoid"}, {"name": "dpo"}),
    ({"name": "sigmoid_norm", "beta": 0.3}, {"name": "dpo_norm", "beta": 0.3}),
    ({"name": "exo_pair", "label_smoothing": 0.01}, {"name": "exo", "epsilon": 0.01}),
    ({"name": "nca_pair"}, {"name": "nca"}),
    ({"name": "tpo-l", "tpo_alpha": 0.5, "tpo_l_gamma": 0.2}, {"name": "tpo_l", "sft_weight": 0.5, "gamma": 0.2}),
    ({"name": "simpo", "simpo_gamma": 0.5}, {"name": "simpo", "gamma": 0.5}),
    ({"name": "cpo", "cpo_alpha": 0.5}, {"name": "cpo", "sft_weight": 0.5}),
    ({"name": "rpo", "rpo_alpha": 0.5}, {"name": "rpo", "sft_weight": 0.5}),
]


@pytest.mark.parametrize(("theirs", "ours"), TRL_NAMES, ids=str)
def test_names_of_trl_stand_for_ours(theirs, ours):
    assert build([theirs]).description == build([ours]).description


def test_what_changes_nothing_is_not_described():
    quiet = {"label_smoothing": 0.0, "ld_alpha": 1.0, "use_weighting": False, "f_divergence_type": "reverse_kl"}
    assert build([{"name": "dpo", **quiet}]).description == "dpo(beta=0.1, pairs=all)"
    loud = {"label_smoothing": 0.1, "f_divergence_type": "alpha_divergence"}
    assert build([{"name": "dpo", **loud}]).description == (
        "dpo(beta=0.1, pairs=all, label_smoothing=0.1, f_divergence_type=alpha_divergence, f_alpha_divergence_coef=0.5)"
    )
