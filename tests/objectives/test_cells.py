"""Objectives under changed media, by hand.

better: S = -6 of 3 tokens, reference -7        R_w = +1      in the view  -8, reference -7.5    R(w | c) = -0.5
worse:  S = -5 of 5 tokens, reference -3        R_l = -2      in the view  -4, reference -6      R(l | c) = +2
last:   S = -4 of 2 tokens, reference -4.25     R_o = +0.25   in the view  -3, reference -5      R(o | c) = +2
"""

from dataclasses import replace
from math import exp, log, log1p

import pytest
import torch
from objectives.batches import VIEWS, facts_of, logps_of, random_batch, step_loss, with_views

from mmalign.engine.views import contrasted
from mmalign.errors import ConfigError
from mmalign.objectives.compose import build

VISUAL = ("mdpo", "chip", "povid", "v_dpo", "symmpo", "vista_dpo", "mixed_image")
SIDES = [(-6.0, 3), (-5.0, 5), (-4.0, 2)]
POLICY = with_views(logps_of([SIDES]), logps_of([[(-8.0, 3), (-4.0, 5), (-3.0, 2)]]))
REFERENCE = with_views(logps_of([[(-7.0, 3), (-3.0, 5), (-4.25, 2)]]), logps_of([[(-7.5, 3), (-6.0, 5), (-5.0, 2)]]))
TRIPLE = facts_of([(0, 1, 2)])


def nls(margin):
    """Minus log sigmoid."""
    return log1p(exp(-margin))


def first_two(logps):
    """Return the pair without the last response."""
    return logps.mapped(lambda value: value[:, :2])


def loss_of(spec, *, triple=False):
    if triple:
        return step_loss(build([spec]), POLICY, REFERENCE, TRIPLE).item()
    return step_loss(build([spec]), first_two(POLICY), first_two(REFERENCE), facts_of([(0, 1)])).item()


BY_HAND = [
    ({"name": "mdpo", "beta": 0.5}, nls(1.5) + nls(0.5 * 1.5) + nls(0.5)),
    ({"name": "mdpo", "beta": 0.5, "anchor": 0.2, "visual_weight": 0.0}, nls(1.5) + nls(0.5 - 0.2)),
    ({"name": "mdpo", "beta": 0.5, "anchor_weight": 3.0}, nls(1.5) + nls(0.75) + 3 * nls(0.5)),
    # every token differs, so all are edited: u = 2
    ({"name": "chip", "beta": 0.5, "edit_weight": 2.0}, nls(0.5 * 2 * (3 + 1.5))),
    # n = S - S_ref of the tokens that the view makes likeliest, which here score as the view does
    ({"name": "povid", "beta": 0.5, "visual_share": 0.25}, 0.75 * nls(1.5) + 0.25 * nls(0.75)),
    # G_w = 1.5 (-6) - 0.5 (-8) + 7 = 2,  G_l = 1.5 (-5) - 0.5 (-4) + 3 = -2.5
    ({"name": "v_dpo", "beta": 0.5}, nls(0.5 * 4.5)),
    ({"name": "v_dpo", "beta": 0.5, "visual_weight": 2.0}, nls(0.5 * 4.5) + 2 * nls(0.5 * 1.5)),
    # of a pair the last response is the worse one
    ({"name": "mixed_image", "beta": 0.5}, nls(0.5 * (1 - 2))),
    ({"name": "mixed_image", "beta": 0.5, "other_text": "chosen"}, nls(0.5 * 1.5)),
]
BY_HAND_OF_THREE = [
    # d_1 = 1 - 0.25,  d_2 = 2 + 0.5
    (
        {"name": "symmpo", "beta": 0.5, "anchor_beta": 0.2, "margin_weight": 0.1},
        nls(1.5) + 0.5 * (nls(0.375) + nls(1.25)) + nls(0.2) + nls(0.4) + 0.1 * 1.75**2,
    ),
    # clip_w and clip_l, frame with and without its box are the same view here: margins 0
    (
        {"name": "vista_dpo", "beta": 0.5},
        nls(0.5 * (1 + 0.7 * 2 - 0.3 * 0.25)) + 0.8 * nls(0.5 * 1.5) + (0.6 + 0.4) * log(2) + 0.1 * nls(1.5),
    ),
]


@pytest.mark.parametrize(("spec", "expected"), BY_HAND, ids=lambda value: str(value))
def test_loss_of_a_pair_under_changed_media_is_the_value_worked_by_hand(spec, expected):
    assert loss_of(spec) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("spec", "expected"), BY_HAND_OF_THREE, ids=lambda value: str(value))
def test_loss_of_three_under_changed_media_is_the_value_worked_by_hand(spec, expected):
    assert loss_of(spec, triple=True) == pytest.approx(expected, rel=1e-12)


def test_divergences_along_a_response_weigh_as_its_tokens_do():
    """D_w = 3 tokens of 0.1, D_l = 5 of 0.2; every token differs, so u = 2."""
    moved = torch.tensor([0.1, 0.2, 0.3])[None, :, None].expand(1, 3, 5).double()
    policy = first_two(replace(POLICY, dense={"reference_kl": moved}))
    spec = {"name": "chip", "beta": 0.5, "edit_weight": 2.0, "kl_weight": 0.4}
    loss = step_loss(build([spec]), policy, first_two(REFERENCE), facts_of([(0, 1)]))
    assert loss.item() == pytest.approx(nls(0.5 * (2 * (3 + 1.5) - 0.4 * 2 * (1.0 - 0.3))))


