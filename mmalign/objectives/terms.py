"""Terms of a loss: what is summed inside each group, and what the sum over the batch is divided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts, pair_index
from mmalign.objectives.links import Link
from mmalign.objectives.score import Score
from mmalign.objectives.targets import CERTAIN, towards
from mmalign.objectives.weights import compared_weight, shared_weight
from mmalign.pairs.ranking import rank_pairs


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


@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """Mean over groups of the mean over their pairs of q link(m) + (1 - q) link(-m), m = s(better) - s(worse) - shift.

    Args:
        score: s, its scale included.
        link: of the margin.
        shift: gamma, by how much the better must lead.
        target: q.
        pairs: one of `mmalign.pairs.ranking.PAIRINGS`.
        reward: what is logged as the reward of a response; default the score.
    """

    score: Score
    link: Link
    shift: float = 0.0
    target: float = CERTAIN
    pairs: str = "all"
    reward: Score | None = None

    @property
    def needs_reference(self) -> bool:
        """Whether the score is taken against a reference."""
        return self.score.reference

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the positions that some pair of a row with these levels reads."""
        return {position for pair in rank_pairs(levels, self.pairs) for position in pair}

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group that has a pair."""
        return compared_weight(pair_index(facts, self.pairs), facts)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [B]: the weighted mean of the pair losses of each group."""
        pairs = pair_index(facts, self.pairs)
        margin = pairs.difference(self.score(policy, reference)) - self.shift
        return pairs.group_sums(shared_weight(pairs, facts) * towards(self.target, self.link, margin))

    def rewards(self, policy: GroupLogps, reference: GroupLogps | None) -> Tensor:
        """Return [B, K], detached."""
        return (self.reward or self.score)(policy, reference).detach()


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Negative log-likelihood of the best response (SFT).

    Args:
        per: "token" divides the sum over the batch by its number of tokens, so long answers weigh more (as in
            transformers and TRL); "sequence" averages each answer over its own tokens first.
    """

    per: str = "token"
    needs_reference: bool = False

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the position of the best response."""
        return {0}

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: weight times tokens of the best response, or weight alone per sequence."""
        return facts.weight * lengths[:, 0] if self.per == "token" else facts.weight * (lengths[:, 0] > 0)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts) -> Tensor:
        """Return [B]: weight times the negative log-likelihood, summed or averaged over tokens."""
        logps = policy.sums() if self.per == "token" else policy.means()
        return -facts.weight * logps[:, 0]
