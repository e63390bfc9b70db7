"""ms-swift's rows: a whole conversation in `messages`, and what was rejected beside it.

`rejected_response` is a text or a list of texts (several answers, all worse than the first and of unknown order among
themselves), `rejected_messages` a whole conversation. `rejected_images` are the pictures that the rejected side saw;
`rejected_videos` is read the same way (not verified in ms-swift). TEMPLE's rows are of this format: one `<video>` and
one rejected text. Source: ms-swift, docs/source_en/Customization/Custom-dataset.md, and lscpku/TEMPLE,
convert_to_swift.py. As in ms-swift, media without a tag are put before the first turn that is not the system's.

The conversation may also stand as `query`, `response` and, before them, `history`, a list of [question, answer];
MM-RLHF (scripts/convert_to_swift.py) writes `question` and `response`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.sources.media_columns import TAG_OF, media_column, media_of
from mmalign.sources.prompts import history
from mmalign.sources.turns import TurnReader, is_turns, or_nothing, require_same_prompt, response_from, split_answer

EXAMPLES = {
    "rejected_response": {
        "messages": [
            {"role": "user", "content": "<image>What is on the stove?"},
            {"role": "assistant", "content": "A red kettle."},
        ],
        "rejected_response": "A red kettle and two pans.",
        "images": ["kitchen.jpg"],
    },
    "several rejected responses": {
        "messages": [
            {"role": "user", "content": "<image>What is on the stove?"},
            {"role": "assistant", "content": "A red kettle."},
        ],
        "rejected_response": ["A red kettle and two pans.", "Nothing."],
        "images": "kitchen.jpg",
    },
    "rejected_messages": {
        "messages": [
            {"role": "user", "content": "<image>What is on the stove?"},
            {"role": "assistant", "content": "A red kettle."},
        ],
        "images": ["kitchen.jpg"],
        "rejected_messages": [
            {"role": "user", "content": "<image>What is on the stove?"},
            {"role": "assistant", "content": "A red kettle."},
        ],
        "rejected_images": ["living_room.jpg"],
    },
    "a video, TEMPLE": {
        "messages": [
            {"role": "user", "content": "<video>Describe the events in order."},
            {"role": "assistant", "content": "He fills the kettle, then lights the stove."},
        ],
        "rejected_response": "He lights the stove, then fills the kettle.",
        "videos": ["cooking.mp4"],
    },
    "a query and its response": {
        "query": "What is on the stove?",
        "response": "A red kettle.",
        "rejected_response": "A red kettle and two pans.",
        "history": [["Is this a kitchen?", "Yes."]],
        "images": ["kitchen.jpg"],
    },
    "a question and its response, MM-RLHF's export": {
        "question": "What happens first?",
        "response": "He fills the kettle.",
        "rejected_response": "He lights the stove.",
        "video": "cooking.mp4",
    },
    "the rejected side saw another video": {
        "messages": [
            {"role": "user", "content": "<video>What is cooked?"},
            {"role": "assistant", "content": "A pancake."},
        ],
        "videos": ["cooking.mp4"],
        "rejected_response": "A pancake.",
        "rejected_videos": ["reading.mp4"],
    },
}
NEEDS = ("messages", "rejected_response")
_BOX_TAGS = ("<bbox>", "<ref-object>")
_REJECTED = ("rejected_response", "rejected_messages")
_QUESTIONS = ("query", "question")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has a conversation and one of the columns that say what was rejected."""
    is_asked = "response" in values and any(name in values for name in _QUESTIONS)
    return (is_turns(values.get("messages")) or is_asked) and any(name in values for name in _REJECTED)


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read, or the two conversations do not share their prompt.
    """
    listed = media_of(values)
    turns, field = _turns(values)
    _require_no_boxes(turns, values)
    prompt, media, chosen = _conversation(turns, field, listed)
    rejected_listed = _rejected_media(values, listed)
    filled = [name for name in _REJECTED if values.get(name) not in (None, [])]
    if len(filled) != 1:
        raise RowError("row must say what was rejected, once", field=" or ".join(_REJECTED), value=filled or "nothing")
    own_media = _in_order_of(media, rejected_listed) if rejected_listed != listed else None
    if filled == ["rejected_messages"]:
        other, _, answer = _conversation(values[filled[0]], filled[0], rejected_listed)
        require_same_prompt(prompt, other, filled[0])
        rejected = [Response(messages=answer.messages, media=own_media)]
    else:
        rejected = [response_from(text, filled[0], media=own_media) for text in _texts(values[filled[0]])]
    return Preference(
        id="",
        prompt=prompt,
        media=media,
        responses=(chosen, *rejected),
        ties=(tuple(range(1, len(rejected) + 1)),) if len(rejected) > 1 else (),
    )


def _conversation(
    raw: list[Any], field: str, listed: list[MediaRef]
) -> tuple[tuple[Message, ...], tuple[MediaRef, ...], Response]:
    reader = TurnReader(listed)
    messages = reader.messages(_with_missing_tags(raw, listed), field)
    prompt, answer = split_answer(messages, field)
    return prompt, reader.media, answer


def _with_missing_tags(raw: list[Any], listed: list[MediaRef]) -> list[Any]:
    """Put the tags that are missing before the first turn that is not the system's."""
    if not is_turns(raw):
        return raw  # the reader says what it is instead
    texts = [turn.get("content") if isinstance(turn, Mapping) else None for turn in raw]
    if not all(isinstance(text, str) for text in texts):
        return raw  # typed parts name their media themselves
    counts = {kind: sum(ref.kind == kind for ref in listed) for kind in TAG_OF}
    missing = "".join(tag * (counts[kind] - sum(text.count(tag) for text in texts)) for kind, tag in TAG_OF.items())
    at = next((k for k, turn in enumerate(raw) if turn.get("role") != "system"), None)
    if not missing or at is None:
        return raw
    return [*raw[:at], {**raw[at], "content": missing + texts[at]}, *raw[at + 1 :]]


