"""Weights, factors and targets that are found pair by pair, by hand; and the rows that they refuse."""

from math import exp, log1p

import pytest
import torch
from objectives.batches import facts_of, logps_of, random_batch, step_loss, with_logps

from mmalign.engine.logps import GroupLogps
from mmalign.errors import RowError
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.objectives.compose import build
from mmalign.train.survey import told

# R = 1 and -2 in the first row, 0 and 1 in the second: D = 3 and -1.
POLICY = logps_of([[(-6.0, 3), (-5.0, 5)], [(-4.0, 2), (-2.0, 1)]])
REFERENCE = logps_of([[(-7.0, 3), (-3.0, 5)], [(-4.0, 2), (-3.0, 1)]])


def facts(scores=((5.0, 1.0), (3.0, 3.5))):
    return facts_of([(0, 1)] * 2, scores=scores)


def nls(margin):
    return log1p(exp(-margin))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def loss_of(known=None, **spec):
    return step_loss(build([spec]), POLICY, REFERENCE, known or facts()).item()


def test_mm_dpo_scales_beta_by_the_gap_of_scores_and_never_below_itself():
    """Gaps 4 and -0.5, of which the second counts as 0."""
    scaled = 0.5 * (1 + 0.5 * (1 - exp(-0.25 * 4)))
    expected = (nls(scaled * 3) + nls(-0.5)) / 2
    assert loss_of(name="mm_dpo", beta=0.5, rate=0.25, sft_weight=0.0) == pytest.approx(expected)
    assert loss_of(name="mm_dpo", beta=0.5, rate=0.25, sft_weight=2.0) == pytest.approx(expected + 2 * 10 / 5)


def test_da_dpo_scales_beta_in_proportion():
    expected = (nls(0.5 * 2 * 5 * 3) + nls(-0.5 * 2 * 1.5)) / 2
    assert loss_of(name="da_dpo", beta=0.5, gap_factor=2.0) == pytest.approx(expected)


def test_a_margin_stands_for_the_scores_of_two():
    nan = float("nan")
    unscored = facts(((nan, nan), (nan, nan)))
    object.__setattr__(unscored, "margin", torch.tensor([4.0, -0.5]))
    assert loss_of(unscored, name="mm_dpo") == pytest.approx(loss_of(name="mm_dpo"))


def test_a_factor_leaves_the_logged_rewards_alone():
    rewards = build([{"name": "mm_dpo", "beta": 0.5}])(POLICY, REFERENCE, facts()).rewards
    assert rewards.tolist() == [[pytest.approx(0.5), pytest.approx(-1.0)], [pytest.approx(0.0), pytest.approx(0.5)]]


def test_wpo_is_cut_at_one_and_tells_no_gradient():
    sure = GroupLogps(POLICY.token_logps / 100, POLICY.mask, log_purity=torch.full_like(POLICY.token_logps, -1.0))
    loss = step_loss(build([{"name": "wpo", "beta": 0.5}]), sure, sure, facts())
    assert loss.item() == pytest.approx(nls(0.0))
    start = POLICY.token_logps.nan_to_num(-1.0).requires_grad_(True)
    policy = with_logps(POLICY, start)
    step_loss(build([{"name": "wpo", "beta": 0.5}]), policy, REFERENCE, facts()).backward()
    assert start.grad[0, 0, 0].item() == pytest.approx(-exp(-3) * 0.5 * sigmoid(-1.5) / 2)


def test_lcpo_believes_a_label_as_far_as_policy_and_annotator_do():
    """Margins 1.5 and -0.5; an annotator believed right in 9 of 10 cases."""
    believed = [sigmoid(m) * 0.9 / (sigmoid(m) * 0.9 + (1 - sigmoid(m)) * 0.1) for m in (1.5, -0.5)]
    expected = sum(q * nls(m) + (1 - q) * nls(-m) for q, m in zip(believed, (1.5, -0.5), strict=True)) / 2
    assert loss_of(name="lcpo", beta=0.5) == pytest.approx(expected)


def test_lcpo_passes_no_gradient_through_its_belief():
    start = POLICY.token_logps.nan_to_num(-1.0).requires_grad_(True)
    step_loss(build([{"name": "lcpo", "beta": 0.5}]), with_logps(POLICY, start), REFERENCE, facts()).backward()
    q = sigmoid(1.5) * 0.9 / (sigmoid(1.5) * 0.9 + sigmoid(-1.5) * 0.1)
    assert start.grad[0, 0, 0].item() == pytest.approx(0.5 * (sigmoid(1.5) - q) / 2)


