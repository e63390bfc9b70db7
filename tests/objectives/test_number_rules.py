"""Objectives that read numbers of the rows, by hand on one pair; and the rows that they refuse.

chosen:   S = -6 over 3 tokens (A = -2),  reference -7    R = +1     source a: -4 over 2 tokens, b: -9 over 3
rejected: S = -5 over 5 tokens (A = -1),  reference -3    R = -2     source a: -8 over 4 tokens, b: -2 over 1
"""

from dataclasses import replace
from math import exp, log, log1p

import pytest
import torch
from objectives.batches import facts_of, logps_of, step_loss

from mmalign.errors import ConfigError, RowError
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.objectives.compose import build
from mmalign.objectives.pairwise import Survey
from mmalign.objectives.quantile import LowMargin
from mmalign.train.loader import filler_tree
from mmalign.train.survey import told

POLICY = logps_of([[(-6.0, 3), (-5.0, 5)]])
REFERENCE = logps_of([[(-7.0, 3), (-3.0, 5)]])
SOURCES = {
    "logp/a": [[-4.0, -8.0]], "tokens/a": [[2.0, 4.0]],
    "logp/b": [[-9.0, -2.0]], "tokens/b": [[3.0, 1.0]],
}  # fmt: skip
AB = {"sources": ["a", "b"], "beta": 0.5}
PLAIN = {**AB, "clip": False, "count_reference": False}


def facts(numbers, scores=None, levels=((0, 1),)):
    tensors = {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}
    return replace(facts_of(levels, scores=scores), numbers=tensors)


def nls(margin):
    return log1p(exp(-margin))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def loss_of(numbers, spec, scores=None):
    return step_loss(build([spec]), POLICY, REFERENCE, facts(numbers, scores)).item()


@pytest.mark.parametrize(
    ("spec", "better", "worse"),
    [
        # per token: a gives -2 and -2, b -3 and -2, the reference -7/3 and -3/5
        ({"name": "infifpo", **PLAIN, "fusion": "average"}, -2.5, -2.0),
        ({"name": "infifpo", **PLAIN, "fusion": "max_margin"}, -3.0, -2.0),
        ({"name": "infifpo", **AB, "count_reference": False, "fusion": "average"}, (-2 - 7 / 3) / 2, -2.0),
        ({"name": "infifpo", **AB, "fusion": "average"}, (-2 - 7 / 3 - 7 / 3) / 3, (-2 - 2 - 3 / 5) / 3),
        ({"name": "infifpo", **AB, "fusion": "max_margin"}, -7 / 3, -2.0),
    ],
    ids=lambda value: str(value),
)
def test_infifpo_clips_and_fuses_its_sources_per_token(spec, better, worse):
    margin = (-2 - better) - (-1 - worse)
    assert loss_of(SOURCES, spec) == pytest.approx(nls(0.5 * margin))
    rewards = build([spec])(POLICY, REFERENCE, facts(SOURCES)).rewards
    assert rewards.tolist() == [[pytest.approx(0.5 * (-2 - better)), pytest.approx(0.5 * (-1 - worse))]]


def test_infifpo_sum_weighs_sources_by_their_confidence():
    """Better: -4 and -9, weights 1/4 and 1/9. Worse: -8 and -2, weights 1/8 and 1/2."""
    better, worse = -2 / (1 / 4 + 1 / 9), -2 / (1 / 8 + 1 / 2)
    spec = {"name": "infifpo_sum", **PLAIN, "fusion": "confidence"}
    assert loss_of(SOURCES, spec) == pytest.approx(nls(0.5 * ((-6 - better) - (-5 - worse))), rel=1e-5)


