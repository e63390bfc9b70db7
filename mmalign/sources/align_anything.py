"""align-anything's rows, and those of PKU-SafeRLHF: two numbered answers and the number of the better one.

`overall_response` is 1 or 2 for `response_1` and `response_2`; `better_response_id` is 0 or 1 for `response_0` and
`response_1`. The medium is `image`, or `video_path` (`video`). Ratings `<aspect>_rate_1` become named scores,
`text_critique_1` critiques, `model_1`, `res_1_from` and `response_1_source` models; `is_response_1_safe` becomes the
named score `safe` (1 or 0), and `safer_response_id`, which may be the worse answer's, the tag `safer` ("chosen" or
"rejected"). The rationales of single aspects, the feedback on the pair as a whole, and PKU-SafeRLHF's kinds of harm
and levels of severity are not read. Rows that call neither answer better are refused, as align-anything leaves them
out, and so are rows whose two columns call different answers better.
Source: PKU-Alignment/align-anything, configs/format_dataset.py (AA_TI2T, AA_TV2T, PKUSafeRLHF), and the card of the
data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.sources.candidates import number
from mmalign.sources.media_columns import media_column, media_of
from mmalign.sources.prompts import answer, question
from mmalign.sources.turns import or_nothing

EXAMPLES = {
    "text-image-to-text": {
        "question": "What is on the stove?",
        "image": {"bytes": None, "path": "kitchen.jpg"},
        "response_1": "A red kettle and two pans.",
        "response_2": "A red kettle.",
        "res_1_from": "m-7b",
        "res_2_from": "m-72b",
        "objective_rules_rate_1": 1,
        "objective_rules_rate_2": 3,
        "overall_response": 2,
    },
    "text-video-to-text": {
        "prompt": "<video>What happens first?",
        "video_path": "./videos/cooking.mp4",
        "response_1": "He fills the kettle.",
        "response_2": "He lights the stove.",
        "text_critique_1": "Right.",
        "text_critique_2": "That comes second.",
        "overall_response": 1,
    },
    "text only, PKU-SafeRLHF": {
        "prompt": "What boils water?",
        "response_0": "A fridge.",
        "response_1": "A kettle.",
        "response_0_source": "m-7b",
        "response_1_source": "m-7b-chat",
        "is_response_0_safe": True,
        "is_response_1_safe": True,
        "better_response_id": 1,
        "safer_response_id": 0,
    },
}
NEEDS = ("question", "response_1", "response_2", "overall_response")
# The column that names the better answer, and the numbers of the two.
_BETTER = {"overall_response": (1, 2), "better_response_id": (0, 1)}


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row has a column that names the better answer, and both answers."""
    return _better_column(values) is not None


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: a column is missing or cannot be read, or neither answer is called better.
    """
    column = _better_column(values) or NEEDS[-1]
    first, second = _BETTER[column]
    better = values.get(column)
    if not isinstance(better, int) or isinstance(better, bool) or better not in (first, second):
        reason = "row does not say which answer is better"
        raise RowError(reason, field=column, value=or_nothing(better), hint=f"{first} or {second}")
    _require_agreement(values, better)
    asked = "question" if "question" in values else "prompt"
    prompt, media = question(values.get(asked), asked, _media(values))
    return Preference(
        id="",
        prompt=prompt,
        media=media,
        responses=tuple(_response(values, which) for which in (better, first + second - better)),
        tags=_safer(values, better, first + second - better),
    )


def _better_column(values: Mapping[str, Any]) -> str | None:
    found = (
        column
        for column, answers in _BETTER.items()
        if column in values and all(f"response_{which}" in values for which in answers)
    )
    return next(found, None)


def _require_agreement(values: Mapping[str, Any], better: int) -> None:
    """Refuse a row with both columns, of which each calls another answer better."""
    for column in _BETTER:
        if values.get(column) is not None and values[column] != better:
            raise RowError("row says in two ways which answer is better", field=column, value=values[column])


def _safer(values: Mapping[str, Any], better: int, worse: int) -> dict[str, str]:
    safer, names = values.get("safer_response_id"), {better: "chosen", worse: "rejected"}
    if safer is None:
        return {}
    if isinstance(safer, bool) or safer not in names:
        raise RowError("must be the number of an answer", field="safer_response_id", value=safer)
    return {"safer": names[safer]}


def _is_safe(values: Mapping[str, Any], which: int) -> dict[str, float]:
    column = f"is_response_{which}_safe"
    is_safe = values.get(column)
    if is_safe is not None and not isinstance(is_safe, bool):
        raise RowError("must be true or false", field=column, value=is_safe)
    return {} if is_safe is None else {"safe": float(is_safe)}


def _media(values: Mapping[str, Any]) -> list[MediaRef]:
    path = values.get("video_path")
    videos = media_column(path, "video_path", "video") if path not in (None, "") else []
    return [*media_of(values), *videos]


def _response(values: Mapping[str, Any], which: int) -> Response:
    ending = f"_rate_{which}"
    rates = {name: values[name] for name in values if name.endswith(ending) and values[name] is not None}
    return answer(
        values[f"response_{which}"],
        f"response_{which}",
        scores={name.removesuffix(ending): number(value, name) for name, value in rates.items()}
        | _is_safe(values, which),
        critique=values.get(f"text_critique_{which}") or None,
        model=next((values[name] for name in _models(which) if values.get(name)), None),
    )


def _models(which: int) -> tuple[str, ...]:
    return f"model_{which}", f"res_{which}_from", f"response_{which}_source"
