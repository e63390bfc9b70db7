"""mDPO's sample rows: the whole rendered prompt as one text, with USER: and ASSISTANT: marks and an `<image>` tag.

Marks and tag are taken out again, since the model's own chat template puts in its own. Source: luka-group/mDPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_column
from mmalign.sources.prompts import transcript
from mmalign.sources.turns import TurnReader, or_nothing, response_from

EXAMPLES = {
    "preference": {
        "img_path": "kitchen.jpg",
        "prompt": "A chat between a user and an assistant. USER: <image>\nWhat is on the stove? ASSISTANT:",
        "chosen": "A red kettle.",
        "rejected": "A red kettle and two pans.",
    },
}
NEEDS = ("img_path", "prompt", "chosen", "rejected")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row names its picture `img_path` beside a prompt and two answers."""
    return all(name in values for name in NEEDS)


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read, or the prompt has no `<image>`.
    """
    if not isinstance(values["prompt"], str):
        raise RowError("column must be a text", field="prompt", value=or_nothing(values["prompt"]))
    reader = TurnReader(media_column(values["img_path"], "img_path"), strip_newline=True)
    prompt = reader.messages(transcript(values["prompt"], "USER:", "ASSISTANT:"), "prompt")
    for name in ("chosen", "rejected"):
        if not isinstance(values[name], str):
            raise RowError("column must be a text", field=name, value=or_nothing(values[name]))
    responses = tuple(response_from(values[name], name) for name in ("chosen", "rejected"))
    return Preference(id="", prompt=prompt, media=reader.media, responses=responses)
