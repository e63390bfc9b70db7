"""Several answers to one prompt, with scores or ranks beside them -> responses best first, with their ties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.sources.turns import or_nothing

PAIR_SCORES = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))


def ranked(
    prompt: tuple[Message, ...], media: tuple[MediaRef, ...], responses: Sequence[Response], ranks: Sequence[float]
) -> Preference:
    """Return the preference of K answers in any order.

    Args:
        prompt, media: of the row.
        responses: in the order of the row.
        ranks: one per response, the smallest is the best; equal ones are ties. A score is the rank -score.

    Raises:
        RowError: there are fewer than two answers.
    """
    if len(responses) < 2:
        raise RowError("row must have two answers or more", field="responses", value=len(responses))
    best_first = sorted(range(len(responses)), key=lambda k: ranks[k])
    ties, place = [], 0
    for _, group in groupby(best_first, key=lambda k: ranks[k]):
        size = len(list(group))
        ties += [tuple(range(place, place + size))] if size > 1 else []
        place += size
    ordered = tuple(responses[k] for k in best_first)
    return Preference(id="", prompt=prompt, media=media, responses=ordered, ties=tuple(ties))


def number(raw: Any, field: str) -> float:
    """Return a number as published rows write it: 4, 4.5 or "4.5".

    Raises:
        RowError: it is something else, or not finite.
    """
    is_number = isinstance(raw, int | float) and not isinstance(raw, bool)
    try:
        value = float(raw) if is_number or isinstance(raw, str) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise RowError("must be a number", field=field, value=or_nothing(raw))
    return value


def pair_scores(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the columns of scores say of chosen and rejected, as facts of a `Response`.

    Scores that contradict which answer is called chosen are kept, as the named score "published": the label decides the
    order, and an overall score may not say otherwise.

    Raises:
        RowError: a score is no number, or one of the two is missing.
    """
    for names in PAIR_SCORES:
        missing = [name for name in names if values.get(name) is None]
        if len(missing) == 1:
            raise RowError("only one of the two answers has a score", field=missing[0], value="nothing")
        if not missing:
            chosen, rejected = (number(values[name], name) for name in names)
            if chosen < rejected:
                return {"scores": {"published": chosen}}, {"scores": {"published": rejected}}
            return {"score": chosen}, {"score": rejected}
    return {}, {}
