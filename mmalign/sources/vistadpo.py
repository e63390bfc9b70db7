"""VistaDPO's rows: a question about a video, one good answer and two bad ones.

`rejected_2` is an irrelevant answer; which of the two rejected ones is worse is not said, so they are ties. `clip_w`
and `clip_l` (a clip that fits the answer and one that does not), `frame` (a folder with one key frame) and `bbox` (a
box in that frame, x, y, w, h in pixels) belong to objectives over changed media; they are kept as tags. `video` is a
path without ending: a file, or a folder of frames. Source: HaroldChen19/VistaDPO, dpo_scripts/dpo_train.py and
object_set.jsonl.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_of
from mmalign.sources.prompts import answer, question

EXAMPLES = {
    "preference": {
        "id": "star/COOK1",
        "video": "star/COOK1",
        "prompt": "What does he put on the stove?",
        "chosen": "He puts a red kettle on the stove.",
        "rejected": "He puts a pan on the stove.",
        "rejected_2": "He reads a book on the sofa.",
        "bbox": "'x': 55.0, 'y': 127.0, 'w': 92.0, 'h': 141.0",
        "clip_w": "clip/clip_w/star/COOK1",
        "clip_l": "clip/clip_l/star/COOK1",
        "frame": "frame/star/COOK1",
    },
}
NEEDS = ("video", "prompt", "chosen", "rejected", "rejected_2")
_TAGS = ("clip_w", "clip_l", "frame")
_NUMBER = r"-?\d+(?:\.\d+)?"
_BOX = re.compile(rf"\{{?\s*'x': {_NUMBER}, 'y': {_NUMBER}, 'w': {_NUMBER}, 'h': {_NUMBER}\s*\}}?")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has a second rejected answer beside a prompt and a pair."""
    return all(name in values for name in NEEDS[1:])


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row: three answers, the last two of unknown order.

    Raises:
        RowError: a column is missing or cannot be read.
    """
    prompt, media = question(values["prompt"], "prompt", media_of(values))
    return Preference(
        id="",
        prompt=prompt,
        media=media,
        responses=tuple(answer(values[name], name) for name in ("chosen", "rejected", "rejected_2")),
        ties=((1, 2),),
        tags={name: values[name] for name in _TAGS if values.get(name) is not None} | _box(values),
    )


def _box(values: Mapping[str, Any]) -> dict[str, str]:
    box = values.get("bbox")
    if box is None:
        return {}
    if not isinstance(box, str) or not _BOX.fullmatch(box.strip()):
        raise RowError("box must be a text as \"'x': 1.0, 'y': 2.0, 'w': 3.0, 'h': 4.0\"", field="bbox", value=box)
    return {"bbox": box}