def test_mdpo_of_a_policy_that_has_not_moved_is_three_times_ln2():
    loss = step_loss(build([{"name": "mdpo"}]), REFERENCE, REFERENCE, TRIPLE)
    assert loss.item() == pytest.approx(3 * log(2))


@pytest.mark.parametrize("name", VISUAL)
def test_gradients_reach_the_views_and_are_exact(name):
    policy, reference, facts = random_batch(groups=2, responses=3, longest=3)
    objective = build([{"name": name, **({"visual_weight": 1.0} if name == "v_dpo" else {})}])
    names = [view.name for view in objective.views]
    starts = [policy.views[view].token_logps.nan_to_num(-1.0).requires_grad_(True) for view in names]

    def loss(*token_logps):
        seen = {
            view: replace(policy.views[view], token_logps=values)
            for view, values in zip(names, token_logps, strict=True)
        }
        return step_loss(objective, replace(policy, views={**policy.views, **seen}), reference, facts)

    if name == "v_dpo":  # what is said without looking is held fixed
        assert not loss(*starts).requires_grad
        return
    loss(*starts).backward()
    assert all(start.grad.any() for start in starts)
    assert torch.autograd.gradcheck(loss, starts)


@pytest.mark.parametrize(
    ("name", "levels", "read"),
    [
        ("mdpo", (0, 1, 2), [(0, 1)]),
        ("mdpo", (0, 1), [(0,)]),
        ("v_dpo", (0, 1), [(0, 1)]),
        ("symmpo", (0, 1, 1), [(0, 2)]),
        ("vista_dpo", (0, 1, 1), [(0,)] * 5),
        ("mixed_image", (0, 1), [(1,)]),
    ],
)
def test_a_view_computes_what_is_read_of_it_and_no_more(name, levels, read):
    objective = build([{"name": name}])
    assert objective.responses_read(levels) == tuple(range(len(levels)))
    assert [objective.read_in(view, levels) for view in objective.views] == read


@pytest.mark.parametrize("name", VISUAL)
def test_what_a_view_does_not_read_changes_nothing(name):
    policy, reference, facts = random_batch(responses=3)
    objective = build([{"name": name}])

    def only_read(logps):
        seen = {}
        for view in objective.views:
            kept = torch.zeros_like(logps.mask)
            kept[:, list(objective.read_in(view, (0, 1, 2)))] = True
            one = logps.views[view.name]
            seen[view.name] = replace(one, mask=one.mask & kept)
        return replace(logps, views=seen)

    short = step_loss(objective, only_read(policy), only_read(reference), facts)
    torch.testing.assert_close(short, step_loss(objective, policy, reference, facts), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["symmpo", "vista_dpo"])
def test_a_pair_teaches_an_objective_of_three_nothing(name):
    assert build([{"name": name}]).responses_read((0, 1)) == ()


def test_parts_that_read_the_same_view_share_it():
    specs = [{"name": "mdpo", "contrast": "noise"}, {"name": "chip"}, {"name": "mdpo"}]
    assert [view.name for view in build(specs).views] == ["noise", "crop"]


def test_a_weight_of_0_leaves_a_term_and_its_view_out():
    assert build([{"name": "mdpo", "visual_weight": 0.0}]).views == ()
    assert [view.name for view in build([{"name": "vista_dpo", "clip_weight": 0.0}]).views] == [
        "static",
        "frame",
        "frame without bbox",
    ]


def test_a_cell_that_weighs_nothing_is_not_computed():
    plain = build([{"name": "v_dpo", "guidance": 1.0}])
    assert plain.views == ()
    assert [view.name for view in build([{"name": "v_dpo", "guidance": 1.0, "visual_weight": 1.0}]).views] == ["black"]
    assert [view.name for view in build([{"name": "v_dpo"}]).views] == ["black"]


@pytest.mark.parametrize("name", ["symmpo", "vista_dpo"])
def test_the_last_response_is_no_side_of_the_pairs_whose_rewards_are_logged(name):
    """Of the levels 0, 1, 2 the pair of the first two alone: R = +1 and -2, at beta 0.5."""
    output = build([{"name": name, "beta": 0.5}])(POLICY, REFERENCE, TRIPLE)
    assert output.rewards.tolist() == [[0.5, -1.0]]
    shown = {name: (ratio.total / ratio.count).item() for name, ratio in output.metrics.items()}
    assert shown["rewards/margins"] == pytest.approx(1.5)
    assert shown["logps/rejected"] == pytest.approx(-5.0)
    assert shown["lengths/rejected"] == 5.0


def test_a_contrast_that_does_not_exist_is_refused():
    with pytest.raises(
        ConfigError, match="mdpo: option 'contrast' must be one of crop, noise, .*; did you mean 'crop'"
    ):
        build([{"name": "mdpo", "contrast": "corp"}])


def test_a_teacher_s_table_holds_no_views():
    with pytest.raises(ConfigError, match="mdpo reads rows under changed media, and dckd a teacher's table, .*stages"):
        build([{"name": "mdpo"}, {"name": "dckd"}])
    with pytest.raises(ConfigError, match="nextquill reads rows without their earlier turns, and dckd a teacher's"):
        build([{"name": "nextquill"}, {"name": "dckd"}])


def test_views_have_the_names_of_what_is_done():
    assert contrasted("crop").strength == (0.8, 0.99)
    assert {"crop", "noise", "black", "static"} <= set(VIEWS)