def test_lcpo_learns_how_reliable_each_annotator_is():
    objective = build([{"name": "lcpo", "beta": 0.5}])
    judged = facts()
    object.__setattr__(judged, "annotator", torch.tensor([7, 3]))
    memory = objective.remember(objective.first_memory(), objective.survey(POLICY, REFERENCE, judged))
    believed = [sigmoid(m) * 0.9 / (sigmoid(m) * 0.9 + (1 - sigmoid(m)) * 0.1) for m in (1.5, -0.5)]
    assert memory["lcpo"]["annotators"].tolist() == [3, 7]
    expected = [0.81 + 0.1 * believed[1], 0.81 + 0.1 * believed[0]]
    assert memory["lcpo"]["reliabilities"].tolist() == pytest.approx(expected)
    object.__setattr__(judged, "annotator", torch.tensor([7, 11]))
    again = objective.remember(memory, objective.survey(POLICY, REFERENCE, judged))
    assert again["lcpo"]["annotators"].tolist() == [3, 7, 11]
    assert again["lcpo"]["reliabilities"][0] == memory["lcpo"]["reliabilities"][0]
    eta = memory["lcpo"]["reliabilities"][1].item()
    q = sigmoid(1.5) * eta / (sigmoid(1.5) * eta + sigmoid(-1.5) * (1 - eta))
    assert again["lcpo"]["reliabilities"][1].item() == pytest.approx(0.9 * eta + 0.1 * q)
    loss = objective(POLICY, REFERENCE, judged, told(again, {}, {})).loss({"lcpo": 2.0}).item()
    assert loss != pytest.approx(objective(POLICY, REFERENCE, judged).loss({"lcpo": 2.0}).item(), rel=1e-3)


def test_beta_dpo_follows_the_mean_margin_of_the_pairs_it_selects():
    """All selected: reward margins 1.5 and -0.5, mean 0.5 above the 0 of a fresh memory."""
    scaled = 0.5 * (1 + 0.6 * 0.5)
    expected = (nls(3 * scaled) + nls(-scaled)) / 2
    assert loss_of(name="beta_dpo", beta=0.5, selected_share=1.0) == pytest.approx(expected)


def test_beta_dpo_leaves_out_what_it_does_not_select_and_counts_the_rest_in_full():
    policy, reference, known = random_batch(groups=10)
    start = policy.token_logps.nan_to_num(-1.0).requires_grad_(True)
    objective = build([{"name": "beta_dpo", "selected_share": 0.8}])
    step_loss(objective, with_logps(policy, start), reference, known).backward()
    silent = (start.grad.abs().sum((1, 2)) == 0).sum().item()
    assert silent == 2
    whole = step_loss(build([{"name": "dpo"}]), policy, policy, known)
    assert step_loss(objective, policy, policy, known).item() == pytest.approx(whole.item())


def test_beta_dpo_moves_its_mean_margin_by_a_tenth():
    objective = build([{"name": "beta_dpo", "beta": 0.5}])
    memory = objective.remember(objective.first_memory(), objective.survey(POLICY, REFERENCE, facts()))
    assert memory["beta_dpo"]["mean_margin"].item() == pytest.approx(0.1 * 0.5)


def test_beta_dpo_implicit_compares_the_selected_with_all():
    """Of two pairs one is selected: its log-ratio margin is 2 away from the mean of 1."""
    options = {"name": "beta_dpo_implicit", "beta": 0.5, "selected_share": 0.5, "beta_scaling": 0.1}
    either = [sum(nls(0.5 * (1 + 0.1 * step) * d) for d in (3, -1)) / 2 for step in (2, -2)]
    assert min(abs(loss_of(**options) - value) for value in either) < 1e-12


def test_dama_scales_beta_by_data_and_by_model():
    """All selected: score gaps 4 and -0.5, log-ratio margins 3 and -1 against a fresh memory of 0."""
    of_model = (sigmoid(3) + sigmoid(-1)) / 2 / 0.5
    factors = [sigmoid(gap) / sigmoid(0.25) * of_model for gap in (4, -0.5)]
    expected = (nls(0.5 * factors[0] * 3) + nls(-0.5 * factors[1])) / 2
    assert loss_of(name="dama", beta=0.5, selected_share=1.0, mean_gap=0.25) == pytest.approx(expected)


