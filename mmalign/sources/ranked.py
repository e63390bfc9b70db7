"""Rows with any number of candidates: a prompt, a list of answers, and what orders them.

The prompt is `prompt`, `question` or `instruction` (a text, or turns), or `messages` or `conversations`; the answers
stand in `responses`, `completions`, `candidates` or `answers`. Answers that are texts, or turns, have their order
beside them: `scores` or `rewards` (larger is better), `ranks`, `rank` or `ranking` (one number per answer, the
smallest is the best), or `order` (positions of the answers from 0, best first). Answers that are objects say it
themselves: `response`, `answer`, `content` or `text` with `score`, `overall_score` or `reward`, or with `rank`; also
`model`, `critique`, and `annotations` as VLFeedback and UltraFeedback have them, {aspect: {Rating, Rationale}}, which
become named scores, and where nothing else orders the answers the mean of the ratings does, over the aspects in which
every answer is rated. A list of objects may be an object of lists, as `datasets` writes it. Equal scores and equal
ranks are ties.

Shapes that were read at their source: VLFeedback (the card of MMInstruction/VLFeedback: prompt, img_path,
completions). That tools would take such rows is asked in ms-swift#7314 and LlamaFactory#6509; the shapes with lists
beside the answers, that of UltraFeedback and that of Nectar (answers with a rank) are from memory, not verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.sources.candidates import number, ranked
from mmalign.sources.media_columns import media_column, media_of
from mmalign.sources.prompts import media_first
from mmalign.sources.turns import TurnReader, is_turns, or_nothing, require_answerable, response_from

EXAMPLES = {
    "texts and scores": {
        "prompt": "What is on the stove?",
        "images": ["kitchen.jpg"],
        "responses": ["Two pans.", "A red kettle.", "A kettle."],
        "scores": [1.0, 5.0, 4.0],
    },
    "texts and ranks, with a tie": {
        "messages": [{"role": "user", "content": "<video>What happens first?"}],
        "videos": ["cooking.mp4"],
        "responses": ["He fills the kettle.", "The kettle is filled.", "He lights the stove."],
        "rank": [1, 1, 2],
    },
    "answers that name their rank": {
        "prompt": "What boils water?",
        "answers": [
            {"answer": "A fridge.", "model": "m-1b", "rank": 2},
            {"answer": "A kettle.", "model": "m-7b", "rank": 1},
        ],
    },
    "annotated completions, VLFeedback": {
        "id": "kitchen-1",
        "prompt": "What is on the stove?",
        "img_path": "kitchen.jpg",
        "completions": [
            {
                "model": "m-1b",
                "response": "Two pans.",
                "annotations": {"Helpfulness": {"Rating": "2"}, "Visual Faithfulness": {"Rating": "1"}},
            },
            {
                "model": "m-7b",
                "response": "A red kettle.",
                "annotations": {"Helpfulness": {"Rating": "5"}, "Visual Faithfulness": {"Rating": "5"}},
            },
        ],
    },
}
NEEDS = ("prompt", "responses", "scores")
_PROMPTS = ("prompt", "question", "instruction", "messages", "conversations")
_LISTS = ("responses", "completions", "candidates", "answers")
_SCORES, _RANKS = ("scores", "rewards"), ("ranks", "rank", "ranking")
_TEXTS = ("response", "answer", "content", "text")
_OWN_SCORES = ("score", "overall_score", "reward")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has a list of answers, and something that orders them, and no pair."""
    column = _column(values)
    if column is None or "chosen" in values or not any(name in values for name in _PROMPTS):
        return False
    if any(name in values for name in (*_SCORES, *_RANKS, "order")):
        return True
    return _orders_itself(values[column])


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row, its answers best first.

    Raises:
        RowError: a column is missing or cannot be read, or nothing orders the answers.
    """
    column = _column(values)
    if column is None:
        raise RowError("row has no list of answers", field="responses", value=or_nothing(values.get("responses")))
    prompt, media = _prompt(values)
    objects = _objects(values, column)
    entries = objects or values[column]
    responses = [
        _from_object(entry, f"{column}[{k}]") if objects else response_from(entry, f"{column}[{k}]", tagged=False)
        for k, entry in enumerate(entries)
    ]
    responses = _with_scores(values, responses)
    return ranked(prompt, media, responses, _ranks(values, objects, column, responses))


def _column(values: Mapping[str, Any]) -> str | None:
    """Return the column with the answers: a list of texts, of turns or of objects, or an object of lists."""
    for name in _LISTS:
        value = values.get(name)
        many = bool(value) and isinstance(value, list) and not is_turns(value)
        columns = isinstance(value, Mapping) and bool(value) and all(isinstance(part, list) for part in value.values())
        if many or columns:
            return name
    return None


def _objects(values: Mapping[str, Any], column: str) -> list[Mapping[str, Any]]:
    """Return the answers when they are objects, nothing when they are texts or turns."""
    raw = values[column]
    if isinstance(raw, Mapping):
        lengths = {len(part) for part in raw.values()}
        if len(lengths) != 1:
            raise RowError("lists must be equally long", field=column, value=sorted(lengths))
        return [dict(zip(raw, parts, strict=True)) for parts in zip(*raw.values(), strict=True)]
    return raw if all(isinstance(entry, Mapping) for entry in raw) else []


def _orders_itself(raw: list[Any] | Mapping[str, Any]) -> bool:
    """Tell whether every answer is an object with something that orders it."""
    own = {*_OWN_SCORES, "rank", "annotations"}
    if isinstance(raw, Mapping):
        return not own.isdisjoint(raw)
    return all(isinstance(entry, Mapping) and not own.isdisjoint(entry) for entry in raw)


def _prompt(values: Mapping[str, Any]) -> tuple[tuple[Message, ...], tuple[MediaRef, ...]]:
    column = next((name for name in _PROMPTS if values.get(name) not in (None, "")), "prompt")
    raw, path = values.get(column), values.get("img_path")
    listed = [*media_of(values), *(media_column(path, "img_path") if path not in (None, "") else [])]
    if isinstance(raw, str):
        raw = [{"role": "user", "content": raw}]
    reader = TurnReader(listed, tagged=bool(listed))
    messages = reader.messages(raw, column)
    require_answerable(messages, column)
    if not any(message.media_indices for message in messages):
        messages = media_first(messages, len(listed))
    return messages, reader.media


def _from_object(raw: Mapping[str, Any], field: str) -> Response:
    name = next((name for name in _TEXTS if raw.get(name) is not None), None)
    if name is None:
        raise RowError("answer has no text", field=field, value=raw, hint=f"write it as {_TEXTS[0]}")
    scores, critiques = _annotations(raw.get("annotations"), f"{field}.annotations")
    score = next((number(raw[own], f"{field}.{own}") for own in _OWN_SCORES if raw.get(own) is not None), None)
    return response_from(
        raw[name],
        f"{field}.{name}",
        tagged=False,
        score=score,
        scores=scores,
        critique=raw.get("critique") or critiques or None,
        model=raw.get("model"),
    )


def _annotations(raw: Any, field: str) -> tuple[dict[str, float], str]:
    """Return the ratings by aspect, and the rationales as one text. A rating that is missing, or "N/A", is left out."""
    if raw is None:
        return {}, ""
    if not isinstance(raw, Mapping) or not all(isinstance(said, Mapping) for said in raw.values()):
        raise RowError("annotations must be {aspect: {Rating, Rationale}}", field=field, value=raw)
    rated = {aspect: said["Rating"] for aspect, said in raw.items() if said.get("Rating") not in (None, "", "N/A")}
    said = [f"{aspect}: {said['Rationale']}" for aspect, said in raw.items() if said.get("Rationale")]
    return {aspect: number(rating, f"{field}.{aspect}") for aspect, rating in rated.items()}, "\n".join(said)


def _with_scores(values: Mapping[str, Any], responses: list[Response]) -> list[Response]:
    """Give the answers the scores that stand beside them; answers that are rated only, the mean of their ratings.

    The mean is over the aspects in which all answers are rated: a rating that is missing makes no answer better.
    """
    column = next((name for name in _SCORES if values.get(name) is not None), None)
    shared = set.intersection(*(set(response.scores) for response in responses)) if responses else set()
    if column is not None:
        given = _numbers(values[column], column, len(responses))
    elif shared and all(response.score is None for response in responses):
        given = [sum(response.scores[aspect] for aspect in shared) / len(shared) for response in responses]
    else:
        return responses
    return [replace(response, score=score) for response, score in zip(responses, given, strict=True)]


def _ranks(
    values: Mapping[str, Any], objects: list[Mapping[str, Any]], column: str, responses: list[Response]
) -> list[float]:
    """Return one number per answer, the smallest for the best, from the first thing that orders all of them."""
    beside = next((name for name in _RANKS if values.get(name) is not None), None)
    if beside is not None:
        return _numbers(values[beside], beside, len(responses))
    if values.get("order") is not None:
        return _places(values["order"], len(responses))
    if objects and all(entry.get("rank") is not None for entry in objects):
        return [number(entry["rank"], f"{column}[{k}].rank") for k, entry in enumerate(objects)]
    if all(response.score is not None for response in responses):
        return [-response.score for response in responses]
    raise RowError("nothing orders all answers", field=column, hint="give scores, ranks or order")


def _numbers(raw: Any, field: str, count: int) -> list[float]:
    if not isinstance(raw, list) or len(raw) != count:
        raise RowError("must be a list with one number per answer", field=field, value=raw, hint=f"{count} answers")
    return [number(entry, f"{field}[{k}]") for k, entry in enumerate(raw)]


def _places(raw: Any, count: int) -> list[float]:
    """Turn the positions of the answers, best first, into one rank per answer."""
    whole = isinstance(raw, list) and all(isinstance(place, int) and not isinstance(place, bool) for place in raw)
    if not whole or sorted(raw) != list(range(count)):
        raise RowError("must name every answer once, from 0", field="order", value=raw, hint=f"{count} answers")
    return [raw.index(k) for k in range(count)]
