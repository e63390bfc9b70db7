"""Our own rows as a published format: what `mmalign.formats.store` writes. See `mmalign.formats.columns`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.formats.columns import from_columns
from mmalign.sources.turns import is_turns

EXAMPLES = {
    "two responses": {
        "id": "kitchen-1",
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is on the stove?"}]}],
        "images": ["kitchen.jpg"],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A red kettle."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A red kettle and two pans."}]}],
        "margin": 1.5,
        "tags": {"room": "kitchen"},
    },
    "three responses with scores": {
        "id": "kitchen-2",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "What boils water?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A kettle."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A fridge."}]}],
        "responses": [
            {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "A kettle."}]}], "score": 5.0},
            {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "A pot."}]}], "score": 4.0},
            {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "A fridge."}]}], "score": 1.0},
        ],
    },
    "one response, judged by itself": {
        "id": "kitchen-4",
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is on the stove?"}]}],
        "images": ["kitchen.jpg"],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": "A red kettle and two pans."}]}],
        "label": False,
    },
    "videos: a clip of a file, and a list of frames; the rejected side saw other media": {
        "id": "kitchen-3",
        "prompt": [
            {
                "role": "user",
                "content": [{"type": "video"}, {"type": "video"}, {"type": "text", "text": "Same kitchen?"}],
            }
        ],
        "videos": ["cooking.mp4", None],
        "media_facts": [{"span_s": [0.5, 4.0]}, {"frames": ["walk/0001.jpg", "walk/0002.jpg"]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "Yes, the same."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "Yes, the same."}]}],
        "responses": [
            {
                "messages": [{"role": "assistant", "content": [{"type": "text", "text": "Yes, the same."}]}],
                "scores": {"true": 1.0},
            },
            {
                "messages": [{"role": "assistant", "content": [{"type": "text", "text": "Yes, the same."}]}],
                "critique": "Said without looking.",
                "spans": [{"start": 0, "end": 3, "weight": 2.0}],
                "media": [
                    {"kind": "video", "path": "cooking.mp4"},
                    {"kind": "video", "frames": ["bath/0001.jpg", "bath/0002.jpg"]},
                ],
            },
        ],
    },
}
NEEDS = ("id", "prompt", "images", "chosen", "rejected")
parse = from_columns


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has an id, and prompt and answer as typed parts without media of their own.

    A row that says more in its turns (tool calls) is TRL's, whose reader knows what to say to that. One whose column
    `responses` holds conversations is ours however its turns are written: no other format would read that column.
    """
    if "id" not in values or not is_turns(values.get("prompt")):
        return False
    if _holds_conversations(values.get("responses")):
        return True
    answer = values.get("completion") if isinstance(values.get("label"), bool) else values.get("chosen")
    if not is_turns(answer):
        return False
    turns = [turn for turn in (*values["prompt"], *answer) if isinstance(turn, Mapping)]
    contents = [turn.get("content") for turn in turns]
    return (
        not any(name in values for name in ("image", "video"))
        and not any(turn.get("tool_calls") for turn in turns)
        and all(isinstance(content, list) and _is_plain(content) for content in contents)
    )


def _holds_conversations(responses: Any) -> bool:
    if not isinstance(responses, list) or not responses:
        return False
    return all(isinstance(response, Mapping) and is_turns(response.get("messages")) for response in responses)


def _is_plain(content: list[Any]) -> bool:
    named = [{key for key, value in part.items() if value is not None} for part in content if isinstance(part, Mapping)]
    return len(named) == len(content) and all(keys <= {"type", "text"} for keys in named)
