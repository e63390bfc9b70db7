"""Answers judged one by one: values by hand, whose answers make KTO's baseline, and what of a row is judged."""

from dataclasses import replace
from math import exp, log1p

import pytest
import torch
from objectives.batches import cut_loss, facts_of, logps_of, random_batch, random_dense, step_loss, with_logps

from mmalign.errors import RowError
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.objectives.compose import build
from mmalign.train.survey import told

KTO = {"name": "kto", "beta": 0.5}
# Rows of one answer and one answer to another prompt: good with R = 1, bad with R = -2, good with R = 3; borrowed ones
# have R = 4, 1 and -2.
POLICY = logps_of([[(-4.0, 1), (-1.0, 1)], [(-7.0, 2), (-4.0, 3)], [(-2.0, 1), (-7.0, 1)]])
REFERENCE = logps_of([[(-5.0, 1), (-5.0, 1)], [(-5.0, 2), (-5.0, 3)], [(-5.0, 1), (-5.0, 1)]])


def sigmoid(x):
    return 1 / (1 + exp(-x))


def nls(x):
    return log1p(exp(-x))


def facts_with_borrowed(levels, **more):
    """Return facts of rows with these levels, behind whose responses one more stands that is none of theirs."""
    facts = facts_of([[*group, -1] for group in levels], **more)
    return replace(facts, response_mask=facts.response_mask & (facts.levels >= 0))


FACTS = facts_with_borrowed([(0,), (1,), (0,)])


def test_kto_measures_good_and_bad_answers_from_the_mean_of_answers_to_other_prompts():
    """z = 0.5 (4 + 1 - 2) / 3 = 0.5; s = 0.5, -1, 1.5."""
    loss = step_loss(build([KTO]), POLICY, REFERENCE, FACTS)
    assert loss.item() == pytest.approx((sigmoid(0.0) + sigmoid(-1.5) + sigmoid(-1.0)) / 3)


def test_kto_weighs_good_and_bad_answers():
    weighed = build([{**KTO, "desirable_weight": 2.0, "undesirable_weight": 3.0}])
    loss = step_loss(weighed, POLICY, REFERENCE, FACTS)
    assert loss.item() == pytest.approx((2 * sigmoid(0.0) + 3 * sigmoid(-1.5) + 2 * sigmoid(-1.0)) / 3)


def test_weights_of_rows_count_in_the_mean_and_in_the_baseline():
    """z = 0.5 (2 * 4 + 1 - 2) / 4 = 0.875."""
    facts = facts_with_borrowed([(0,), (1,), (0,)], weight=[2.0, 1.0, 1.0])
    loss = step_loss(build([KTO]), POLICY, REFERENCE, facts)
    by_hand = 2 * sigmoid(0.875 - 0.5) + sigmoid(-1 - 0.875) + sigmoid(0.875 - 1.5)
    assert loss.item() == pytest.approx(by_hand / 4)


def test_the_baseline_is_that_of_the_whole_step_and_at_least_0():
    whole = step_loss(build([KTO]), POLICY, REFERENCE, FACTS)
    for cuts in ([[0], [1], [2]], [[2, 0], [1]]):
        torch.testing.assert_close(cut_loss(build([KTO]), POLICY, REFERENCE, FACTS, cuts), whole)
    alone = facts_with_borrowed([(0,)])
    sunk = step_loss(build([KTO]), logps_of([[(-4.0, 1), (-7.0, 1)]]), logps_of([[(-5.0, 1), (-5.0, 1)]]), alone)
    assert sunk.item() == pytest.approx(sigmoid(-0.5))


def test_the_baseline_passes_no_gradient_and_answers_to_other_prompts_learn_nothing():
    start = POLICY.token_logps.nan_to_num(-1.0).requires_grad_(True)
    step_loss(build([KTO]), with_logps(POLICY, start), REFERENCE, FACTS).backward()
    assert start.grad[0, 0, 0].item() == pytest.approx(-0.5 * 0.25 / 3)
    assert not start.grad[:, 1].any()


