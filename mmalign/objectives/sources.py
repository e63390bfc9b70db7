"""References that are no model of this run: log-probs that other models gave the responses beforehand.

Only a sum and a number of tokens are known of each response under each source, so the sources may have tokenizers,
chat templates and sizes of their own. `mmalign data score` makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.numbers import source_names
from mmalign.objectives.pairwise import PairRule, Pairs
from mmalign.objectives.score import sequence_mean, sequence_sum
from mmalign.objectives.terms import Part, StepFacts
from mmalign.objectives.weights import imitated, imitated_weight

_SMALLEST_DOUBT = 1e-6
"""A source that is certain of a response would weigh infinitely much."""


def log_probs_of(facts: GroupFacts, source: str, *, per_token: bool) -> Tensor:
    """Return what a source gives every response, [B, K]: its sum of log-probs, or their mean over its own tokens."""
    total = facts.number(f"logp/{source}")
    return total / facts.number(f"tokens/{source}") if per_token else total


@dataclass(frozen=True, kw_only=True)
class FusedSources(PairRule):
    """Baseline of InfiFPO: log-probs of several sources, clipped, fused into one reference, times the scale of scores.

    Source: InfiFPO, arXiv:2505.13878, eq. 7 to 13.

    Args:
        sources: names; each is read as `logp/<source>` and `tokens/<source>`.
        scale: of the scores, i.e. beta.
        per_token: whether log-probs are averaged over tokens; each source over its own.
        fusion: "max_margin" takes for each response the source that is furthest from the policy, "average" the mean,
            "confidence" a mean weighed by 1 / (minus the source's own log-prob, before it is clipped).
        clip: whether a source counts at least as the run's reference for the better response, and at most for the
            worse: a source that knows less than the start teaches nothing.
        count_reference: whether the run's reference is one of the sources.
    """

    sources: tuple[str, ...]
    scale: float
    per_token: bool
    fusion: str
    clip: bool
    count_reference: bool

    @property
    def needs_reference(self) -> bool:
        """Whether the run's reference is a source, or the sources are clipped at it."""
        return self.clip or self.count_reference

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of what the sources gave."""
        return source_names(self.sources)

    def __call__(self, pairs: Pairs) -> Tensor:
        """Return [P, 2], without gradient."""
        of = sequence_mean if self.per_token else sequence_sum
        given = [log_probs_of(pairs.facts, source, per_token=self.per_token) for source in self.sources]
        sides = [pairs.index.sides(values).to(pairs.scores) for values in given]
        start = of(pairs.reference).detach() if self.needs_reference else None
        given = values = torch.stack([start, *sides] if self.count_reference else sides)
        if self.clip:
            better, worse = given[..., 0].maximum(start[:, 0]), given[..., 1].minimum(start[:, 1])
            values = torch.stack([better, worse], -1)
        return self.scale * self._fused(values, given, of(pairs.policy).detach())

    def _fused(self, values: Tensor, given: Tensor, own: Tensor) -> Tensor:
        """Return [P, 2] of values [sources, P, 2], clipped and as they were given."""
        if self.fusion == "average":
            return values.mean(0)
        if self.fusion == "confidence":
            confidence = 1 / (-given.clamp(max=0) + _SMALLEST_DOUBT)
            return (confidence * values).sum(0) / confidence.sum(0)
        furthest = (values - own).abs().argmax(0, keepdim=True)
        return values.gather(0, furthest).squeeze(0)


@dataclass(frozen=True, kw_only=True)
class Surpass(Part):
    """-log sigmoid( scale (A - C) + offset ) of the best response, C the mean over sources of its log-prob per token.

    The gradient is that of SFT, weighed by how far the sources like the response better than the policy does.

    Source: PoFT, github.com/Savannah120/alignment-handbook-PoFT.

    Args:
        sources: names, each with the weight 1.
        scale: beta.
        offset: gamma, added to the margin.
    """

    sources: tuple[str, ...]
    scale: float
    offset: float
    needs_reference: bool = False

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of what the sources gave."""
        return source_names(self.sources)

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the position of the best response."""
        return imitated(levels)

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: the weight of each group."""
        return imitated_weight(facts) * (lengths[:, 0] > 0)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: the weighted loss of each best response."""
        given = [log_probs_of(facts, source, per_token=True)[:, 0] for source in self.sources]
        weight = self.counts(facts, policy.lengths())
        # A filler has no numbers and no weight; 0 times nan would not be 0.
        common = torch.stack(given).mean(0).masked_fill(weight == 0, 0.0).to(policy.token_logps)
        return -weight * F.logsigmoid(self.scale * (policy.means()[:, 0] - common) + self.offset)
