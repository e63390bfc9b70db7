"""Character spans of a response as weights of its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign.errors import RowError
from mmalign.formats.preference import Response


def token_weights(
    response: Response, rendered: str, offsets: Sequence[tuple[int, int]], *, field: str = "response"
) -> Tensor:
    """Return the weight of every token of a rendered response, float32 [R].

    A token that touches a span takes the span's weight (the mean over its marked characters when it touches several,
    and the later span where spans overlap); every other token, those of the template included, weighs 1. Tokens that
    are pieces of one character share that character's span.

    Args:
        response: its spans count characters of `response.text`.
        rendered: the response as the chat template puts it.
        offsets: characters of `rendered` that each token stands for.

    Raises:
        RowError: a span ends behind the text, or the template changed the text so that spans lose their place.
    """
    text = response.text
    marks: dict[int, float] = {}
    places = _places(response, rendered, field)
    for span in response.spans:
        if span.end > len(text):
            raise RowError(
                "span ends behind the response", field=f"{field}.spans", value=span.end, hint=f"it has {len(text)}"
            )
        for character in range(span.start, span.end):
            if places[character] is not None:
                marks[places[character]] = span.weight
    weights = torch.ones(len(offsets))
    for token, (start, end) in enumerate(offsets):
        touched = [marks[character] for character in range(start, end) if character in marks]
        if touched:
            weights[token] = sum(touched) / len(touched)
    return weights


def _places(response: Response, rendered: str, field: str) -> list[int | None]:
    """Return where in `rendered` each character of the response's text stands, None for blanks the template strips."""
    places: list[int | None] = []
    position = 0
    for message in response.messages:
        if message.role != "assistant":
            continue
        words = message.text
        start, lead, kept = rendered.find(words, position), 0, len(words)
        if start < 0:
            bare = words.strip()
            start, lead, kept = rendered.find(bare, position), len(words) - len(words.lstrip()), len(bare)
        if start < 0:
            raise RowError(
                "chat template changes the response, spans lose their place",
                field=f"{field}.spans",
                value=words,
                hint="leave the spans out, or use a template that keeps the answer as it is",
            )
        places += [None] * lead + list(range(start, start + kept)) + [None] * (len(words) - lead - kept)
        position = start + kept
    return places