def test_other_objectives_do_not_see_an_answer_to_another_prompt():
    policy = logps_of([[(-4.0, 1), (-7.0, 1), (-1.0, 1)]])
    policy = replace(policy, dense=random_dense(policy.mask, 0, torch.float64))
    reference = logps_of([[(-5.0, 1), (-5.0, 1), (-5.0, 1)]])
    facts = facts_with_borrowed([(0, 1)])
    everyone = {"responses": "all"}
    distilled = [{"name": "dckd"}, {"name": "adpa"}, {"name": "adpa", **everyone}, {"name": "aligndistil", **everyone}]
    for spec in ({"name": "dpo"}, {"name": "plackett_luce"}, {"name": "sft"}, {"name": "aot"}, *distilled):
        with_it = build([spec])(policy, reference, facts)
        own = policy.mapped(lambda value: value[:, :2])
        without = build([spec])(own, logps_of([[(-5.0, 1)] * 2]), facts_of([(0, 1)]))
        for one, other in zip(with_it.terms, without.terms, strict=True):
            torch.testing.assert_close((one.values, one.counts), (other.values, other.counts))
        assert with_it.metrics == without.metrics


def test_apo_zero_unpaired_needs_no_baseline():
    loss = step_loss(build([{"name": "apo_zero_unpaired", "beta": 0.5}]), POLICY, REFERENCE, FACTS)
    assert loss.item() == pytest.approx((sigmoid(-0.5) + sigmoid(-1.0) + sigmoid(-1.5)) / 3)


def test_bco_unpaired_shifts_by_the_mean_of_the_steps_before():
    """Rewards 0.5, -1, 1.5 of the first step have the mean 1/3; the borrowed answers do not count."""
    objective = build([{"name": "bco_unpaired", "beta": 0.5}])
    first = step_loss(objective, POLICY, REFERENCE, FACTS)
    assert first.item() == pytest.approx((nls(0.5) + nls(1.0) + nls(1.5)) / 3)
    memory = objective.remember(objective.first_memory(), objective.survey(POLICY, REFERENCE, FACTS))
    second = objective(POLICY, REFERENCE, FACTS, told(memory, {}, {})).loss({"bco_unpaired": 3.0})
    shift = 1 / 3
    assert second.item() == pytest.approx((nls(0.5 - shift) + nls(1.0 + shift) + nls(1.5 - shift)) / 3)


def test_bco_unpaired_remembers_nothing_of_rows_without_weight():
    """The third row is what a rank without rows computes: an only answer, never judged, of weight 0."""
    objective = build([{"name": "bco_unpaired", "beta": 0.5}])
    facts = facts_with_borrowed([(0,), (1,), (0,)], weight=[1.0, 1.0, 0.0])
    survey = objective.survey(POLICY, REFERENCE, facts)
    memory = objective.remember(objective.first_memory(), survey)["bco_unpaired"]
    assert (memory["reward_total"].item(), memory["reward_count"].item()) == (pytest.approx(0.5 - 1.0), 2)


def test_of_several_answers_the_best_are_good_and_the_worst_are_bad():
    """R = 1, 3, -2 with levels 0, 1, 2; then two good and a bad one; then three tied, of which nothing is said."""
    policy = logps_of([[(-4.0, 1), (-2.0, 1), (-7.0, 1)]] * 3)
    reference = logps_of([[(-5.0, 1)] * 3] * 3)
    facts = facts_of([(0, 1, 2), (0, 0, 1), (0, 0, 0)])
    objective = build([{"name": "apo_zero_unpaired", "beta": 1.0}])
    assert objective.counts(facts, policy.lengths())["apo_zero_unpaired"].tolist() == [2.0, 3.0, 0.0]
    loss = step_loss(objective, policy, reference, facts).item()
    assert loss == pytest.approx(
        (3 * sigmoid(-1.0) + 0 + 3 * sigmoid(-2.0) + sigmoid(-3.0) - sigmoid(-1.0) - sigmoid(-2.0)) / 5
    )
    assert [objective.responses_read(levels) for levels in ((0, 1, 2), (0, 0, 1), (0, 0, 0), (0,), (1,))] == [
        (0, 2),
        (0, 1, 2),
        (),
        (0,),
        (0,),
    ]