def test_infifpo_weighs_sources_by_what_they_said_before_it_is_clipped():
    """Better: b's -9 counts as -7, the reference's, and weighs 1/9. Worse: b's -2 counts as -3 and weighs 1/2."""
    better = (-4 / 4 - 7 / 9) / (1 / 4 + 1 / 9)
    worse = (-8 / 8 - 3 / 2) / (1 / 8 + 1 / 2)
    spec = {"name": "infifpo_sum", **AB, "count_reference": False, "fusion": "confidence"}
    assert loss_of(SOURCES, spec) == pytest.approx(nls(0.5 * ((-6 - better) - (-5 - worse))), rel=1e-5)


def test_scir_goes_by_the_judge_alone_while_the_policy_has_no_order():
    """The policy is its reference: margin 0. The judge gives its order a probability of 0.731."""
    known = facts({"judge": [[1.0, 0.0]]})
    agreed = log(2)  # of the consistency term, whatever the judge says
    for confidence, expected in ((0.7, log(2)), (0.75, 0.0)):
        spec = {"name": "scir", "confidence": confidence, "consistency_weight": 3.0}
        assert step_loss(build([spec]), POLICY, POLICY, known).item() == pytest.approx(expected + 3 * agreed)


def test_infifpo_without_clip_and_reference_needs_none():
    assert not build([{"name": "infifpo", **PLAIN}]).needs_reference
    assert build([{"name": "infifpo", **PLAIN, "clip": True}]).needs_reference


def test_poft_measures_the_best_response_from_the_mean_of_its_sources():
    spec = {"name": "poft", "sources": ["a", "b"], "beta": 0.5, "offset": 0.25}
    assert loss_of(SOURCES, spec) == pytest.approx(nls(0.5 * (-2 + 2.5) + 0.25))


def test_poft_gives_a_filler_no_weight():
    """A filler has no numbers at all; it must not make the loss of the step nan."""
    objective, filler = build([{"name": "poft", "sources": ["a"]}]), filler_tree(0)
    known = facts_of([(0,)], weight=[filler.weight])
    assert step_loss(objective, logps_of([[(-1.0, 1)]]), None, replace(known, numbers={})).item() == 0.0


@pytest.mark.parametrize(
    ("spec", "numbers", "expected"),
    [
        ({"name": "sppo", "beta": 0.5}, {"win_rate": [[0.8, 0.3]]}, 0.5 * (1 - 0.6) ** 2 + 0.5 * (-2 + 0.4) ** 2),
        ({"name": "irepo", "beta": 0.5}, {"strength": [[3.0, 1.0]]}, (1.5 - log(3)) ** 2),
        ({"name": "irepo", "beta": 0.5}, {"strength": [[5.0, 0.0]]}, (1.5 - log(99)) ** 2),
        ({"name": "irepo", "beta": 0.5}, {"strength": [[0.0, 0.0]]}, 1.5**2),
        ({"name": "selm", "beta": 0.5, "exploration": 0.1}, {"from_reference": [[0, 1]]}, nls(1.5) + 0.1 * 0.5 * -2),
        ({"name": "selm", "beta": 0.5, "exploration": 0.1}, {"from_reference": [[0, 0]]}, nls(1.5)),
        ({"name": "xpo", "beta": 0.5, "exploration": 0.1}, {"from_reference": [[1, 1]]}, nls(1.5) + 0.1 * -5.5),
        ({"name": "cream", "beta": 0.5}, {"judge": [[0.2, 0.1]]}, nls(1.5)),
        ({"name": "cream", "beta": 0.5}, {"judge": [[0.1, 0.1]]}, (nls(1.5) + nls(-1.5)) / 2),
        ({"name": "cream", "beta": 0.5, "judge": "reward/old"}, {"reward/old": [[0.1, 0.2]]}, nls(-1.5)),
        ({"name": "scir", "beta": 0.5, "consistency_weight": 0.0}, {"judge": [[1.0, 0.0]]}, nls(1.5)),
        ({"name": "scir", "beta": 0.5, "consistency_weight": 0.0}, {"judge": [[0.0, 1.0]]}, 0.0),
        (
            {"name": "scir", "beta": 0.5, "consistency_weight": 3.0, "confidence": 0.75},
            {"judge": [[1.0, 0.0]]},
            3 * (sigmoid(1) * nls(1.5) + sigmoid(-1) * nls(-1.5)),
        ),
        ({"name": "eurus", "beta": 0.5}, {}, nls(1.5) + nls(0.5) + nls(1.0)),
        ({"name": "spa", "beta": 0.5}, {}, nls(1.5)),
        ({"name": "crm", "beta": 0.5}, {"judge": [[0.0, 3.0]]}, nls(1.5)),
    ],
    ids=lambda value: str(value),
)
def test_loss_of_one_pair_is_the_value_worked_by_hand(spec, numbers, expected):
    assert loss_of(numbers, spec) == pytest.approx(expected)


