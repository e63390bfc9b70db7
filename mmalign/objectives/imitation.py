"""Distillation: losses on whole next-token distributions of a teacher, as far as its table holds them.

Of every place a table holds the teacher's k likeliest tokens and the mass of all others together. That is a
distribution over k + 1 outcomes; the policy's is brought into the same form inside its forward, with gradient. With t,
c and s the log-probs of the outcomes under teacher, contrast model and policy, a cost is one number per token:

    forward_kl           sum_i e^t_i (t_i - s_i)
    minus_advantage      - sum over the k tokens of e^s_i (t_i - c_i)
    kl_to_extrapolated   beta / a  sum_i e^s_i (s_i - q_i),  q = log softmax((t + a (t - c)) / tau)

Outcomes that are merged make a divergence smaller, never larger; it is exact where the k tokens have all the mass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.dense import CONTRAST_LOGPS, STUDENT_LOGPS, TEACHER_LOGPS
from mmalign.objectives.terms import Part, StepFacts
from mmalign.objectives.weights import imitated

RESPONSES = ("best", "rest", "all")
"""Which responses of a row are imitated: the best, the others, or all. An only answer judged bad is not the best."""

Cost = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Log-probs [..., k + 1] of policy, teacher and contrast model (None where there is none) -> [...]."""

_FLOOR = math.log(1e-7)
_LEAST_SCALE = 1e-3


def forward_kl(student: Tensor, teacher: Tensor, contrast: Tensor | None) -> Tensor:
    """Return KL(teacher || policy); the policy's probabilities count as at least 1e-7.

    Source: DCKD in ADPA, arXiv:2502.17927.
    """
    return (teacher.exp() * (teacher - student.clamp(min=_FLOOR))).sum(-1)


def minus_advantage(student: Tensor, teacher: Tensor, contrast: Tensor) -> Tensor:
    """Return minus the policy's mean of log teacher - log contrast, over the k tokens; both count as at least 1e-7.

    Source: ADPA, arXiv:2502.17927.
    """
    advantage = teacher.clamp(min=_FLOOR) - contrast.clamp(min=_FLOOR)
    return -(student.exp() * advantage)[..., :-1].sum(-1)


def kl_to_extrapolated(*, beta: float, reach: float, temperature: float) -> Cost:
    """Return the cost beta / a * KL(policy || q), with q the teacher led on from the contrast model by a = reach * TV.

    TV = sum_i |e^t_i - e^c_i| is not halved, and a is at least 1e-3, as in the authors' code.

    Source: AlignDistil, arXiv:2503.02832.
    """
    return partial(_kl_to_extrapolated, beta=beta, reach=reach, temperature=temperature)


def _kl_to_extrapolated(
    student: Tensor, teacher: Tensor, contrast: Tensor, beta: float, reach: float, temperature: float
) -> Tensor:
    variation = (teacher.exp() - contrast.exp()).abs().sum(-1, keepdim=True)
    scale = reach * variation + _LEAST_SCALE
    aim = ((teacher + scale * (teacher - contrast)) / temperature).log_softmax(-1)
    return beta / scale.squeeze(-1) * (student.exp() * (student - aim)).sum(-1)


@dataclass(frozen=True, kw_only=True)
class Imitation(Part):
    """Mean of a cost over the tokens of some responses.

    Args:
        cost: of one token.
        dense: the numbers per token that it reads, of `objectives/dense.py`.
        responses: one of `RESPONSES`.
        per: "token" divides the sum over the step by its tokens; "sequence" averages over each response's first, then
            over the responses of a row.
    """

    cost: Cost
    dense: tuple[str, ...]
    responses: str
    per: str = "token"
    needs_reference: bool = False

    def responses_read(self, levels: Sequence[int]) -> set[int]:
        """Return the positions of the best response, of the others, or of all."""
        best, every = imitated(levels), set(range(len(levels)))
        if sum(level == 0 for level in levels) > 1:  # which of the tied is the best is known by its place among all
            return best if self.responses == "best" else every
        return {"best": best, "rest": every - best, "all": every}[self.responses]

    def counts(self, facts: GroupFacts, lengths: Tensor) -> Tensor:
        """Return [B]: weight times tokens of the responses, or weight alone per sequence."""
        tokens = (lengths * self._read(facts)).sum(1)
        return facts.weight * (tokens if self.per == "token" else tokens > 0)

    def values(self, policy: GroupLogps, reference: GroupLogps | None, facts: GroupFacts, step: StepFacts) -> Tensor:
        """Return [B]: weight times the cost, summed over tokens, or averaged."""
        read = self._read(facts)
        counted = policy.mask & read[..., None]
        sums = policy.counted(self._costs(policy, counted)).sum(-1)
        if self.per == "token":
            return facts.weight * sums.sum(1)
        means = sums / policy.lengths().clamp(min=1)
        return facts.weight * means.sum(1) / read.sum(1).clamp(min=1)

    def _costs(self, policy: GroupLogps, counted: Tensor) -> Tensor:
        """Return [B, K, T], 0 where no token counts."""
        # Filled before, not after: what stands behind a response may be anything, and a product passes its gradient.
        student, teacher, contrast = (
            policy.dense[name].masked_fill(~counted[..., None], 0.0) if name in self.dense else None
            for name in (STUDENT_LOGPS, TEACHER_LOGPS, CONTRAST_LOGPS)
        )
        return self.cost(student, teacher, contrast).masked_fill(~counted, 0.0)

    def _read(self, facts: GroupFacts) -> Tensor:
        """Return which responses are imitated, bool [B, K]."""
        is_best = facts.levels == 0
        is_best[:, 1:] = False  # one is imitated of several that are tied
        wanted = {"best": is_best, "rest": ~is_best, "all": torch.ones_like(is_best)}[self.responses]
        return facts.response_mask & wanted
