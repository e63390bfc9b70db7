"""Columns that change what a row means, in any format: read for every format in one place, or the row is refused.

A format reads what it knows. Of the columns below, the pair's scores, `margin`, `system`, `is_tie` and the judgement of
an only answer (`label`, `kto_tag`) mean the same wherever they stand and are put into every record here; each of the
others is read by some formats alone. Whatever is filled and was read by nobody would be dropped in silence, and the row
would teach something else: it is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.sources.candidates import PAIR_SCORES, pair_scores
from mmalign.sources.turns import or_nothing

_MEDIA = ("image", "images", "img_path", "image_path", "video", "videos", "video_path", "media")
_REJECTED_MEDIA = ("rejected_images", "rejected_videos")
LABELS = ("label", "kto_tag")
"""Columns that judge an only answer: TRL's and ms-swift's, and LLaMA-Factory's."""
_PAIR_SCORE_COLUMNS = tuple(name for pair in PAIR_SCORES for name in pair)
MEANINGFUL = (*_MEDIA, *_REJECTED_MEDIA, "system", "history", "margin", "is_tie", *_PAIR_SCORE_COLUMNS)
_EMPTY_TEXTS = ("", "[]", "{}")
_TEXTS_THAT_JUDGE = frozenset(("true", "false", "yes", "no", "good", "bad", "desirable", "undesirable", "0", "1"))


class Watched(dict):
    """A row that remembers which of its columns were asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a column, or `default`."""
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)


def with_common_columns(preference: Preference, values: Watched) -> Preference:
    """Put into a record what the columns say that mean the same in every format, unless its format read them.

    Raises:
        RowError: one of them cannot be read, or contradicts the row.
    """
    facts: dict[str, Any] = {}
    if "margin" not in values.asked and values.get("margin") is not None:
        facts["margin"] = values["margin"]
    if "system" not in values.asked and not is_empty(values.get("system")):
        facts["prompt"] = _with_system(values["system"], preference.prompt)
    if len(preference.responses) == 1 and preference.label is None:
        facts["label"] = _label(values)
    if len(preference.responses) == 2:
        if "is_tie" not in values.asked and _is_tie(values.get("is_tie")):
            facts["ties"] = ((0, 1),)
        if all(response.score is None for response in preference.responses):
            facts["responses"] = _with_scores(preference.responses, values)
    return dataclasses.replace(preference, **facts) if facts else preference


def require_meaning_read(values: Mapping[str, Any], asked: set[str], format: str) -> None:
    """Refuse rows with a column that would change their meaning and that nobody read.

    Args:
        values: the row.
        asked: its columns that were read.
        format: name of the format that read it.

    Raises:
        RowError: there is one.
    """
    for name in MEANINGFUL:
        value = values.get(name)
        if name not in asked and value is not False and not is_empty(value):
            hint = f"rows of the format {format} do not have it; if it changes nothing, leave it out or rename it"
            raise RowError(f"column {name} is not read", field=name, value=value, hint=hint)


def is_empty(value: Any) -> bool:
    """Tell whether a column says nothing: it is null, or an empty text, list or object, or holds only such."""
    if isinstance(value, Mapping):
        return all(is_empty(part) for part in value.values())
    if isinstance(value, str):
        return value.strip() in _EMPTY_TEXTS
    return value is None or value == []


def _with_system(system: Any, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put the system's text before the turns, of which one may say it already."""
    if not isinstance(system, str):
        raise RowError("column must be a text", field="system", value=or_nothing(system))
    said = [message.text for message in prompt if message.role == "system"]
    if said and said != [system]:
        raise RowError("row says in two ways what the system's text is", field="system", value=system)
    return prompt if said else (Message.of("system", system), *prompt)


def _label(values: Watched) -> bool | None:
    """Return how the only answer of a row was judged.

    A text under `label` is a class or a name, as in many tables, and judges nothing; a number might, and nobody knows
    which way. A text that says true or false would judge, and without it a bad answer would be imitated.
    """
    found: dict[str, bool] = {}
    for name in LABELS:
        raw = dict(values).get(name)
        if isinstance(raw, bool):
            found[name] = values.get(name)
        elif isinstance(raw, int | float) or (name == "kto_tag" and not is_empty(raw)) or _judges(raw):
            hint = "write true or false, without quotation marks" if isinstance(raw, str) else ""
            raise RowError("judgement of an answer must be true or false", field=name, value=raw, hint=hint)
    if len(set(found.values())) > 1:
        raise RowError("row says in two ways how its answer was judged", field="label", value=found)
    return next(iter(found.values()), None)


def _judges(raw: Any) -> bool:
    return isinstance(raw, str) and raw.strip().lower() in _TEXTS_THAT_JUDGE


def _is_tie(raw: Any) -> bool:
    if raw is not None and not isinstance(raw, bool):
        raise RowError("must be true or false", field="is_tie", value=raw)
    return bool(raw)


def _with_scores(responses: tuple[Response, ...], values: Mapping[str, Any]) -> tuple[Response, ...]:
    """Give chosen and rejected their scores; named scores that they have already stay."""
    both = zip(responses, pair_scores(values), strict=True)
    return tuple(
        dataclasses.replace(response, score=facts.get("score"), scores={**response.scores, **facts.get("scores", {})})
        for response, facts in both
    )
