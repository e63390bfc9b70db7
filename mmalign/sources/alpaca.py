"""LLaMA-Factory's alpaca rows: `instruction` and `input`, with `output` or with `chosen` and `rejected`.

Source: LLaMA-Factory, data/README.md. `history` is a list of [question, answer]; media are `<image>` and `<video>`
tags. Uni-DPO's rows are of this format and have `score_chosen` and `score_rejected` beside the answers
(pspdada/Uni-DPO, Multimodal/LlamaFactory/data/dataset_info.json). `kto_tag` beside `output` judges it: true is good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.media_columns import media_of
from mmalign.sources.prompts import history
from mmalign.sources.turns import TurnReader, or_nothing, response_from

EXAMPLES = {
    "preference": {
        "instruction": "<image>What is on the stove?",
        "input": "",
        "chosen": "A red kettle.",
        "rejected": "A red kettle and two pans.",
        "images": ["kitchen.jpg"],
    },
    "preference with scores, Uni-DPO": {
        "instruction": "<image>What is on the stove?",
        "chosen": "A red kettle.",
        "rejected": "A red kettle and two pans.",
        "score_chosen": 4.5,
        "score_rejected": 2.0,
        "images": ["kitchen.jpg"],
    },
    "demonstration": {
        "instruction": "Translate to French.",
        "input": "kettle",
        "output": "bouilloire",
        "system": "You are a translator.",
        "history": [["Translate to French: stove.", "cuisiniere"]],
    },
    "one answer, judged: KTO": {"instruction": "What boils water?", "output": "A fridge.", "kto_tag": False},
}
NEEDS = ("instruction", "chosen", "rejected")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has an instruction and one or two answers."""
    return "instruction" in values and ("output" in values or ("chosen" in values and "rejected" in values))


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row, or its demonstration.

    Raises:
        RowError: a column is missing or cannot be read.
    """
    reader = TurnReader(media_of(values))
    names = ("chosen", "rejected") if values.get("chosen") is not None else ("output",)
    for name in ("instruction", *names, *(["input"] if values.get("input") is not None else [])):
        if not isinstance(values.get(name), str):
            raise RowError("column must be a text", field=name, value=or_nothing(values.get(name)))
    question = "\n".join(text for text in (values["instruction"], values.get("input")) if text)
    turns = [*history(values.get("history")), {"role": "user", "content": question}]
    messages = reader.messages(turns, "instruction")
    responses = tuple(response_from(values[name], name) for name in names)
    return Preference(id="", prompt=messages, media=reader.media, responses=responses)
