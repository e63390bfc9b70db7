"""LLaMA-Factory's sharegpt rows: `conversations` (from/value) or `messages` (role/content), media as tags.

With `chosen` and `rejected` a row is a preference; without them a demonstration, of which the last answer is learnt, or
with `kto_tag` (in ms-swift `label`) an answer that was judged by itself.
Source: LLaMA-Factory, data/README.md (sharegpt and OpenAI formats). As there, `<image>` and `<video>` tags must be as
many as the media, and a video may be a list of frame files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_of
from mmalign.sources.turns import (
    TurnReader,
    is_turns,
    or_nothing,
    require_answerable,
    response_from,
    split_answer,
)

EXAMPLES = {
    "preference": {
        "conversations": [{"from": "human", "value": "<image>What is on the stove?"}],
        "chosen": {"from": "gpt", "value": "A red kettle."},
        "rejected": {"from": "gpt", "value": "A red kettle and two pans."},
        "images": ["kitchen.jpg"],
    },
    "preference, role and content": {
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "<image><image>Which room is tidier?"},
        ],
        "chosen": {"role": "assistant", "content": "The second."},
        "rejected": {"role": "assistant", "content": "Both have a sofa."},
        "images": ["before.jpg", "after.jpg"],
    },
    "a video as a list of frames": {
        "conversations": [{"from": "human", "value": "<video>What happens first?"}],
        "chosen": {"from": "gpt", "value": "He fills the kettle."},
        "rejected": {"from": "gpt", "value": "He lights the stove."},
        "videos": [["cooking/0001.jpg", "cooking/0002.jpg"]],
    },
    "demonstration": {
        "messages": [
            {"role": "user", "content": "<image>What is this?"},
            {"role": "assistant", "content": "A kettle."},
            {"role": "user", "content": "What colour has it?"},
            {"role": "assistant", "content": "Red."},
        ],
        "images": ["kitchen.jpg"],
    },
    "one answer, judged: KTO": {
        "messages": [
            {"role": "user", "content": "<image>What is on the stove?"},
            {"role": "assistant", "content": "A red kettle and two pans."},
        ],
        "images": ["kitchen.jpg"],
        "kto_tag": False,
    },
}
NEEDS = ("conversations", "chosen", "rejected")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has turns under `conversations` or `messages`, and no whole conversation as its answer."""
    turns = values.get("conversations", values.get("messages"))
    return is_turns(turns) and not is_turns(values.get("chosen")) and not is_turns(values.get("rejected"))


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row, or its demonstration when it has neither chosen nor rejected.

    Raises:
        RowError: a column is missing or cannot be read, or the turns do not leave room for an answer.
    """
    column = "conversations" if "conversations" in values else "messages"
    reader = TurnReader(media_of(values))
    messages = reader.messages(values[column], column)
    answers = {name: values.get(name) for name in ("chosen", "rejected")}
    if all(answer is None for answer in answers.values()):
        prompt, response = split_answer(messages, column)
        return Preference(id="", prompt=prompt, media=reader.media, responses=(response,))
    require_answerable(messages, column)
    for name, answer in answers.items():
        if not isinstance(answer, str | Mapping):
            raise RowError("answer must be one turn", field=name, value=or_nothing(answer))
    responses = tuple(response_from(answer, name) for name, answer in answers.items())
    return Preference(id="", prompt=messages, media=reader.media, responses=responses)
