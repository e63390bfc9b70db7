"""Comparisons of two responses: score both, compare, believe the label as far as the target says, weigh, average."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.formats.preference import Preference
from mmalign.objectives.comparison import GroupFacts, PairIndex, pair_index
from mmalign.objectives.histograms import BETA_FACTORS, TARGETS, WEIGHTS
from mmalign.objectives.links import Comparison
from mmalign.objectives.metrics import Ratio
from mmalign.objectives.score import Score
from mmalign.objectives.targets import CERTAIN
from mmalign.objectives.terms import Comparing, Memory, StepFacts
from mmalign.objectives.tokens import TokenRule, scramble, weighted
from mmalign.objectives.weights import compared_weight, shared_weight
from mmalign.pairs.ranking import rank_pairs


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """P compared pairs and everything a rule may ask about them; better responses first.

    Args:
        index: which pairs.
        facts: of their groups.
        policy: P groups of two responses, token weights included.
        reference: the same, without gradient; None where no reference is used.
        scores: [P, 2], scaled, with gradient.
        comparison: from two scores to a loss.
        step: what the step knows.
    """

    index: PairIndex
    facts: GroupFacts
    policy: GroupLogps
    reference: GroupLogps | None
    scores: Tensor
    comparison: Comparison
    step: StepFacts

    @property
    def better(self) -> Tensor:
        """Scores of the better responses [P]."""
        return self.scores[:, 0]

    @property
    def worse(self) -> Tensor:
        """Scores of the worse responses [P]."""
        return self.scores[:, 1]


class PairRule(ABC):
    """A number found for every pair in place of a constant: a target, a weight, a factor of beta, or a shift of scores.

    `needs_purity`: reads `GroupLogps.log_purity`; `needs_scores`: reads how far the scores of the two are apart, for
    which the margin of a row of two may stand; `numbers`: named scores that it reads of responses; `dense`: numbers per
    token that it reads (`dense.py`); `needs_reference`: reads the reference though the score does not; `whole_list`:
    reads all responses of a row, not only those of pairs.
    """

    whole_step = False
    needs_purity = False
    needs_scores = False
    needs_reference = False
    whole_list = False
    numbers: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()

    @abstractmethod
    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [P], or what broadcasts against the scores [P, 2] where they are shifted."""

    def noted(self, pairs: Pairs) -> Tensor | None:
        """Return [P], what the rule wants to know of every pair of the step beside its scores; None for nothing."""
        return None

    def first_memory(self) -> Memory:
        """Return what is remembered before the first step."""
        return {}

    def remember(self, memory: Memory, survey: Survey) -> Memory:
        """Return what is remembered after a step."""
        return memory


@dataclass(frozen=True)
class Survey:
    """What a step knows of its N pairs; each [N], float64, without gradient.

    Args:
        better, worse: scores.
        gain: loss if the label were wrong minus loss if it is right; for a logistic link, the margin.
        weight: of the pair in the loss.
        seed: of the pair, made from that of its row. Seeds and annotators are whole numbers below 2^53, which float64
            holds exactly.
        annotator: of the row.
        noted: what a rule noted of the pair (`PairRule.noted`); nan where none did.
    """

    better: Tensor
    worse: Tensor
    gain: Tensor
    weight: Tensor
    seed: Tensor
    annotator: Tensor
    noted: Tensor

    @classmethod
    def of(cls, table: Tensor) -> Survey:
        """Read a table [N, 7] as `Pairwise.survey` returns it."""
        return cls(*table.unbind(1))


def selected_weight(pairs: Pairs, selected: Tensor) -> Tensor:
    """Return omega [P], 0 for pairs that are not selected, and for the others such that the step counts as before.

    Args:
        selected: bool [N], of all pairs of the step.
    """
    weight = Survey.of(pairs.step.survey).weight
    fullness = weight.sum() / (weight * selected).sum().clamp(min=torch.finfo(weight.dtype).tiny)
    here = slice(pairs.step.start, pairs.step.start + len(pairs.index))
    return (selected * fullness)[here].to(pairs.scores)