def test_what_is_logged_tells_good_from_bad():
    metrics = build([KTO])(POLICY, REFERENCE, FACTS).metrics
    means = {name: (total / count).item() for name, (total, count) in metrics.items()}
    assert means["rewards/chosen"] == pytest.approx(1.0)
    assert means["rewards/rejected"] == pytest.approx(-1.0)
    assert means["rewards/baseline"] == pytest.approx(0.5)
    assert means["rewards/accuracies"] == pytest.approx(2 / 3)  # the first reward is the baseline, not above it
    assert (means["lengths/chosen"], means["lengths/rejected"]) == (1.0, 2.0)
    assert (means["logps/chosen"], means["logps/rejected"]) == (-3.0, -7.0)


def row(label, answers=1):
    prompt = (Message.of("user", "What is it?"),)
    return Preference(id="row", prompt=prompt, responses=tuple(map(Response.of, "abc"[:answers])), label=label)


def test_an_answer_that_nobody_judged_is_refused_where_judgements_are_read():
    objective = build([{"name": "kto"}, {"name": "sft"}])
    objective.require_row(row(True))
    objective.require_row(row(None, answers=2))
    with pytest.raises(RowError, match="stands alone and is not judged.*kto has to know .*label: true or false"):
        objective.require_row(row(None))


def test_a_bad_answer_is_never_imitated():
    assert row(False).levels() == (1,)
    assert build([{"name": "sft"}]).responses_read((1,)) == ()
    policy, facts = logps_of([[(-6.0, 3)], [(-4.0, 2)]]), facts_of([(0,), (1,)])
    assert step_loss(build([{"name": "sft"}]), policy, None, facts).item() == pytest.approx(2.0)
    assert step_loss(build([{"name": "sft", "normalise": "sequence"}]), policy, None, facts).item() == pytest.approx(
        2.0
    )


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "poft"},
        {"name": "nextquill"},
        {"name": "aligndistil"},
        {"name": "adpa", "responses": "best"},
        {"name": "dckd", "rejected_weight": 0.0},
    ],
    ids=lambda spec: spec["name"],
)
def test_a_bad_answer_is_imitated_by_no_objective(spec):
    """A batch of a bad answer has nothing to learn; a good one beside it learns as if alone."""
    objective, (policy, _, _) = build([spec]), random_batch(groups=2, responses=1)
    assert objective.responses_read((1,)) == ()
    assert objective.responses_read((0,)) == (0,)
    both = facts_of([(0,), (1,)])
    counts = objective.counts(both, policy.lengths())
    assert all(of_bad == 0 for _, of_bad in (count.tolist() for count in counts.values()))
    alone = step_loss(objective, policy.mapped(lambda value: value[:1]), None, both.select([0]))
    torch.testing.assert_close(step_loss(objective, policy, None, both), alone)


def test_a_bad_answer_is_on_the_rejected_side_of_dckd():
    counts = build([{"name": "dckd"}]).counts(facts_of([(1,)]), torch.tensor([[3]]))
    assert {name: count.item() for name, count in counts.items()} == {
        "dckd_chosen": 0.0,
        "dckd_rejected": 3.0,
        "dckd_nll": 0.0,
    }


def test_a_label_is_of_one_answer():
    with pytest.raises(RowError, match="label judges one answer alone, and the row has several"):
        row(True, answers=2)
    with pytest.raises(RowError, match="label must be true or false .got 1."):
        row(1)
