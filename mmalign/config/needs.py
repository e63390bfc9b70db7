"""What objectives read beside the policy, and whether the recipe's `model` section gives it, and gives nothing else.

Which objective reads what is known in the room of objectives; it is handed over as names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from mmalign.config.problems import Problem

if TYPE_CHECKING:
    from mmalign.config.schema import RecipeConfig

REFERENCE = "reference"
"""Log-probs of a reference."""

DISTRIBUTIONS = "reference_kl"
"""Whole next-token distributions of it."""

TOKEN_REWARD = "token_reward"
"""A model whose log-probs are rewards of single tokens."""

TEACHER = "teacher_logps"
"""A model whose next-token distributions are imitated."""

CONTRAST = "contrast_logps"
"""A second one, which the teacher is contrasted with."""


def unmet(recipe: RecipeConfig, needs: Collection[str], *, says_reference: bool = False) -> Iterator[Problem]:
    """Yield what is missing of `needs`, and what is there and read by nobody.

    Args:
        says_reference: whether a stage names its reference, which may be its own start.
    """
    names = " + ".join(spec.name for spec in recipe.objective)
    model, teacher = recipe.model, recipe.model.teacher
    if REFERENCE not in needs:
        for key in ("reference", "precompute_reference", "reference_update"):
            if getattr(model, key) or (key == "reference" and says_reference):
                text = f"objective {names} compares with no reference; remove this key, or use one that does (dpo)"
                yield Problem(path=("model", key), text=text)
    if DISTRIBUTIONS in needs and model.precompute_reference:
        text = (
            f"objective {names} reads whole next-token distributions of the reference, and a table holds log-probs of "
            "tokens; remove this key"
        )
        yield Problem(path=("model", "precompute_reference"), text=text)
    yield from _given_if_read(
        ("model", "token_reward"),
        model.token_reward is not None,
        TOKEN_REWARD in needs,
        f"objective {names} weighs tokens by a reward model; name one of the policy's family and vocabulary",
        f"objective {names} weighs no tokens by a reward model; remove this key, or use one that does (sail)",
    )
    yield from _given_if_read(
        ("model", "teacher"),
        teacher is not None,
        TEACHER in needs,
        f"objective {names} imitates a teacher; name one, e.g. teacher: {{path: DIR}}",
        f"objective {names} imitates no teacher; remove this key, or use one that does (dckd)",
    )
    if teacher is not None and TEACHER in needs:
        yield from _given_if_read(
            ("model", "teacher", "contrast"),
            teacher.contrast is not None,
            CONTRAST in needs,
            f"objective {names} contrasts the teacher with a second model; name it",
            f"objective {names} contrasts the teacher with nothing; remove this key, or use one that does (adpa)",
        )


def _given_if_read(path: tuple[str, ...], given: bool, read: bool, missing: str, idle: str) -> Iterator[Problem]:
    if read and not given:
        yield Problem(path=path, text=f"is missing: {missing}")
    if given and not read:
        yield Problem(path=path, text=idle)
