"""Answers that add an object, and whole scenes, in the figures of ReSpace's tables (arXiv:2506.02459).

Losses are in 10⁻³ m³, as there. An answer that cannot be read counts as not valid JSON and is left out of the other
figures, as in the released program. FID, FID-CLIP and KID need reference renders and networks and are not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmalign.errors import RowError
from mmalign.formats.compat import Compat
from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_task import Task
from mmalign.modalities.scene_losses import Placement, placement
from mmalign.modalities.scene_scores import Encoder, prompt_match, same_words, similarity, size_error
from mmalign.modalities.scene_voxels import Meshes

ADDITION_FIGURES = {
    "read": "share of answers that are an object",
    "delta_oob": "change of the volume outside the room, 10⁻³ m³",
    "delta_mbl": "change of the volume that objects share, 10⁻³ m³",
    "delta_pbl": "both",
    "valid": "share of scenes with PBL of at most 0.1 m³ after the answer",
    "pms": "share of the prompt's words that occur in the description",
    "size_error": "length of the vector of relative errors of the size",
    "dss": "cosine of the description and the true one",
}
SCENE_FIGURES = ("oob", "mbl", "pbl", "valid")


def additions(
    tasks: Sequence[Task],
    answers: Sequence[str],
    truths: Sequence[SceneObject],
    *,
    encode: Encoder = same_words,
    meshes: Meshes | None = None,
    compat: Compat = "corrected",
) -> dict[str, np.ndarray]:
    """Return the figures of answers to `<add>`, each an array [N]; NaN where an answer cannot be read.

    Args:
        tasks: N of them.
        answers: one to each.
        truths: the objects that stood there.
        encode: of descriptions.
        meshes: see `scene_losses.placement`.
        compat: see there.
    """
    rows = []
    for task, answer, truth in zip(tasks, answers, truths, strict=True):
        try:
            item = task.item(answer)
            before = placement(task.scene, meshes, compat)
            after = placement(task.scene.added(item), meshes, compat)
        except RowError:
            rows.append([0.0] + [np.nan] * (len(ADDITION_FIGURES) - 1))
            continue
        rows.append(
            [
                1.0,
                1e3 * (after.oob_m3 - before.oob_m3),
                1e3 * (after.mbl_m3 - before.mbl_m3),
                1e3 * (after.pbl_m3 - before.pbl_m3),
                float(after.is_valid),
                prompt_match(task.edit.words, item.desc),
                size_error(item, truth),
                similarity(item.desc, truth.desc, encode),
            ]
        )
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(ADDITION_FIGURES)).T
    return dict(zip(ADDITION_FIGURES, columns, strict=True))


def scenes(made: Sequence[Scene], meshes: Meshes | None = None, compat: Compat = "corrected") -> dict[str, np.ndarray]:
    """Return oob, mbl and pbl in 10⁻³ m³ and whether each scene is valid, arrays [N]."""
    found: list[Placement] = [placement(scene, meshes, compat) for scene in made]
    pbl = np.array([1e3 * one.pbl_m3 for one in found])
    columns = (
        np.array([1e3 * one.oob_m3 for one in found]),
        np.array([1e3 * one.mbl_m3 for one in found]),
        pbl,
        np.array([float(one.is_valid) for one in found]),
    )
    return dict(zip(SCENE_FIGURES, columns, strict=True))


def means(figures: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the mean of every figure over the answers that have it; nothing for one that none has."""
    return {name: float(np.nanmean(values)) for name, values in figures.items() if np.isfinite(values).any()}