def test_sppo_single_takes_the_rate_of_wins_from_the_gap_of_scores():
    target = sigmoid(2.0) - 0.5
    expected = 0.5 * (1 - target / 0.5) ** 2 + 0.5 * (-2 + target / 0.5) ** 2
    assert loss_of({}, {"name": "sppo_single", "beta": 0.5}, scores=[[5.0, 3.0]]) == pytest.approx(expected)


def test_cream_compares_whole_orders_also_of_responses_that_are_in_no_pair():
    """Ranked a > b = c > d; the judge has d > a > b > c. Of ab ac ad bd cd two agree: tau = -1/5, C = 2/5."""
    policy = logps_of([[(-1.0, 1), (-2.0, 1), (-3.0, 1), (-4.0, 1)]])
    zero = logps_of([[(0.0, 1)] * 4])
    known = facts({"judge": [[3.0, 2.0, 1.0, 4.0]]}, levels=((0, 1, 1, 2),))
    objective = build([{"name": "cream", "beta": 1.0}])
    assert objective.responses_read((0, 1, 1, 2)) == (0, 1, 2, 3)
    assert objective.responses_read((0, 0)) == ()
    assert step_loss(objective, policy, zero, known).item() == pytest.approx(0.4 * nls(3) + 0.6 * nls(-3))


def test_crm_keeps_the_pairs_on_which_the_peer_is_surest():
    """Margins of the policy 0, 1, 2, 3; the peer is surest of the second and the last; together they count as four."""
    policy = logps_of([[(float(row), 1), (0.0, 1)] for row in range(4)])
    zero = logps_of([[(0.0, 1), (0.0, 1)]] * 4)
    known = facts({"judge": [[0.0, 1.0], [5.0, 0.0], [0.1, 0.0], [2.0, 0.0]]}, levels=((0, 1),) * 4)
    loss = step_loss(build([{"name": "crm", "beta": 1.0, "selected_share": 0.5}]), policy, zero, known)
    assert loss.item() == pytest.approx((nls(1) + nls(3)) / 2)


def test_spa_doubts_small_margins_after_its_warm_up_and_not_before():
    """Margins 1.5 now; the last ones were 1, 2, 3, of which the lower half ends at 2."""
    objective = build([{"name": "spa", "beta": 0.5, "doubt": 0.2, "quantile": 0.5, "warmup_steps": 2}])
    margins = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    losses = []
    for steps in (1, 2):
        memory = {"steps": torch.tensor(steps), "margins": margins, "sizes": torch.tensor([3])}
        output = objective(POLICY, REFERENCE, facts({}), told({"spa": memory}, {}, {}))
        losses.append(output.loss({"spa": 1.0}).item())
    assert losses == [pytest.approx(nls(1.5)), pytest.approx(0.8 * nls(1.5) + 0.2 * nls(-1.5))]


