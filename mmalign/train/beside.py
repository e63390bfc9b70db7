"""What a micro-batch's objective reads beside log-probs (`objectives/dense.py`): where each number comes from.

Some are asked of the policy's own forward (`asked`), the others are known without it (`known`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmalign.engine.reference import NoReference, Reference
from mmalign.engine.teacher_table import TeacherTable
from mmalign.engine.token_terms import ChosenLogps, LogitGain, TokenTerm
from mmalign.engine.tree import TreeBatch
from mmalign.engine.views import without_history
from mmalign.objectives.dense import CONTRAST_LOGPS, GAINED_LOGPS, REFERENCE_KL, TEACHER_LOGPS, TOKEN_REWARD


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Models and tables that are asked beside policy and reference.

    Args:
        token_reward: model whose log-probs against the reference's are rewards of single tokens.
        teacher: table of its likeliest tokens.
    """

    token_reward: Reference = field(default_factory=NoReference)
    teacher: TeacherTable | None = None


NO_SOURCES = Sources()


@dataclass(frozen=True)
class Beside:
    """What is read beside the log-probs of one micro-batch.

    Args:
        asked: of the policy, in its forward.
        known: numbers per token, [B, K, R, ...], by name.
    """

    asked: tuple[TokenTerm, ...] = ()
    known: Mapping[str, Tensor] = field(default_factory=dict)


def look_up(
    names: Sequence[str], sources: Sources, reference: Reference, batch: TreeBatch, *, is_filler: bool
) -> tuple[Tensor | None, Beside]:
    """Return the reference's log-probs of a batch, and what is beside.

    Args:
        names: of the numbers that the objective reads.
        reference: `NoReference` where the objective reads none.
        is_filler: no table knows the batch; it gets numbers that count for nothing.
    """
    asked: list[TokenTerm] = []
    known: dict[str, Tensor] = {}
    if REFERENCE_KL in names:
        logps, distance = reference.with_distributions(batch)
        asked.append(distance)
    elif is_filler and not reference.models and not isinstance(reference, NoReference):
        logps = torch.zeros(batch.response_mask.shape, device=batch.input_ids.device)
    else:
        logps = reference(batch)
    if TOKEN_REWARD in names:
        known[TOKEN_REWARD] = sources.token_reward(batch) - logps
    if TEACHER_LOGPS in names:
        found = sources.teacher.blank(batch) if is_filler else sources.teacher.read(batch)
        asked.append(ChosenLogps(found.ids))
        known[TEACHER_LOGPS] = found.teacher
        if CONTRAST_LOGPS in names:
            known[CONTRAST_LOGPS] = found.contrast
    if GAINED_LOGPS in names:
        asked.append(LogitGain(without_history().name))
    return logps, Beside(tuple(asked), known)