def _turns(values: Mapping[str, Any]) -> tuple[list[Any], str]:
    """Return the whole conversation, and the name of the column that a message about it names."""
    asked = next((name for name in _QUESTIONS if values.get(name) is not None), None)
    if values.get("messages") is not None or asked is None:
        return values["messages"], "messages"
    turns = [{"role": "user", "content": values[asked]}, {"role": "assistant", "content": values["response"]}]
    return [*history(values.get("history")), *turns], asked


def _require_no_boxes(turns: list[Any], values: Mapping[str, Any]) -> None:
    said = [turn.get("content") for turn in turns if isinstance(turn, Mapping)]
    tag = next((tag for tag in _BOX_TAGS for text in said if isinstance(text, str) and tag in text), None)
    if tag is not None and values.get("objects"):
        raise RowError(
            "boxes are not supported", field="objects", value=tag, hint="write the coordinates into the text"
        )


def _rejected_media(values: Mapping[str, Any], listed: list[MediaRef]) -> list[MediaRef]:
    """Return the media that the rejected side saw, in the order of `listed`."""
    seen: list[MediaRef] = []
    for kind in TAG_OF:
        own, column = [ref for ref in listed if ref.kind == kind], f"rejected_{kind}s"
        raw = values.get(column)
        rejected = own if raw in (None, [], "") else media_column(raw, column, kind)
        if len(rejected) != len(own):
            reason = f"{column} must be as many as {kind}s ({len(own)})"
            raise RowError(reason, field=column, value=len(rejected))
        seen += rejected
    return seen


def _in_order_of(media: tuple[MediaRef, ...], listed: list[MediaRef]) -> tuple[MediaRef, ...]:
    """Put media that stand kind by kind in the order in which the prompt names them."""
    waiting = {kind: iter([ref for ref in listed if ref.kind == kind]) for kind in TAG_OF}
    ordered = tuple(next(waiting[ref.kind], None) for ref in media)
    if None in ordered:
        reason = "rejected media need the chosen ones in columns, not in the parts of a turn"
        raise RowError(reason, field="rejected_images or rejected_videos", value=len(listed))
    return ordered


def _texts(raw: Any) -> list[Any]:
    """Return the rejected answers: one text, several texts, or the turns of one answer."""
    if isinstance(raw, list) and all(isinstance(text, str) for text in raw):
        return raw
    if isinstance(raw, str) or is_turns(raw):
        return [raw]
    raise RowError(
        "rejected_response must be a text or a list of texts", field="rejected_response", value=or_nothing(raw)
    )
