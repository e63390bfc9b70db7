"""Rows that say in the prompt what is wanted: does a policy learn to be told, and do other rows teach it that?

The policy is linear in a few features of response and goal, the truth is known, and what is asked of it is fresh: other
responses, other goals. The rows are made by the relabellings themselves.
"""

import re

import pytest
import torch

from mmalign.engine.logps import GroupLogps
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build
from mmalign.pairs.relabel import relabelling

PAIRS, STEPS = 100, 40


def learned(features):
    """Return the weights that DPO gives to features [P, 2, F] of pairs, better first."""
    pairs = len(features)
    plain = torch.ones(pairs, dtype=torch.float64)
    facts = GroupFacts(
        levels=torch.tensor([[0, 1]]).expand(pairs, 2),
        weight=plain,
        margin=plain,
        response_mask=torch.ones(pairs, 2, dtype=torch.bool),
        scores=torch.full((pairs, 2), torch.nan, dtype=torch.float64),
        seed=torch.arange(pairs),
        annotator=torch.zeros(pairs, dtype=torch.int64),
    )
    mask = torch.ones(pairs, 2, 1, dtype=torch.bool)
    reference = GroupLogps(torch.full(mask.shape, -2.0, dtype=torch.float64), mask)
    weights = torch.zeros(features.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer, objective = torch.optim.Adam([weights], lr=0.3), build([{"name": "dpo", "beta": 1.0}])
    for _ in range(STEPS):
        policy = GroupLogps(reference.token_logps + (features @ weights)[..., None], mask)
        objective(policy, reference, facts).loss({"dpo": pairs}).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights.detach()


def row(number, responses):
    return Preference(id=str(number), prompt=(Message.of("user", "?"),), responses=tuple(responses))


# ---- a score to reach ------------------------------------------------------------------------------------------------


def score_features(score, goal):
    """Whoever is told the goal can tell the distance to it: (s - g)^2 = s^2 - 2 s g + g^2."""
    return torch.stack([score, score**2, score * goal], dim=-1)


def score_rows(seed):
    generator = torch.Generator().manual_seed(seed)
    for number, (low, high) in enumerate(
        torch.randint(1, 11, (2 * PAIRS, 2), generator=generator).sort().values.tolist()
    ):
        if low < high:
            yield row(number, [Response.of("a", score=float(high)), Response.of("b", score=float(low))])


def of_scores(rows, goal_of):
    """Scale scores to -1 to 1 and return the features of every pair."""
    scores = [
        [(response.scores.get("score", response.score) - 5.5) / 4.5 for response in one.responses] for one in rows
    ]
    goals = [(goal_of(one) - 5.5) / 4.5 for one in rows]
    score = torch.tensor(scores, dtype=torch.float64)
    return score_features(score, torch.tensor(goals, dtype=torch.float64)[:, None].expand_as(score))


def reaches_goals(weights, seed):
    """Return how often the response that is nearer to a fresh goal has the higher log-ratio."""
    generator = torch.Generator().manual_seed(1000 + seed)
    score, goal = (
        2 * torch.rand(2000, 2, generator=generator).double() - 1,
        2 * torch.rand(2000, 1, generator=generator) - 1,
    )
    lift = score_features(score, goal.double().expand_as(score)) @ weights
    nearer = (score - goal).abs()
    return ((lift[:, 0] > lift[:, 1]) == (nearer[:, 0] < nearer[:, 1])).double().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_reward_augmented_rows_teach_to_reach_a_score_and_plain_or_unturned_rows_do_not(seed):
    plain = list(score_rows(seed))
    relabel = relabelling("reward_augmented", {"place": "user"})
    augmented = [made for one in plain for made in relabel(one)]
    # What the released script makes where there is no system turn: the lower goal, and the better response still wins.
    unturned = [
        Preference(id=made.id, prompt=made.prompt, tags=made.tags, responses=one.responses)
        for one in plain
        for made in relabel(one)
    ]

    def told(made):
        return float(made.tags["goal"])

    reached = {
        "augmented": reaches_goals(learned(of_scores(augmented, told)), seed),
        "unturned": reaches_goals(learned(of_scores(unturned, told)), seed),
        "plain": reaches_goals(learned(of_scores(plain, lambda one: 10.0)), seed),
    }
    assert reached["augmented"] > 0.9
    assert reached["plain"] < 0.75
    assert reached["unturned"] < 0.75


# ---- a direction to follow -------------------------------------------------------------------------------------------


def directed(rows, direction_of):
    """Return features of every pair: each score times each weight of the direction, [P, 2, 4]."""
    scores = [[[response.scores["help"], response.scores["brief"]] for response in one.responses] for one in rows]
    score = torch.tensor(scores, dtype=torch.float64)
    direction = torch.tensor([direction_of(one) for one in rows], dtype=torch.float64)
    return (direction[:, None, :, None] * score[:, :, None, :]).flatten(2)


def follows(weights, seed):
    """Return how often the response that is better by a fresh direction, and fresh scores, has the higher log-ratio."""
    generator = torch.Generator().manual_seed(2000 + seed)
    score = torch.randn(2000, 2, 2, generator=generator, dtype=torch.float64)
    angle = (2 * torch.rand(2000, generator=generator, dtype=torch.float64) - 1) * torch.pi / 4
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    lift = (direction[:, None, :, None] * score[:, :, None, :]).flatten(2) @ weights
    worth = (direction[:, None] * score).sum(-1)
    return ((lift[:, 0] > lift[:, 1]) == (worth[:, 0] > worth[:, 1])).double().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_directed_rows_teach_to_weigh_and_rows_ordered_by_one_mixture_do_not(seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(PAIRS, 2, 2, generator=generator, dtype=torch.float64).tolist()
    plain = [
        row(
            number,
            sorted(
                (Response.of("ab"[k], scores={"help": one[0], "brief": one[1]}) for k, one in enumerate(pair)),
                key=lambda response: -response.scores["help"],
            ),
        )
        for number, pair in enumerate(drawn)
    ]
    relabel = relabelling("dpa", {"scores": ["help", "brief"]})
    told = [made for one in plain for made in relabel(one)]

    def direction(made):
        return [int(number) / 100 for number in re.findall(r" (-?\d+)", made.tags["direction"])]

    followed = {
        "directed": follows(learned(directed(told, direction)), seed),
        "one order": follows(learned(directed(plain, lambda one: [1.0, 0.0])), seed),
    }
    assert followed["directed"] > 0.95
    assert followed["one order"] < 0.9