def test_spa_remembers_as_many_whole_steps_as_fill_its_window_in_any_order_of_pairs():
    rule = LowMargin(doubt=0.1, quantile=0.5, window=4, warmup_steps=0)

    def seen(*margins):
        table = torch.zeros(len(margins), 7, dtype=torch.float64)
        table[:, 0] = torch.tensor(margins)
        return Survey.of(table)

    memory = rule.first_memory()
    for step in (seen(9.0, 8.0), seen(3.0, 1.0, 2.0), seen(5.0, 4.0)):
        memory = rule.remember(memory, step)
    assert memory["margins"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert memory["sizes"].tolist() == [3, 2]
    assert memory["steps"].item() == 3


# ---- rows ------------------------------------------------------------------------------------------------------------


def row(*numbers):
    answers = tuple(Response.of(f"answer {k}", scores=scores) for k, scores in enumerate(numbers))
    return Preference(id="r", prompt=(Message.of("user", "?"),), responses=answers)


def test_a_row_without_a_number_that_is_read_is_refused_with_the_way_out():
    objective = build([{"name": "infifpo", "sources": ["qwen"]}])
    objective.require_row(row({"logp/qwen": -3.0, "tokens/qwen": 3}, {"logp/qwen": -4.0, "tokens/qwen": 2}))
    with pytest.raises(RowError) as refused:
        objective.require_row(row({"logp/qwen": -3.0, "tokens/qwen": 3}, {"logp/qwen": -4.0}))
    assert refused.value.reason == "response lacks a number that the objective reads"
    assert "responses[1].scores.tokens/qwen" in str(refused.value)
    assert "mmalign data score ROWS --model DIR --as qwen -o OUT" in str(refused.value)


def test_only_responses_that_are_read_need_the_number():
    build([{"name": "poft", "sources": ["a"]}]).require_row(row({"logp/a": -3.0, "tokens/a": 3}, {}))
    build([{"name": "selm", "exploration": 0.0}]).require_row(row({}, {}))


@pytest.mark.parametrize(
    ("name", "wrong", "rule"),
    [
        ("sppo", {"win_rate": 1.5}, "win_rate must be a probability from 0 to 1"),
        ("irepo", {"strength": -1.0}, "strength must be a number at least 0"),
        ("selm", {"from_reference": 2}, "from_reference must be 0 or 1"),
        ("poft", {"logp/other": -1.0, "tokens/other": 0}, "tokens must be a whole number from 1"),
    ],
)
def test_a_number_outside_its_rule_is_refused(name, wrong, rule):
    with pytest.raises(RowError, match=rule) as refused:
        build([{"name": name}]).require_row(row(wrong, wrong))
    assert refused.value.reason == "a number of a response is not what it must be"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "infifpo", "sources": "qwen"}, r"must be a list of different names; write \[qwen\]"),
        ({"name": "infifpo", "sources": []}, "must be a list of different names"),
        ({"name": "infifpo", "sources": ["a", "a"]}, "must be a list of different names"),
        ({"name": "infifpo", "fusion": "averge"}, "did you mean 'average'"),
        ({"name": "cream", "judge": ""}, "'judge' must be a text"),
        ({"name": "spa", "window": 1.5}, "'window' must be a whole number at least 1"),
        ({"name": "scir", "confidence": 0.6, "consistency_weight": 0}, "'confidence' above 0.5 .got 0.6. shuts every"),
        ({"name": "dpo", "sources": ["a"]}, "it is read by infifpo, infifpo_sum, poft"),
        ({"name": "poft", "clip": True}, "it is read by infifpo, infifpo_sum"),
        ({"name": "more"}, "is not here: its weights of data sets"),
        ({"name": "HALVA"}, "is not here: it compares aligned phrases .*take mask_dpo or ddpo"),
        ({"name": "Nash-MD"}, "is not here: it is a policy gradient on answers drawn in every step.*sppo"),
        ({"name": "P3O"}, "is not here: it is a policy gradient"),
    ],
    ids=lambda value: str(value),
)
def test_options_and_names_that_make_no_sense_are_refused(spec, said):
    with pytest.raises(ConfigError, match=said):
        build([spec])


def test_a_description_names_the_sources():
    assert "sources=[a, b]" in build([{"name": "infifpo", "sources": ["a", "b"]}]).description
