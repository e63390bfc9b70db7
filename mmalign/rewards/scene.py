"""The reward of an added object, and the advantages of a group: ReSpace (arXiv:2506.02459), its version "v5".

An answer that cannot be read has reward 0; one that is good in all four ways 1; any other 0.2:

    ΔPBL < 1e-5,  PMS(prompt, description) > 0.85,  size error < 0.2,  DSS(description, true one) > 0.90

Advantages are A = (r - mean) / (std + 1e-4) over the answers to one prompt, std with N - 1 as in TRL 0.15. With neutral
rewards, A of the 0.2 is set to 0 afterwards: only successes push up, and only what cannot be read pushes down.

Departures: PMS and DSS are of the answer's own description, where ReSpace takes that of the asset it finds for it; a
caller with an asset store passes `described`. A group is one instruction answered N times, where the released program,
by an oversight, groups different instructions on one scene.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmalign.errors import RowError
from mmalign.formats.compat import Compat
from mmalign.formats.scene import SceneObject
from mmalign.formats.scene_task import Task
from mmalign.modalities.scene_losses import change
from mmalign.modalities.scene_scores import Encoder, prompt_match, same_words, similarity, size_error
from mmalign.modalities.scene_voxels import Meshes

FAILED, NEUTRAL, SUCCESS = 0.0, 0.2, 1.0


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Bounds of the four ways in which an added object is good."""

    most_delta_pbl_m3: float = 1e-5
    least_prompt_match: float = 0.85
    most_size_error: float = 0.2
    least_similarity: float = 0.90


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The reward of an answer and what it is made of; `trouble` says why an answer could not be read."""

    reward: float
    delta_pbl_m3: float | None = None
    prompt_match: float | None = None
    size_error: float | None = None
    similarity: float | None = None
    trouble: str = ""

    @property
    def is_neutral(self) -> bool:
        """Whether the answer can be read and is not good in every way."""
        return self.reward == NEUTRAL


def judge(
    task: Task,
    answer: str,
    truth: SceneObject,
    *,
    criteria: Criteria | None = None,
    encode: Encoder = same_words,
    described: Callable[[SceneObject], str] = lambda item: item.desc,
    meshes: Meshes | None = None,
    compat: Compat = "corrected",
) -> Verdict:
    """Return the verdict on an answer to an `<add>`.

    Args:
        task: the scene before, and what was asked for.
        answer: of the model.
        truth: the object that stood there.
        criteria: None for the paper's.
        encode: of descriptions, for DSS; without a model, which words occur.
        described: object -> description that stands for it.
        meshes: see `scene_losses.placement`.
        compat: see there.
    """
    criteria = criteria or Criteria()
    try:
        item = task.item(answer)
        delta = change(task.scene, task.scene.added(item), meshes, compat).pbl_m3
    except RowError as error:
        return Verdict(reward=FAILED, trouble=str(error))
    match = prompt_match(task.edit.words, described(item))
    error_of_size, alike = size_error(item, truth), similarity(described(item), truth.desc, encode)
    is_good = (
        delta < criteria.most_delta_pbl_m3
        and match > criteria.least_prompt_match
        and error_of_size < criteria.most_size_error
        and alike > criteria.least_similarity
    )
    return Verdict(
        reward=SUCCESS if is_good else NEUTRAL,
        delta_pbl_m3=delta,
        prompt_match=match,
        size_error=error_of_size,
        similarity=alike,
    )


def advantages(rewards: Sequence[float], *, neutral: bool = True) -> np.ndarray:
    """Return the advantages of the answers to one prompt, [N].

    Args:
        rewards: of all answers to the prompt.
        neutral: whether those of the neutral reward become 0 afterwards.
    """
    values = np.asarray(rewards, dtype=np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    found = (values - values.mean()) / (spread + 1e-4)
    return np.where(values == NEUTRAL, 0.0, found) if neutral else found
