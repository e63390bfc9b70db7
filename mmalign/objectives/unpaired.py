"""Answers judged one by one: good ones are pushed up and bad ones down, each measured from a baseline.

    loss = mean over judged answers of   desirable good(s - z)  or  undesirable bad(s - z)

Which answers are judged says `comparison.judged`: an only answer by its label, of several the best and the worst level.
Every judged answer counts once, with the weight of its row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, judged, mismatched
from mmalign.objectives.links import Link
from mmalign.objectives.metrics import Ratio, judged_metrics
from mmalign.objectives.score import Score
from mmalign.objectives.seen import mean_seen, nothing_seen, with_rewards
from mmalign.objectives.terms import Memory, Part, StepFacts


@dataclass(frozen=True)
class Survey:
    """What a step knows of its answers; each [N], float64, without gradient.

    Args:
        score: of the answer.
        weight: of its row.
        is_mismatched: 1 for an answer to another prompt, 0 for a judged one.
    """

    score: Tensor
    weight: Tensor
    is_mismatched: Tensor

    @classmethod
    def of(cls, table: Tensor) -> Survey:
        """Read a table [N, 3] as `Judged.survey` returns it."""
        return cls(*table.unbind(1))


class Baseline(ABC):
    """Where scores are measured from, one number for a whole step, without gradient."""

    whole_step = False
    needs_mismatch = False

    @abstractmethod
    def __call__(self, step: StepFacts) -> Tensor:
        """Return []."""

    def first_memory(self) -> Memory:
        """Return what is remembered before the first step."""
        return {}

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Return what is remembered after a step."""
        return memory


@dataclass(frozen=True)
class Zero(Baseline):
    """The reference itself."""

    def __call__(self, step: StepFacts) -> Tensor:
        """Return 0."""
        return torch.zeros(())


@dataclass(frozen=True)
class MeanOfMismatched(Baseline):
    """The mean score, over the step, of answers behind prompts that they do not answer; at least 0.

    It estimates the divergence of policy and reference: an answer to something else says nothing about this prompt, and
    what it gains is gained everywhere.

    Source: KTO, arXiv:2402.01306, section 4.1.
    """

    whole_step = True
    needs_mismatch = True

    def __call__(self, step: StepFacts) -> Tensor:
        """Return []; 0 for a step without such answers."""
        survey = Survey.of(step.survey)
        weight = survey.weight * survey.is_mismatched
        return ((weight * survey.score).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)).clamp(min=0)


@dataclass(frozen=True)
class MeanSeen(Baseline):
    """The mean score of all judged answers of the steps before; 0 in the first.

    Source: BCO, arXiv:2404.04656.
    """

    def __call__(self, step: StepFacts) -> Tensor:
        """Return []."""
        return mean_seen(step.memory)

    def first_memory(self) -> Memory:
        """Return a total and a count of nothing."""
        return nothing_seen()

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Add the scores of a step."""
        return with_rewards(memory, survey.score[survey.is_mismatched == 0])


@dataclass(frozen=True, kw_only=True)
class Judged(Part):
    """Mean over judged answers of a loss that pushes good ones up and bad ones down.

    Args:
        score: s, its scale included.
        good, bad: from s - z to the loss of a good and of a bad answer, their factors included.
        baseline: z.
    """

    score: Score
    good: Link
    bad: Link
    baseline: Baseline
    needs_labels = True

    @property
    def needs_reference(self) -> bool:
        """Whether the score is taken against a reference."""
        return self.score.reference

    @property
    def whole_step(self) -> bool:
        """Whether the baseline is one of the whole step."""
        return self.baseline.whole_step

    @property
    def needs_mismatch(self) -> bool:
        """Whether the baseline reads answers to other prompts."""
        return self.baseline.needs_mismatch

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the only position, or those of the best and of the worst level."""
        if len(levels) == 1:
            return {0}
        worst = levels[-1]
        return {place for place, level in enumerate(levels) if level in (0, worst)} if worst > 0 else set()

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group times the number of its judged answers."""
        good, bad = judged(facts)
        return facts.weight * (good | bad).sum(-1)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted sum of the losses of each group's judged answers."""
        good, bad = judged(facts)
        scores = self.score(policy, reference)
        led = scores - self.baseline(step).to(scores)
        return facts.weight * (good * self.good(led) + bad * self.bad(led)).sum(-1)

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor | None:
        """Return the columns of `Survey` where the baseline reads or remembers them."""
        if not self.whole_step and not self.first_memory():
            return None
        with torch.no_grad():
            scores, others = self.score(policy, reference), mismatched(policy, facts)
            good, bad = judged(facts)
            weight = facts.weight[:, None].expand(scores.shape)
            columns = torch.stack([column.double() for column in (scores, weight, others)], -1)
            # A filler is judged good like any row of one answer; what is remembered knows no weights.
            return columns[(good | bad | others) & (weight > 0)]

    def first_memory(self) -> Memory:
        """Return what the baseline remembers before the first step."""
        return self.baseline.first_memory()

    def remember(self, memory: Memory, survey: Tensor) -> Memory:
        """Return what the baseline remembers after a step."""
        return self.baseline.remember(memory, Survey.of(survey))

    def metrics(
        self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts
    ) -> dict[str, Ratio]:
        """Return rewards, log-probs and lengths of good and bad answers, and the baseline."""
        rewards = self.score(policy, reference).detach()
        return judged_metrics(rewards, self.baseline(step).to(rewards), policy, *judged(facts))
