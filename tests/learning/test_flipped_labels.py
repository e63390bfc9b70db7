"""Labels of which three in ten are flipped: LCPO finds them while it trains, and learns the truth better than DPO.

The policy is linear: the log-prob of a response is its features times some weights, so the truth can be drawn and the
objectives run as they do in training, memory included. The weights may grow without bound, as a network's margins do:
that is what makes plain DPO learn wrong labels by heart. With 200 pairs in place of 400 for 60 features LCPO does not
find them either: the policy itself has to know something first.
"""

import pytest
import torch

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build
from mmalign.train.survey import told

PAIRS, FEATURES, STEPS = 400, 60, 100
CLEAN, FLIPPED = 0, 1
"""Two annotators: one is always right, one in 6 of 10 cases wrong; each judged half of the rows."""


def drawn(seed):
    """Return differences of features [P, F], truth's direction [F], which labels are wrong, and who judged."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(FEATURES, generator=generator)
    features = torch.randn(PAIRS, 2, FEATURES, generator=generator)
    better = (features[:, 0] @ truth > features[:, 1] @ truth).long()
    features = torch.where((better == 1)[:, None, None], features, features.flip(1))
    annotator = torch.arange(PAIRS) % 2
    wrong = (annotator == FLIPPED) & (torch.rand(PAIRS, generator=generator) < 0.6)
    features = torch.where(wrong[:, None, None], features.flip(1), features)
    fresh = torch.randn(2000, 2, FEATURES, generator=generator)
    return features, truth, wrong, annotator, fresh


def as_logps(values):
    """Return one token a response, whose log-prob is the value."""
    return GroupLogps(values[..., None], torch.ones(*values.shape, 1, dtype=torch.bool))


def trained(spec, seed):
    """Return the accuracy on fresh pairs, the beliefs in the labels at the end, which are wrong, and the memory."""
    features, truth, wrong, annotator, fresh = drawn(seed)
    objective = build([spec])
    ones = torch.ones(PAIRS)
    facts = GroupFacts(
        levels=torch.tensor([[0, 1]]).expand(PAIRS, 2),
        weight=ones,
        margin=ones,
        response_mask=torch.ones(PAIRS, 2, dtype=torch.bool),
        scores=torch.full((PAIRS, 2), torch.nan),
        seed=torch.arange(PAIRS),
        annotator=annotator,
    )
    weights = torch.zeros(FEATURES, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.05)
    memory, reference = objective.first_memory(), as_logps(torch.zeros(PAIRS, 2))
    for _ in range(STEPS):
        policy = as_logps(features @ weights)
        objective(policy, reference, facts, told(memory, {}, {})).loss(dict.fromkeys([spec["name"]], PAIRS)).backward()
        optimizer.step()
        optimizer.zero_grad()
        memory = objective.remember(memory, objective.survey(policy, reference, facts))
    difference = fresh[:, 0] - fresh[:, 1]
    accuracy = ((difference @ weights.detach() > 0) == (difference @ truth > 0)).float().mean().item()
    margin = (features @ weights.detach()).diff(dim=1).squeeze(1).neg()
    return accuracy, margin, wrong, annotator, memory


def auc(belief, wrong):
    """Return the probability that a wrong label is believed less than a right one."""
    return (belief[~wrong][:, None] > belief[wrong][None]).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lcpo_finds_the_flipped_labels_and_beats_dpo(seed):
    plain, *_ = trained({"name": "dpo", "beta": 1.0}, seed)
    accuracy, margin, wrong, annotator, memory = trained({"name": "lcpo", "beta": 1.0}, seed)
    assert 0.2 < wrong.float().mean() < 0.4
    assert accuracy > plain + 0.08
    belief = torch.sigmoid(margin + torch.logit(memory["lcpo"]["reliabilities"])[annotator])
    assert auc(belief, wrong) > 0.95
    eta = memory["lcpo"]["reliabilities"].tolist()
    assert eta[CLEAN] > 0.95
    assert eta[FLIPPED] < 0.6
