"""Terms of a loss: what is summed inside each group, what the sum over the batch is divided by, and what a step shares.

Most parts of a loss see one micro-batch and nothing else. Two need more, and say so:

    whole_step    a value over everything one optimiser step sees (a sort, a mean): the step surveys all micro-batches
                  of all ranks before the first loss (`train/survey.py`); every part gets its survey in `StepFacts`
    memory        a few numbers kept from step to step (a running mean): every step's survey goes to `remember`, the
                  result is the memory of the next step and part of every checkpoint

Both are sums over the rows of the step, so they do not depend on how rows are cut into micro-batches or dealt to ranks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.engine.views import View
from mmalign.formats.preference import Preference
from mmalign.objectives.comparison import GroupFacts, PairIndex, pair_index
from mmalign.objectives.metrics import Ratio
from mmalign.objectives.weights import compared_weight, imitated, imitated_weight
from mmalign.pairs.ranking import rank_pairs

Memory = Mapping[str, Tensor]


@dataclass(frozen=True)
class Term:
    """One addend of a loss for B groups; the loss is weight * sum(values) / sum(counts), over all ranks.

    Args:
        name: unique within an objective; logged as `loss/<name>`.
        values: [B], summed inside a group, with gradient.
        counts: [B], from the batch alone, never from the model.
        weight: of the term in the loss.
    """

    name: str
    values: Tensor
    counts: Tensor
    weight: float


@dataclass(frozen=True)
class StepFacts:
    """What a part is told about the step that its micro-batch belongs to.

    Args:
        survey: [N, C], what `Part.survey` returned for all micro-batches of all ranks, one after the other; None for
            parts without.
        start: row of `survey` where this micro-batch begins.
        memory: what the part remembers of the steps before.
    """

    survey: Tensor | None = None
    start: int = 0
    memory: Memory = field(default_factory=dict)


class Part(ABC):
    """One addend of a loss, seen from outside. Subclasses are frozen dataclasses; the defaults are those of most."""

    needs_reference: bool
    whole_step = False
    needs_purity = False
    needs_scores = False
    dense: tuple[str, ...] = ()
    """Numbers per token that it reads beside log-probs; see `dense.py`."""
    views: tuple[View, ...] = ()
    """In which it reads rows beside their own; their log-probs stand in `GroupLogps.views`."""
    numbers: tuple[str, ...] = ()
    """Named scores that it reads of every response it reads; see `numbers.py`."""
    needs_labels = False
    """Whether it reads how an only answer was judged, `Preference.label`."""
    needs_mismatch = False
    """Whether it reads, behind each row's responses, one answer to another prompt (`comparison.mismatched`)."""
    pairs: str | None = None
    """Which pairs of responses it compares, and logs rewards of (`Comparing`); None for parts that compare nothing."""

    @abstractmethod
    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the positions that are read of a row with these levels."""

    def read_in(self, view: View, levels: Sequence[int]) -> set[int]:
        """Return the positions, among those of `responses_read`, that are read in one of `views`."""
        return self.responses_read(levels)

    def unscored(self, preference: Preference) -> set[int]:
        """Return the positions of a row's responses whose score it reads and does not find."""
        read = self.responses_read(preference.levels()) if self.needs_scores else set()
        return {position for position in read if preference.responses[position].score is None}

    @abstractmethod
    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B], what the sum of values is divided by, known before any forward.

        Args:
            lengths: int [B, K], tokens of each response.
        """

    @abstractmethod
    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B], summed inside each group, with gradient."""

    def metrics(
        self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts
    ) -> dict[str, Ratio]:
        """Return what it shows beside its loss where nothing of the objective compares pairs; mostly nothing."""
        return {}

    def histograms(
        self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts
    ) -> dict[str, Ratio]:
        """Return how what it finds for every pair is spread (`histograms.py`); mostly nothing."""
        return {}

    def survey(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor | None:
        """Return [n, C] float64 without gradient, what the step shall know of this micro-batch; None for nothing."""
        return None

    def first_memory(self) -> Memory:
        """Return what is remembered before the first step; the same tensors for the whole run, by name."""
        return {}

    def remember(self, memory: Memory, survey: Tensor) -> Memory:
        """Return what is remembered after a step."""
        return memory


class Comparing(Part):
    """A part that compares pairs of responses; `pairs` says which."""

    def compared(self, facts: GroupFacts) -> PairIndex:
        """Return the pairs of a batch that it compares, and logs rewards of."""
        return pair_index(facts, self.pairs)

    @abstractmethod
    def rewards(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [P, 2], what is logged as rewards of the compared pairs, detached."""


@dataclass(frozen=True, kw_only=True)
class Rescue(Part):
    """Likelihood per token of best responses that are good and have become less likely than under the reference.

    Args:
        good_score: score from which a response is good.
    """

    good_score: float
    needs_reference: bool = True
    needs_scores: bool = True

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the position of the best response, of rows that compare anything."""
        return {0} if rank_pairs(levels, "all") else set()

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group that has a pair."""
        return compared_weight(pair_index(facts, "all"), facts)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: minus the mean log-prob where it is to be rescued, 0 elsewhere."""
        fell = policy.means()[:, 0].detach() < reference.means()[:, 0].detach()
        rescued = fell & (facts.scores[:, 0] >= self.good_score)
        return -self.counts(facts, policy.lengths()) * rescued * policy.means()[:, 0]


@dataclass(frozen=True, kw_only=True)
class Likelihood(Part):
    """Negative log-likelihood of the best response (SFT); an only response that was judged bad is not imitated.

    Args:
        per: "token" divides the sum over the batch by its number of tokens, so long answers weigh more (as in
            transformers and TRL); "sequence" averages each answer over its own tokens first.
        where: read only rows in which this pairing finds a pair; all rows where None.
    """

    per: str = "token"
    where: str | None = None
    needs_reference: bool = False

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the position of the best response."""
        return imitated(levels) if self.where is None or rank_pairs(levels, self.where) else set()

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: weight times tokens of the best response, or weight alone per sequence."""
        best = lengths[:, 0] if self.per == "token" else lengths[:, 0] > 0
        return self._weight(facts) * best

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: weight times the negative log-likelihood, summed or averaged over tokens."""
        logps = policy.sums() if self.per == "token" else policy.means()
        return -self._weight(facts) * logps[:, 0]

    def _weight(self, facts: GroupFacts) -> Tensor:
        if self.where is not None:
            return compared_weight(pair_index(facts, self.where), facts)
        return imitated_weight(facts)
