"""Which module speaks for which kind of media: a literal table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mmalign.formats.media import MediaKind
from mmalign.modalities import image


class Modality(NamedTuple):
    """The five verbs of a modality.

    Args:
        check: header of a medium -> its size; refuses bad ones without decoding.
        load: reference -> decoded medium, ready for a processor.
        messages: reference -> content part of a chat template.
        render: reference -> something a person can look at, as a `data:` URI.
        perturb: decoded medium -> the same with some of its content hidden, seeded.
        playable: reference -> moving pictures as a `data:` URI; None where nothing moves.
    """

    check: Callable[..., tuple[int, ...]]
    load: Callable[..., Any]
    messages: Callable[..., dict[str, Any]]
    render: Callable[..., str]
    perturb: Callable[..., Any]
    playable: Callable[..., str] | None = None


MODALITIES: dict[MediaKind, Modality] = {
    "image": Modality(
        check=image.check, load=image.load, messages=image.messages, render=image.render, perturb=image.perturb
    ),
}
