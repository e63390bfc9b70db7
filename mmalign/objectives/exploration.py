"""A term that lowers what the reference itself would say, so that the policy looks elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, pair_index
from mmalign.objectives.score import Score
from mmalign.objectives.terms import Part, StepFacts
from mmalign.objectives.weights import compared_weight
from mmalign.pairs.ranking import rank_pairs


@dataclass(frozen=True, kw_only=True)
class Exploration(Part):
    """Mean score of the responses that the reference gave (number `from_reference`); 0 for rows without one.

    Minimised, it takes likelihood from them. Sources: SELM, arXiv:2405.19332; XPO, arXiv:2405.21046.

    Args:
        score: of a response.
    """

    score: Score
    numbers: tuple[str, ...] = ("from_reference",)

    @property
    def needs_reference(self) -> bool:
        """Whether the score is taken against a reference."""
        return self.score.reference

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return all positions of rows that compare anything: any of them may be the reference's."""
        return set(range(len(levels))) if rank_pairs(levels, "all") else set()

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group that has a pair."""
        return compared_weight(pair_index(facts, "all"), facts)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted mean score of the reference's own responses."""
        theirs = (facts.number("from_reference") == 1) & facts.response_mask
        scores = self.score(policy, reference).masked_fill(~theirs, 0.0)
        return self.counts(facts, policy.lengths()) * scores.sum(1) / theirs.sum(1).clamp(min=1)
