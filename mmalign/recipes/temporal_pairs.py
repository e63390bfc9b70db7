"""From a true and a wrong telling of a video to a preference: which pairs are kept, and what a row says of them."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.pairs.perturbation import LOSES_ITEMS, Perturbed


def why_not(true: str, wrong: str, how: str, most_length_ratio: float) -> str | None:
    """Return why two tellings make no pair, None where they do: TEMPLE's rules.

    Args:
        how: the perturbation behind the wrong one.
        most_length_ratio: of the longer to the shorter in characters, where nothing was dropped.
    """
    if true in wrong:
        return "the wrong telling holds the true one"
    if how in LOSES_ITEMS:
        return None if len(true) > len(wrong) else "the wrong telling is as long though it lacks something"
    longer, shorter = max(len(true), len(wrong)), min(len(true), len(wrong))
    return "the tellings differ too much in length" if longer > most_length_ratio * shorter else None


def pair(
    id: str,
    *,
    video: str,
    request: str,
    true: Response,
    wrong: Response,
    made: Perturbed,
    of: str,
    spans_s: Sequence[Sequence[float]],
    model: str,
) -> Preference:
    """Return the row: asked of the whole video as it is, the true telling is preferred.

    Args:
        made: behind the wrong telling.
        of: what changed place: captions, clips or frames.
        spans_s: when each clip is shown.
        model: who told.
    """
    return Preference(
        id=id,
        prompt=(Message.of("user", 0, request),),
        media=(MediaRef(kind="video", uri=video),),
        responses=(true, wrong),
        difficulty=made.difficulty,
        tags={
            "perturbation": made.how,
            "perturbed": of,
            "factor": str(made.factor),
            "block": str(made.block),
            "kept_share": f"{made.kept_share:.4f}",
            "kendall": f"{made.kendall:.4f}",
        },
        provenance={
            "source": "temporal",
            "file": video,
            "model": model,
            "clips_s": " ".join(f"{start:.2f}-{end:.2f}" for start, end in spans_s),
            "order": " ".join(map(str, made.order)),
        },
    )
