"""One row as the data page knows it: texts and numbers that go into JSON, empty facts left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmalign.errors import show
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message, TextPart
from mmalign.formats.preference import Preference, Response
from mmalign.report.drawn_answers import Draw
from mmalign.sources.quarantine import Refusal

Place = Callable[[MediaRef, str], int]
"""Takes a reference and the field that names it; returns the number of its entry in the page."""

_TITLE_CHARACTERS = 140
_MOST_COLUMNS = 40


def of_preference(preference: Preference, place: Place, draw: Draw = lambda row, k: {}) -> dict[str, Any]:
    """Return the record of a row: a part of a turn is a text, or the number of a medium.

    Args:
        place: gives media their numbers.
        draw: says what answers are that are more than text.
    """
    numbers = [place(ref, f"media[{k}]") for k, ref in enumerate(preference.media)]
    provenance = dict(preference.provenance)
    levels = preference.levels()
    record = {
        "id": preference.id,
        "file": provenance.pop("file", ""),
        "row": int(provenance.pop("row", 0)),
        "source": provenance.pop("source", ""),
        "turns": [_turn(message, numbers) for message in preference.prompt],
        "answers": [
            _answer(response, levels[k], k, numbers, place) | _said({"drawn": draw(preference, k)})
            for k, response in enumerate(preference.responses)
        ],
        "ties": [list(group) for group in preference.ties],
        "label": preference.label,
        "margin": preference.margin,
        "weight": preference.weight if preference.weight != 1 else None,
        "difficulty": preference.difficulty,
        "tags": dict(preference.tags),
        "provenance": provenance,
    }
    return _said(record)


def of_medium(ref: MediaRef, place: Place) -> dict[str, Any]:
    """Return the record of a medium that stands alone."""
    return {"id": ref.uri, "file": ref.uri, "turns": [["", [place(ref, ref.kind)]]]}


def of_refusal(refusal: Refusal, columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row that is no preference: what stands in its columns, shortened."""
    place = {"id": f"{refusal.file}:{refusal.row}", "file": refusal.file, "row": refusal.row}
    raw = {str(name): show(value) for name, value in itertools.islice(columns.items(), _MOST_COLUMNS)}
    if len(columns) > _MOST_COLUMNS:
        raw["..."] = f"and {len(columns) - _MOST_COLUMNS:,} more columns"
    return place | ({"raw": raw} if raw else {})


def refused_for(refusal: Refusal) -> dict[str, str]:
    """Return why a row was refused, as its record says it."""
    said = {"reason": refusal.reason, "field": refusal.field, "value": refusal.value, "hint": refusal.hint}
    return _said(said)


def summary(record: dict[str, Any], entries: Sequence[dict[str, Any]], number: int = 0) -> dict[str, Any]:
    """Return what lists, filters and orders need to know of a row; the same names for every row.

    Args:
        record: of the row.
        entries: of all media of the page.
        number: what the command calls the row; 0 takes its number in its file.
    """
    numbers = _media_numbers(record)
    return {
        "id": record.get("id", ""),
        "row": number or record.get("row", 0),
        "title": _title(record),
        "thumb": next(iter(numbers + _drawn_numbers(record)), -1),
        "answers": len(record.get("answers", ())),
        "judged": {True: "good", False: "bad", None: ""}[record.get("label")],
        "length": _longest_answer(record),
        "refused": [refusal["reason"] for refusal in record.get("refused", ())],
        "source": record.get("source", ""),
        "kinds": sorted({entries[number]["kind"] for number in numbers}),
        "tags": [f"{name} = {value}" for name, value in record.get("tags", {}).items()],
        "left_out": any(entries[number].get("left_out") for number in numbers),
        "margin": record.get("margin"),
        "weight": record.get("weight", 1.0),
        "difficulty": record.get("difficulty"),
    }


def _title(record: dict[str, Any]) -> str:
    """Return the beginning of the last words of the prompt, in one line; the name of a medium that stands alone."""
    for _, parts in reversed(record.get("turns", ())):
        words = " ".join(part for part in parts if isinstance(part, str))[: 4 * _TITLE_CHARACTERS].split()
        if words:
            return " ".join(words)[:_TITLE_CHARACTERS]
    return record.get("id", "") if "turns" in record else ""


def _media_numbers(record: dict[str, Any]) -> list[int]:
    """Return the numbers of the row's media, those of its answers last."""
    parts = [part for _, parts in record.get("turns", ()) for part in parts]
    own = [number for answer in record.get("answers", ()) for number in answer.get("media", ())]
    return list(dict.fromkeys([part for part in parts if isinstance(part, int)] + own))


def _drawn_numbers(record: dict[str, Any]) -> list[int]:
    """Return the numbers of the pictures that were drawn of answers."""
    drawn = [answer.get("drawn", {}) for answer in record.get("answers", ())]
    return [one["picture"] for one in drawn if "picture" in one]


def _longest_answer(record: dict[str, Any]) -> int:
    """Return the number of characters of the longest answer."""
    lengths = [
        sum(len(part) for _, parts in answer["turns"] for part in parts if isinstance(part, str))
        for answer in record.get("answers", ())
    ]
    return max(lengths, default=0)


def _turn(message: Message, numbers: list[int]) -> list[Any]:
    parts = [part.text if isinstance(part, TextPart) else numbers[part.index] for part in message.parts]
    return [message.role, parts]


def _answer(response: Response, level: int, k: int, numbers: list[int], place: Place) -> dict[str, Any]:
    own = [place(ref, f"responses[{k}].media[{m}]") for m, ref in enumerate(response.media or ())]
    answer = {
        "level": level,
        "turns": [_turn(message, numbers) for message in response.messages],
        "score": response.score,
        "scores": dict(response.scores),
        "critique": response.critique,
        "spans": [
            [*_utf16(response.text, span.start, span.end), span.weight]
            for span in response.spans
            if span.start < len(response.text)
        ],
        "media": own if own != numbers else [],
        "model": response.model,
        "annotator": response.annotator,
    }
    return _said(answer)


def _utf16(text: str, *places: int) -> list[int]:
    """Return places in `text` as a browser counts them: characters beyond the first 65,536 take two units."""
    if text.isascii():
        return [min(place, len(text)) for place in places]
    return [len(text[:place].encode("utf-16-le", "surrogatepass")) // 2 for place in places]


def _said(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}
