"""Scenes: the verbs of an answer that edits one. See `mmalign.modalities.answers` for who calls them.

A row asks for an edit of a scene in its prompt (`mmalign.formats.scene_task`) and holds objects or scenes as its
answers; a picture of an answer needs both.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.formats.scene import Scene
from mmalign.formats.scene_task import asks_for_scene, task_of
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.scene_losses import placement
from mmalign.modalities.scene_perturb import MISSING_FIELD, without_fields
from mmalign.modalities.scene_perturb import perturb as perturb_scene
from mmalign.modalities.scene_scores import prompt_match
from mmalign.modalities.scene_top import paint_sheet

__all__ = ["SceneFacts", "asks_for", "check", "load", "perturb", "picture", "render"]

asks_for = asks_for_scene


@dataclass(frozen=True, kw_only=True)
class SceneFacts:
    """What people are told of the scene that an answer leads to; losses are those of `scene_losses`, boxes alone."""

    objects: int
    outside_m3: float
    shared_m3: float
    added_loss_m3: float
    valid: str
    words_found: str


def load(row: Preference, response: Response) -> Scene:
    """Return the scene that an answer of a row leads to.

    Raises:
        RowError: the prompt or the answer is none; the message names the object and the rule.
    """
    return task_of(row).after(response.text)


def check(row: Preference, response: Response) -> SceneFacts:
    """Return what the answer of a row is, without drawing it.

    Raises:
        RowError: as `load`.
    """
    task = task_of(row)
    scene = task.after(response.text)
    before, after = placement(task.scene), placement(scene)
    added = task.edit.verb == "add"
    return SceneFacts(
        objects=len(scene.objects),
        outside_m3=after.oob_m3,
        shared_m3=after.mbl_m3,
        added_loss_m3=after.pbl_m3 - before.pbl_m3,
        valid="yes" if after.is_valid else "no",
        words_found=f"{prompt_match(task.edit.words, scene.objects[-1].desc):.0%}" if added else "nothing was added",
    )


def render(row: Preference, response: Response, limits: ImageLimits, max_pixels: int = 200_704) -> MediaRef:
    """Return the answer of a row as a picture to look at: from above and in perspective, with a key.

    Raises:
        RowError: as `load`.
    """
    task = task_of(row)
    scene = task.after(response.text)
    marked = [len(scene.objects) - 1] if task.edit.verb == "add" else []
    # A sheet is twice as wide as a picture, and has small letters: it may have twice the pixels.
    return picture(scene, 2 * max_pixels, marked)


def picture(scene: Scene, max_pixels: int = 400_000, marked: list[int] | None = None) -> MediaRef:
    """Return both views of a scene as a PNG, for people and judges."""
    buffer = io.BytesIO()
    paint_sheet(scene, max_pixels, marked or []).save(buffer, format="PNG")
    return MediaRef(kind="image", content=buffer.getvalue())


def perturb(row: Preference, response: Response, how: str, *, seed: int, strength: float = 0.5) -> Response:
    """Return a worse answer to a row that asks to add an object; see `scene_perturb.perturb`.

    Args:
        row: asks for an `<add>`.
        response: an answer that can be read.
        how: as there, or "field", which leaves out one to three keys.
        seed: as there.
        strength: as there.

    Raises:
        ConfigError, RowError: as there and as `load`, and where the row asks for a removal.
    """
    task = task_of(row)
    if task.edit.verb != "add":
        hint = "only answers to <add> are"
        raise RowError("answer to a removal cannot be made worse", field="prompt", value=task.edit.text(), hint=hint)
    after = task.after(response.text)
    if how == MISSING_FIELD:
        lacking = without_fields(replace(after.objects[-1], asset=None), seed=seed, strength=strength)
        return Response.of(json.dumps(lacking))
    return task.response(perturb_scene(after, how, seed=seed, strength=strength))
