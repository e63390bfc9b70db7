"""MM-RLHF's `data.jsonl`: one question, the outputs of several models, human scores and a ranking.

The columns are those of the released file; what stands inside them is NOT verified, so this reader takes the forms
below and refuses every other with its name. `models_output` is {model: text} or a list of texts. `final_ranking` and
the score columns (`faithfulness`, `helpfulness`, `ethical`) and `score_reasons` are keyed or listed the same way; a
rank of 1 is the best and equal ranks are ties. A `final_ranking` that lists model names has the best first. Scores
become named scores, reasons critiques. `answer`, whose meaning is not documented, and `ranking_reason` are not read.
Source: the data set yifanzhang114/MM-RLHF.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.preference import Preference
from mmalign.sources.candidates import number, ranked
from mmalign.sources.media_columns import media_of
from mmalign.sources.prompts import answer, question
from mmalign.sources.turns import or_nothing

EXAMPLES = {
    "three outputs, two of them equally good": {
        "id": "short-3",
        "image": "short/kitchen.png",
        "question": "What is on the stove?",
        "models_output": {"m-7b": "Two pans.", "m-72b": "A red kettle.", "n-72b": "A kettle."},
        "faithfulness": {"m-7b": 1, "m-72b": 5, "n-72b": 5},
        "helpfulness": {"m-7b": 2, "m-72b": 5, "n-72b": 4},
        "final_ranking": {"m-7b": 2, "m-72b": 1, "n-72b": 1},
        "score_reasons": {"m-7b": "No pans.", "m-72b": "Right.", "n-72b": "Right."},
    },
}
NEEDS = ("question", "models_output", "final_ranking")
_SCORES = ("faithfulness", "helpfulness", "ethical")


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has outputs of models and their ranking."""
    return "models_output" in values and "final_ranking" in values


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row, all its outputs best first.

    Raises:
        RowError: a column is missing, or what stands in it has none of the forms that this reader knows.
    """
    prompt, media = question(values.get("question"), "question", media_of(values))
    outputs = values["models_output"]
    if not isinstance(outputs, Mapping | list):
        raise _unknown_form("models_output", outputs, "{model: text} or a list of texts")
    keys = list(outputs) if isinstance(outputs, Mapping) else list(range(len(outputs)))
    scores = {name: _entries(values, name, keys) for name in _SCORES if values.get(name) is not None}
    reasons = _entries(values, "score_reasons", keys) if values.get("score_reasons") is not None else {}
    responses = [
        answer(
            outputs[key],
            f"models_output[{key!r}]",
            scores={name: number(entries[key], f"{name}[{key!r}]") for name, entries in scores.items()},
            critique=_reason(reasons.get(key), key),
            model=key if isinstance(key, str) else None,
        )
        for key in keys
    ]
    return ranked(prompt, media, responses, _ranks(values, keys))


def _ranks(values: Mapping[str, Any], keys: list[Any]) -> list[float]:
    raw = values["final_ranking"]
    names_in_order = isinstance(raw, list) and all(isinstance(name, str) and name in keys for name in raw)
    if names_in_order and len(set(raw)) == len(keys) == len(raw):
        return [raw.index(key) for key in keys]
    entries = _entries(values, "final_ranking", keys)
    return [number(entries[key], f"final_ranking[{key!r}]") for key in keys]


def _entries(values: Mapping[str, Any], column: str, keys: list[Any]) -> Mapping[Any, Any]:
    """Return one entry per output of a column that is keyed, or listed, as the outputs are."""
    raw = values[column]
    if isinstance(raw, list) and len(raw) == len(keys):
        return dict(zip(keys, raw, strict=True))
    if isinstance(raw, Mapping) and set(raw) == set(keys):
        return raw
    raise _unknown_form(column, raw, "one entry per output, keyed or listed as models_output is")


def _reason(raw: Any, key: Any) -> str | None:
    if raw is not None and not isinstance(raw, str):
        raise _unknown_form(f"score_reasons[{key!r}]", raw, "a text")
    return raw or None


def _unknown_form(field: str, value: Any, wanted: str) -> RowError:
    return RowError("column has a form that is not known", field=field, value=or_nothing(value), hint=f"use {wanted}")
