"""Rules that read a second opinion from the rows: rates of wins, votes, the scores of another judge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.objectives.pairwise import PairRule, Pairs, Survey, selected_weight
from mmalign.objectives.rules import score_gap


def sides_of(pairs: Pairs, name: str) -> Tensor:
    """Return a number of the two responses of every pair, [P, 2]."""
    return pairs.index.sides(pairs.facts.number(name)).to(pairs.scores)


def judged_gap(pairs: Pairs, judge: str) -> Tensor:
    """Return [P], by how much the judge scores the better response higher: the log-odds that it is the better."""
    sides = sides_of(pairs, judge)
    return sides[:, 0] - sides[:, 1]


@dataclass(frozen=True)
class WinRateTargets(PairRule):
    """Shift: the log-ratio that each response should have, (P - 1/2) / beta, P the rate at which it wins.

    Source: SPPO, arXiv:2405.00675, eq. 4.7.
    """

    beta: float
    numbers = ("win_rate",)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [P, 2]."""
        return (sides_of(pairs, "win_rate") - 0.5) / self.beta


@dataclass(frozen=True)
class ScoreGapTargets(PairRule):
    """`WinRateTargets` from the two alone: P = sigmoid(d) for the better, 1 - P for the worse, d the score gap."""

    beta: float
    needs_scores = True

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [P, 2]."""
        target = (torch.sigmoid(score_gap(pairs)) - 0.5) / self.beta
        return torch.stack([target, -target], 1)


@dataclass(frozen=True)
class LogOddsOfStrengths(PairRule):
    """Shift of the better score: the log-odds that it wins by strength, log p / (1 - p) with p = a / (a + b).

    Source: iREPO, arXiv:2405.15230.

    Args:
        epsilon: p is kept in [epsilon, 1 - epsilon]; unanimous votes have infinite odds.
    """

    epsilon: float
    numbers = ("strength",)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [P, 2]; a pair of which neither has any strength is even."""
        better, worse = sides_of(pairs, "strength").unbind(1)
        total = better + worse
        wins = torch.where(total > 0, better / total.clamp(min=torch.finfo(total.dtype).tiny), 0.5)
        odds = torch.logit(wins.clamp(self.epsilon, 1 - self.epsilon))
        return torch.stack([odds, torch.zeros_like(odds)], 1)


@dataclass(frozen=True)
class Consistency(PairRule):
    """Target q = (tau + 1) / 2, tau the rank correlation of the row's order with that of a second judge.

    Kendall's tau over the pairs that the row ranks; where the judge finds two equal, half a pair agrees.

    Source: CREAM, arXiv:2410.12735.

    Args:
        judge: name of the number that the second judge gave.
    """

    judge: str
    whole_list = True

    @property
    def numbers(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.judge,)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return q [P], one value a row."""
        facts = pairs.facts
        scores, exists = facts.number(self.judge), facts.response_mask
        ranked = (facts.levels[:, :, None] < facts.levels[:, None, :]) & exists[:, :, None] & exists[:, None, :]
        agreement = torch.sign(scores[:, :, None] - scores[:, None, :]).masked_fill(~ranked, 0.0).sum((1, 2))
        tau = agreement / ranked.sum((1, 2)).clamp(min=1)
        return ((tau + 1) / 2)[pairs.index.group].to(pairs.scores)


@dataclass(frozen=True)
class JudgedProbability(PairRule):
    """Target q: the probability that the judge gives to the row's order, sigmoid of the gap between its scores."""

    judge: str

    @property
    def numbers(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.judge,)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return q [P]."""
        return torch.sigmoid(judged_gap(pairs, self.judge))


@dataclass(frozen=True)
class AgreementGate(PairRule):
    """Weight 1 where row, judge and policy have the pair in one order and are sure of it, else 0.

    The policy's order is that of its implicit rewards; where it has none yet, it agrees.

    Source: SCIR, arXiv:2502.08922.

    Args:
        judge: name of the number that the judge gave.
        confidence: smallest probability that judge and policy must each give to their order.
    """

    judge: str
    confidence: float

    @property
    def numbers(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.judge,)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return omega [P], without gradient."""
        margin = (pairs.better - pairs.worse).detach()
        gap = judged_gap(pairs, self.judge)
        surest = torch.where(margin == 0, gap, torch.minimum(margin, gap))
        sure = torch.sigmoid(surest) >= self.confidence
        return (sure & (gap > 0) & (margin >= 0)).to(pairs.scores)


@dataclass(frozen=True)
class SelectedByPeer(PairRule):
    """Weight of the pairs of a step on which a peer has the smallest loss, such that the step counts as before.

    The peer's loss is that of Bradley and Terry, so the pairs with the largest gap between its scores are selected;
    equal gaps go by the ids of rows.

    Source: CRM, arXiv:2505.10597.

    Args:
        peer: name of the number that the peer gave.
        share: of the pairs that are selected.
    """

    peer: str
    share: float
    whole_step = True

    @property
    def numbers(self) -> tuple[str, ...]:
        """What it reads."""
        return (self.peer,)

    def noted(self, pairs: Pairs) -> Tensor:
        """Return [P], the gaps between the peer's scores."""
        return judged_gap(pairs, self.peer)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return omega [P]."""
        survey = Survey.of(pairs.step.survey)
        by_seed = survey.seed.argsort(stable=True)
        order = by_seed[survey.noted[by_seed].argsort(descending=True, stable=True)]
        return selected_weight(pairs, order.argsort() < max(1, math.floor(self.share * len(order) + 1e-9)))
