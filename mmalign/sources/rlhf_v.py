"""RLHF-V and RLAIF-V rows: a question about one picture, the better and the worse answer.

The first release of RLHF-V keeps the three texts as JSON in one column, `text`. The picture stands before the question,
where LLaVA's tag for it is dropped.
Source: the data sets openbmb/RLHF-V-Dataset and openbmb/RLAIF-V-Dataset.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_column, media_of
from mmalign.sources.prompts import question
from mmalign.sources.turns import or_nothing, response_from

EXAMPLES = {
    "question, chosen, rejected": {
        "question": "What is on the stove?",
        "chosen": "A red kettle.",
        "rejected": "A red kettle and two pans.",
        "image": {"bytes": None, "path": "kitchen.jpg"},
        "origin_dataset": "kitchens",
    },
    "texts as JSON": {
        "text": '{"question": "What is on the stove?", "chosen": "A red kettle.", "rejected": "Two pans."}',
        "image": {"bytes": None, "path": "kitchen.jpg"},
        "origin_dataset": "kitchens",
    },
}
NEEDS = ("question", "chosen", "rejected", "image")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has a question with two answers, or the three as JSON beside a picture."""
    if all(name in values for name in ("question", "chosen", "rejected")):
        return True
    as_json = isinstance(values.get("text"), str) and values["text"].lstrip().startswith("{")
    return as_json and any(name in values for name in ("image", "image_path"))


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row; tags tell the origin.

    Raises:
        RowError: the JSON is broken, or a column is missing or cannot be read.
    """
    texts = values if "question" in values else _texts(values["text"])
    for name in ("question", "chosen", "rejected"):
        if not isinstance(texts.get(name), str):
            raise RowError("column must be a text", field=name, value=or_nothing(texts.get(name)))
    prompt, media = question(texts["question"], "question", _media(values))
    tags = {name: values[name] for name in ("origin_dataset", "ds_name") if isinstance(values.get(name), str)}
    return Preference(
        id="",
        prompt=prompt,
        media=media,
        responses=tuple(response_from(texts[name], name, tagged=False) for name in ("chosen", "rejected")),
        tags=tags,
    )


def _media(values: Mapping[str, Any]) -> list[MediaRef]:
    """Return the picture: that of `image`, of which `image_path` is the name where both are filled."""
    image, path = values.get("image"), values.get("image_path")
    empty = isinstance(image, Mapping) and not any(image.values())
    return media_column(path, "image_path") if (image is None or empty) and path else media_of(values)


def _texts(raw: str) -> Mapping[str, Any]:
    try:
        texts = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RowError("column is not JSON", field="text", value=raw, hint=str(error)) from error
    if not isinstance(texts, Mapping):
        raise RowError("column must hold a JSON object", field="text", value=raw)
    return texts