@dataclass(frozen=True, kw_only=True)
class Pairwise(Comparing):
    """Mean over groups of the mean over their pairs of  omega [ q right(s_w, s_l) + (1 - q) wrong(s_w, s_l) ].

    Args:
        score: s, its scale included.
        comparison: from two scores to a loss, for a right and for a wrong label.
        target: q.
        pairs: one of `mmalign.pairs.ranking.PAIRINGS`.
        tokens: which tokens count in the scores; all where None.
        weight: omega; 1 where None.
        factor: of the scores, i.e. of beta, pair by pair; 1 where None.
        shift: subtracted from both scores (or from each its own); 0 where None.
        reward: what is logged as the reward of a response; default the score.
        baseline: what stands for a reference that is no model of this run, subtracted from both scores and from the
            logged rewards; scaled as they are.
    """

    score: Score
    comparison: Comparison
    target: float | PairRule = CERTAIN
    pairs: str = "all"
    tokens: TokenRule | None = None
    weight: PairRule | None = None
    factor: PairRule | None = None
    shift: PairRule | None = None
    reward: Score | None = None
    baseline: PairRule | None = None

    @property
    def needs_reference(self) -> bool:
        """Whether the score is taken against a reference, or a rule reads it."""
        return self.score.reference or any(rule.needs_reference for rule in self._rules())

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers that rules read."""
        return tuple(dict.fromkeys(name for rule in self._rules() for name in rule.numbers))

    @property
    def whole_step(self) -> bool:
        """Whether a rule reads the survey of the step."""
        return any(rule.whole_step for rule in self._rules())

    @property
    def needs_purity(self) -> bool:
        """Whether a rule reads how sharp the policy's predictions are."""
        return any(rule.needs_purity for rule in self._rules())

    @property
    def dense(self) -> tuple[str, ...]:
        """Numbers per token that a rule or the token weights read."""
        readers = (self.tokens, *self._rules())
        return tuple(dict.fromkeys(name for reader in readers for name in getattr(reader, "dense", ())))

    @property
    def needs_scores(self) -> bool:
        """Whether a rule reads scores of responses."""
        return any(rule.needs_scores for rule in self._rules())

    def unscored(self, preference: Preference) -> set[int]:
        """Return the positions whose score is wanting; a margin stands for the scores of two."""
        enough = len(preference.responses) == 2 and preference.margin is not None
        return set() if enough else super().unscored(preference)

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the positions that some pair of a row with these levels reads; all, if a rule reads whole lists."""
        compared = {position for pair in rank_pairs(levels, self.pairs) for position in pair}
        whole = compared and any(rule.whole_list for rule in self._rules())
        return set(range(len(levels))) if whole else compared

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group that has a pair."""
        return compared_weight(pair_index(facts, self.pairs), facts)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted mean of the pair losses of each group."""
        pairs = self.compare(policy, reference, facts, step)
        losses = self.losses(pairs)
        weight = shared_weight(pairs.index, facts)
        return pairs.index.group_sums((weight if self.weight is None else weight * self.weight(pairs)) * losses)

    def compare(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Pairs:
        """Return the pairs of a batch, scored, with factor and shift applied."""
        pairs = self._scored(self.score, policy, reference, facts, step)
        if self.factor is not None:
            pairs = replace(pairs, scores=pairs.scores * self.factor(pairs)[:, None])
        if self.shift is not None:
            pairs = replace(pairs, scores=pairs.scores - self.shift(pairs))
        return pairs

    def histograms(
        self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts
    ) -> dict[str, Ratio]:
        """Return how weights, targets and factors of beta are spread, of each that a rule finds pair by pair."""
        found = ((WEIGHTS, self.weight), (TARGETS, self.target), (BETA_FACTORS, self.factor))
        ruled = [(histogram, rule) for histogram, rule in found if isinstance(rule, PairRule)]
        if not ruled:
            return {}
        pairs = self.compare(policy, reference, facts, step)
        # A factor is found before it is applied.
        plain = pairs if self.factor is None else self._scored(self.score, policy, reference, facts, step)
        values = ((histogram, rule(plain if rule is self.factor else pairs)) for histogram, rule in ruled)
        return {name: ratio for histogram, one in values for name, ratio in histogram.of(one, pairs.index).items()}

    def losses(self, pairs: Pairs) -> Tensor:
        """Return [P], unweighted: q right + (1 - q) wrong."""
        right = self.comparison(pairs.better, pairs.worse)
        if self.target == CERTAIN:
            return right
        target = self.target if isinstance(self.target, float) else self.target(pairs)
        return target * right + (1 - target) * self.comparison.flipped(pairs.better, pairs.worse)

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor | None:
        """Return the columns of `Survey` where a rule reads or remembers them."""
        if not self.whole_step and not self.first_memory():
            return None
        with torch.no_grad():
            pairs = self._scored(self.score, policy, reference, facts, StepFacts())
            index, (better, worse) = pairs.index, pairs.scores.unbind(1)
            gain = self.comparison.flipped(better, worse) - self.comparison(better, worse)
            weight = shared_weight(index, facts)
            seed = scramble(scramble(facts.seed[index.group]) + 1009 * index.better + index.worse) & (2**53 - 1)
            annotator = facts.annotator[index.group]
            noted = next((seen for rule in self._rules() if (seen := rule.noted(pairs)) is not None), None)
            noted = torch.full_like(better, torch.nan) if noted is None else noted
            columns = (better, worse, gain, weight, seed, annotator, noted)
            return torch.stack([column.double() for column in columns], 1)

    def first_memory(self) -> Memory:
        """Return what the rules remember before the first step."""
        return {name: value for rule in self._rules() for name, value in rule.first_memory().items()}

    def remember(self, memory: Memory, survey: Tensor) -> Memory:
        """Return what the rules remember after a step."""
        for rule in self._rules():
            memory = {**memory, **rule.remember(memory, Survey.of(survey))}
        return memory

    def rewards(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [P, 2], what is logged as rewards of the pairs, detached."""
        return self._scored(self.reward or self.score, policy, reference, facts, StepFacts()).scores.detach()

    def _scored(
        self, score: Score, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts
    ) -> Pairs:
        """Return the pairs of a batch under `score`, measured from the baseline if there is one."""
        index = pair_index(facts, self.pairs)
        policy, reference = self._sides(policy, index, facts), self._sides(reference, index, facts)
        pairs = Pairs(
            index=index,
            facts=facts,
            policy=policy,
            reference=reference,
            scores=score(policy, reference),
            comparison=self.comparison,
            step=step,
        )
        return pairs if self.baseline is None else replace(pairs, scores=pairs.scores - self.baseline(pairs))

    def _sides(self, logps: GroupLogps | None, index: PairIndex, facts: GroupFacts) -> GroupLogps | None:
        if logps is None:
            return None
        sides = index.of(logps)
        return sides if self.tokens is None else weighted(sides, self.tokens(sides, facts.seed[index.group]))

    def _rules(self) -> Iterator[PairRule]:
        slots = (self.target, self.weight, self.factor, self.shift, self.baseline)
        return (slot for slot in slots if isinstance(slot, PairRule))