def test_uni_dpo_weighs_by_quality_and_by_what_is_not_settled():
    """A = -2, -1 and -2, -2; D per token 11/15 and -1; gaps 4 and -0.5."""
    weights = [sigmoid(0.5 * gap) * sigmoid(1.0 - 2 * lead) ** 3 for gap, lead in ((4, -1), (-0.5, 0))]
    expected = (weights[0] * nls(2 * 11 / 15) + weights[1] * nls(-2.0)) / 2
    options = {"name": "uni_dpo", "beta": 2.0, "quality_rate": 0.5, "settled_at": 1.0}
    assert loss_of(**options, sft_weight=0.0) == pytest.approx(expected)


def test_uni_dpo_rescues_good_answers_that_became_less_likely():
    """A row whose chosen answer fell from -7 to -9 over 3 tokens; it is rescued if its score is good enough."""
    policy = logps_of([[(-9.0, 3), (-5.0, 5)]])
    reference, known = logps_of([[(-7.0, 3), (-3.0, 5)]]), facts_of([(0, 1)], scores=[[5.0, 1.0]])
    values = [
        step_loss(build([{"name": "uni_dpo", "sft_weight": 0.5, "good_score": bar}]), policy, reference, known).item()
        for bar in (5.0, 5.5)
    ]
    assert values[0] - values[1] == pytest.approx(0.5 * 3.0)
    risen = step_loss(build([{"name": "uni_dpo", "sft_weight": 0.5}]), POLICY, REFERENCE, facts()).item()
    assert risen == pytest.approx(loss_of(name="uni_dpo", sft_weight=0.0))


SAME = [
    ({"name": "uni_dpo", "quality_rate": 0.0, "focus": 0.0, "sft_weight": 0.0, "beta": 0.3, "weight": 2.0},
     {"name": "dpo_norm", "beta": 0.3}),
    ({"name": "mm_dpo", "reach": 0.0, "sft_weight": 0.0}, {"name": "dpo"}),
    ({"name": "beta_dpo", "beta_scaling": 0.0, "selected_share": 1.0}, {"name": "dpo"}),
    ({"name": "beta_dpo_implicit", "beta_scaling": 0.0}, {"name": "dpo"}),
    ({"name": "beta_dpo_implicit", "selected_share": 1.0}, {"name": "dpo"}),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), SAME, ids=str)
def test_without_its_rule_a_preset_is_dpo(left, right):
    policy, reference, known = random_batch(responses=3)
    losses = [step_loss(build([spec]), policy, reference, known) for spec in (left, right)]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)


def test_lcpo_that_trusts_its_annotators_is_dpo():
    policy, reference, known = random_batch()
    sure = step_loss(build([{"name": "lcpo", "reliability": 1 - 1e-12}]), policy, reference, known)
    torch.testing.assert_close(sure, step_loss(build([{"name": "dpo"}]), policy, reference, known), rtol=1e-9, atol=0)


def row(*scores, **more):
    answers = tuple(Response.of(f"answer {k}", score=score) for k, score in enumerate(scores))
    return Preference(id="a", prompt=(Message.of("user", "why?"),), responses=answers, **more)


@pytest.mark.parametrize("name", ["mm_dpo", "da_dpo", "dama", "uni_dpo", "pro"])
def test_rows_without_the_scores_that_are_read_are_refused(name):
    objective = build([{"name": "dpo"}, {"name": name}])
    objective.require_row(row(3.0, 1.0))
    with pytest.raises(RowError, match="response has no score, and the objective reads scores") as refused:
        objective.require_row(row(3.0, None))
    assert refused.value.field == "responses[1].score"


def test_a_margin_is_enough_for_two_responses_but_not_for_a_list():
    build([{"name": "mm_dpo"}]).require_row(row(None, None, margin=2.0))
    for name, wanting in (("mm_dpo", row(None, None, None, margin=2.0)), ("pro", row(None, None, margin=2.0))):
        with pytest.raises(RowError, match="response has no score"):
            build([{"name": name}]).require_row(wanting)


def test_objectives_that_read_no_scores_take_every_row():
    build([{"name": "dpo"}, {"name": "trpa"}]).require_row(row(None, None))


def test_however_small_the_share_one_pair_of_a_step_is_selected():
    """Margins 3 and -1; 0.3 of two pairs is less than one, and the loss must be that of one of them."""
    loss = loss_of(name="beta_dpo", beta=0.5, beta_scaling=0.0, selected_share=0.3)
    assert min(abs(loss - nls(0.5 * 3)), abs(loss - nls(-0.5))) < 1e-6
