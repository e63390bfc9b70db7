"""LLaVA-style preference rows: `conversations` with the chosen answer last, `rejected_conversations` beside it.

Source: LLaVA's instruction files, as POVID (YiyangZhou/POVID, tool/) and SIMA (umd-huang-lab/SIMA) extended them. The
line break between the tag and the text belongs to the tag: LLaVA itself puts the picture on a line of its own,
whichever way the row writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_of
from mmalign.sources.turns import TurnReader, is_turns, or_nothing, require_same_prompt, response_from, split_answer

EXAMPLES = {
    "preference": {
        "id": "kitchen-1",
        "image": "kitchen.jpg",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is on the stove?"},
            {"from": "gpt", "value": "A red kettle."},
        ],
        "rejected_conversations": [
            {"from": "human", "value": "<image>\nWhat is on the stove?"},
            {"from": "gpt", "value": "A red kettle and two pans."},
        ],
    },
}
NEEDS = ("conversations", "rejected_conversations")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has both conversations."""
    return is_turns(values.get("conversations")) and "rejected_conversations" in values


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read, or the two conversations do not share their prompt.
    """
    listed = media_of(values)
    reader = TurnReader(listed, strip_newline=True)
    prompt, chosen = split_answer(reader.messages(values["conversations"], "conversations"), "conversations")
    rejected = values.get("rejected_conversations")
    if not is_turns(rejected):
        raise RowError(
            "turns must be a list that is not empty", field="rejected_conversations", value=or_nothing(rejected)
        )
    other = TurnReader(listed, strip_newline=True).messages(rejected, "rejected_conversations")
    if len(other) > 1:
        other_prompt, response = split_answer(other, "rejected_conversations")
        require_same_prompt(prompt, other_prompt, "rejected_conversations")
    else:
        response = response_from(rejected, "rejected_conversations")
    return Preference(id="", prompt=prompt, media=reader.media, responses=(chosen, response))
