"""align-anything's rows, and those of PKU-SafeRLHF: two numbered answers and the number of the better one.

`overall_response` is 1 or 2 for `response_1` and `response_2`; `better_response_id` is 0 or 1 for `response_0` and
`response_1`. The medium is `image`, or `video_path` (`video`). Ratings `<aspect>_rate_1` become named scores,
`text_critique_1` critiques, `model_1` and `res_1_from` models. The rationales of single aspects and the feedback on
the pair as a whole are not read. Rows that call neither answer better are refused, as align-anything leaves them out.
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
from mmalign.sources.turns import answer, media_column, media_of, or_nothing, question

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
        "better_response_id": 1,
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
    media = tuple(_media(values))
    asked = "question" if "question" in values else "prompt"
    return Preference(
        id="",
        prompt=question(values.get(asked), asked, len(media)),
        media=media,
        responses=tuple(_response(values, which) for which in (better, first + second - better)),
    )


def _better_column(values: Mapping[str, Any]) -> str | None:
    found = (
        column
        for column, answers in _BETTER.items()
        if column in values and all(f"response_{which}" in values for which in answers)
    )
    return next(found, None)


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
        scores={name.removesuffix(ending): number(value, name) for name, value in rates.items()},
        critique=values.get(f"text_critique_{which}") or None,
        model=values.get(f"model_{which}") or values.get(f"res_{which}_from") or None,
    )
