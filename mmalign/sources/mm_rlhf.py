"""MM-RLHF's `dpo_pairs.jsonl`, and the rows of its reward benchmark: pairs with a critique of each answer.

Source: Kwai-YuanQi/MM-RLHF, llava/train/train_dpo.py. A row has `image`, or `video`: a folder of frames. As there,
tags in the prompt are dropped and the medium put before it; several media stand where their tags are. `chosen_reason`
and `rejected_reason` become the critiques; a row with `is_tie` has two equally good answers. `ls_factor` (a precomputed
strength of the pair) and `mixed_up_image` (a picture for an objective over changed media) are kept as tags.
`reference_*_logp` are those of another model and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.candidates import number
from mmalign.sources.media_columns import media_of
from mmalign.sources.prompts import answer, question
from mmalign.sources.turns import or_nothing

EXAMPLES = {
    "a picture": {
        "id": "long-17",
        "image": "long/kitchen.png",
        "prompt": "What is on the stove?",
        "chosen": "A red kettle.",
        "rejected": "A red kettle and two pans.",
        "chosen_reason": "Names what is there.",
        "rejected_reason": "There are no pans.",
    },
    "a folder of frames, a tie": {
        "id": "video-4",
        "video": "video/cooking",
        "prompt": "What happens first?",
        "chosen": "He fills the kettle.",
        "rejected": "The kettle is filled.",
        "chosen_reason": "Right.",
        "rejected_reason": "Right as well.",
        "is_tie": True,
        "ls_factor": 0.25,
    },
}
NEEDS = ("prompt", "chosen", "rejected", "chosen_reason", "rejected_reason")
_OWN_COLUMNS = ("chosen_reason", "rejected_reason", "is_tie", "ls_factor", "mixed_up_image")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row is a pair of texts with one of the columns that MM-RLHF alone has."""
    is_pair = all(isinstance(values.get(name), str) for name in ("prompt", "chosen", "rejected"))
    return is_pair and any(name in values for name in _OWN_COLUMNS)


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read, or the row has both image and video.
    """
    prompt, media = question(values["prompt"], "prompt", media_of(values))
    if len({ref.kind for ref in media}) > 1:
        raise RowError("row has both image and video", field="video", value=values.get("video", values.get("videos")))
    responses = tuple(
        answer(values[name], name, critique=_critique(values, f"{name}_reason")) for name in ("chosen", "rejected")
    )
    return Preference(
        id="",
        prompt=prompt,
        media=media,
        responses=responses,
        tags=_tags(values),
    )


def _critique(values: Mapping[str, Any], column: str) -> str | None:
    critique = values.get(column)
    if critique is not None and not isinstance(critique, str):
        raise RowError("column must be a text", field=column, value=or_nothing(critique))
    return critique or None


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    tags = {}
    if values.get("ls_factor") is not None:
        tags["ls_factor"] = str(number(values["ls_factor"], "ls_factor"))
    if values.get("mixed_up_image") is not None:
        tags["mixed_up_image"] = values["mixed_up_image"]
    return tags
