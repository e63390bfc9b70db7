"""TRL's preference rows: conversational, standard (plain texts), with an implicit prompt; and prompt with completion.

A completion with a `label` is TRL's unpaired row, of which KTO learns: true is good, false is bad.

Source: TRL 1.16, docs/source/dataset_formats.md, `prepare_multimodal_messages` and `extract_prompt`. Images of rows
whose content is plain text stand before the first user turn. Departures: a plain-text prompt becomes a user turn, so
that the chat template is applied to it; an implicit prompt of plain texts ends at a word, never inside one; an
implicit prompt is found for rows with images too; `videos` and parts of type video are read, which TRL itself does
not know yet. `score_chosen` and `score_rejected`, as UltraFeedback's binarized rows have them, are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.sources.media_columns import media_of
from mmalign.sources.prompts import media_first, transcript
from mmalign.sources.turns import TurnReader, is_turns, or_nothing, response_from

EXAMPLES = {
    "conversational": {
        "images": ["kitchen.jpg"],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is on the stove?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "A red kettle."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "A red kettle and two pans."}]}],
    },
    "conversational, plain content": {
        "image": "kitchen.jpg",
        "prompt": [{"role": "user", "content": "What is on the stove?"}],
        "chosen": [{"role": "assistant", "content": "A red kettle."}],
        "rejected": [{"role": "assistant", "content": "A red kettle and two pans."}],
    },
    "standard": {
        "images": ["kitchen.jpg"],
        "prompt": "What is on the stove?",
        "chosen": "A red kettle.",
        "rejected": "A red kettle and two pans.",
    },
    "implicit prompt": {
        "chosen": [
            {"role": "user", "content": "What boils water?"},
            {"role": "assistant", "content": "A kettle."},
        ],
        "rejected": [
            {"role": "user", "content": "What boils water?"},
            {"role": "assistant", "content": "A fridge."},
        ],
    },
    "a video": {
        "prompt": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens first?"}]}],
        "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "He fills the kettle."}]}],
        "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "He lights the stove."}]}],
        "videos": ["cooking.mp4"],
    },
    "prompt and completion": {
        "images": ["kitchen.jpg"],
        "prompt": [{"role": "user", "content": "What is on the stove?"}],
        "completion": [{"role": "assistant", "content": "A red kettle."}],
    },
    "unpaired": {
        "images": ["kitchen.jpg"],
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is on the stove?"}]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": "A red kettle and two pans."}]}],
        "label": False,
    },
    "unpaired, standard": {"prompt": "What boils water?", "completion": "A kettle.", "label": True},
}
NEEDS = ("chosen", "rejected", "prompt")
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has chosen and rejected, or prompt and completion, as texts or turns."""
    names = ("chosen", "rejected") if "chosen" in values else ("prompt", "completion")
    return all(name in values and not isinstance(values[name], Mapping) for name in names)


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read.
    """
    listed = media_of(values)
    if "chosen" in values:
        names = ("chosen", "rejected")
        prompt, answers = _with_prompt(*(values.get(name) for name in ("prompt", *names)))
    else:
        names = ("completion",)
        prompt, answers = values.get("prompt"), (values.get("completion"),)
    messages, media = _prompt(prompt, listed)
    responses = tuple(_response(answer, name) for answer, name in zip(answers, names, strict=True))
    return Preference(id="", prompt=messages, media=media, responses=responses)


def _response(raw: Any, field: str) -> Response:
    if not isinstance(raw, str) and not is_turns(raw):
        raise RowError("response must be a text or a list of turns", field=field, value=or_nothing(raw))
    return response_from(raw, field, tagged=False)


def _prompt(raw: Any, listed: list[MediaRef]) -> tuple[tuple[Message, ...], tuple[MediaRef, ...]]:
    plain = isinstance(raw, str)
    reader = TurnReader(listed, tagged=plain and bool(listed))
    turns = [{"role": "user", "content": raw}] if plain else raw
    messages = reader.messages(turns, "prompt")
    if _names_no_place(turns) and not any(message.media_indices for message in messages):
        messages = media_first(messages, len(listed))
    return messages, reader.media


def _names_no_place(turns: list[Any]) -> bool:
    """Tell whether the first user turn is plain text: typed parts name the places of their media, also when none."""
    contents = (turn.get("content") for turn in turns if turn.get("role") == "user")
    return isinstance(next(contents, None), str)


def _with_prompt(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, tuple[Any, Any]]:
    """Return the prompt and both answers without it; where it is implicit, it is what the answers share."""
    conversational = is_turns(chosen)
    if prompt is not None and is_turns(prompt) == conversational:
        return prompt, (chosen, rejected)
    if conversational and is_turns(rejected):
        length = _shared_turns(chosen, rejected)
        return chosen[:length] or prompt, (chosen[length:], rejected[length:])
    if isinstance(chosen, str) and isinstance(rejected, str) and prompt is None:
        return _shared_text(chosen, rejected)
    return prompt, (chosen, rejected)


def _shared_turns(chosen: list[Any], rejected: list[Any]) -> int:
    longest = min(len(chosen), len(rejected)) - 1
    return next((k for k in range(longest) if chosen[k] != rejected[k]), longest)


def _shared_text(chosen: str, rejected: str) -> tuple[Any, tuple[str, str]]:
    """Part two plain texts from what they share: up to the last answer of a transcript, else up to a word's end."""
    if _ASSISTANT in chosen and _ASSISTANT in rejected:
        shared, _, chosen_answer = chosen.rpartition(_ASSISTANT)
        other, _, rejected_answer = rejected.rpartition(_ASSISTANT)
        if shared == other:
            return transcript(shared, _HUMAN, _ASSISTANT), (chosen_answer.strip(), rejected_answer.strip())
    longest = min(len(chosen), len(rejected))
    end = next((k for k in range(longest) if chosen[k] != rejected[k]), longest)
    while end and not chosen[end - 1].isspace():
        end -= 1
    if not chosen[:end].strip():
        raise RowError("row has no prompt, and its answers share none", field="prompt", value=chosen)
    return chosen[:end].strip(), (chosen[end:].strip(), rejected[end:].strip())
