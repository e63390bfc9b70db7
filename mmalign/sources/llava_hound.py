"""Rows of LLaVA-Hound, TPO and MIA-DPO: three plain texts about a video, or about several pictures in a column
`image`.

Source: RifleZhang/LLaVA-Hound-DPO, run_dpo.py, and Liuziyu77/MIA-DPO, which reads several pictures with the same
program (TPO publishes no training code; that its rows are the same is not verified). As there, a single medium is put
before the prompt and the prompt's tags are dropped, while the tags of several pictures say where each stands. `video`
is a file, or a folder of frames. The score of an answer is read from `chosen_score` and `rejected_score`, which
LLaVA-Hound's file is said to have (not verified).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_of
from mmalign.sources.prompts import answer, question
from mmalign.sources.turns import or_nothing

EXAMPLES = {
    "a video, LLaVA-Hound and TPO": {
        "id": "v_cooking-1",
        "video": "v_cooking",
        "prompt": "<video>\nWhat happens first?",
        "chosen": "He fills the kettle.",
        "rejected": "He lights the stove.",
        "chosen_score": 5,
        "rejected_score": 2,
    },
    "several pictures, MIA-DPO": {
        "image": ["living_room.jpg", "kitchen.jpg"],
        "prompt": "Image1: <image>\nImage2: <image>\nWhat is on the stove in Image2?",
        "chosen": "A red kettle.",
        "rejected": "A sofa.",
    },
}
NEEDS = ("video", "prompt", "chosen", "rejected")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has three texts, and one video or a list of pictures where TRL has a single one."""
    if not all(isinstance(values.get(name), str) for name in NEEDS[1:]):
        return False
    return isinstance(values.get("video"), str) or isinstance(values.get("image"), list)


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read, or tags and pictures are not equally many.
    """
    listed = media_of(values)
    if not listed:
        raise RowError("row has no medium", field="video", value=or_nothing(values.get("video")))
    prompt, media = question(values["prompt"], "prompt", listed)
    responses = tuple(answer(values[name], name) for name in ("chosen", "rejected"))
    return Preference(id="", prompt=prompt, media=media, responses=responses)
