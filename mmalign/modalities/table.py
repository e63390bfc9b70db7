"""Which module speaks for which kind of media: a literal table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaKind
from mmalign.modalities import image, video
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.video import VideoLimits


class Modality(NamedTuple):
    """The five verbs of a modality, and the limits they obey.

    Args:
        limits: a frozen dataclass of what a medium may be; every field has a default.
        check: reference, limits -> shape of what `load` returns, (width, height) or a frozen dataclass; refuses bad
            media, decoding as little as that takes.
        load: reference, limits -> decoded medium, ready for a processor.
        messages: reference -> content part of a chat template.
        render: reference, limits, most pixels -> a picture for people to look at, as a `data:` URI.
        perturb: decoded medium, how, seed, strength -> the same with some of its content hidden.
        playable: reference, limits -> moving pictures as a `data:` URI, None for a medium too long for them; the verb
            itself is None where nothing moves.
    """

    limits: type[MediaLimits]
    check: Callable[..., Any]
    load: Callable[..., Any]
    messages: Callable[..., dict[str, Any]]
    render: Callable[..., str]
    perturb: Callable[..., Any]
    playable: Callable[..., str | None] | None = None


MODALITIES: dict[MediaKind, Modality] = {
    "image": Modality(ImageLimits, image.check, image.load, image.messages, image.render, image.perturb),
    "video": Modality(
        VideoLimits, video.check, video.load, video.messages, video.render, video.perturb, video.playable
    ),
}


class LimitsByKind(dict[MediaKind, MediaLimits]):
    """Limits of every kind of media; asking for those of a kind that no module reads is a reason to refuse the row."""

    def __missing__(self, kind: MediaKind) -> MediaLimits:
        hint = f"there are {', '.join(self)}; docs/modalities.md adds one"
        raise RowError("no modality reads this kind of media", field="media", value=kind, hint=hint)


def limits_below(root: Any, *, own: Mapping[MediaKind, Mapping[str, Any]] | None = None, **common: Any) -> LimitsByKind:
    """Return the limits of every kind of media, so that a caller need not know the kinds.

    Args:
        root: the data root.
        own: values for one kind alone: `{"video": {"sampling": Sampling(frames=8)}}`.
        common: values for every kind that has a limit of this name.

    Raises:
        ConfigError: no kind has a limit of this name; `own` names a kind that is not there.
    """
    if own is not None and not own.keys() <= MODALITIES.keys():
        unknown = min(own.keys() - MODALITIES.keys())
        raise ConfigError(f"there is no kind of media {unknown!r}; there are {', '.join(MODALITIES)}")
    fields = {kind: {field.name for field in dataclasses.fields(row.limits)} for kind, row in MODALITIES.items()}
    known = set().union(*fields.values())
    if not common.keys() <= known:
        unknown = min(common.keys() - known)
        raise ConfigError(f"no kind of media has a limit {unknown!r}; there are {', '.join(sorted(known))}")
    made = LimitsByKind()
    for kind, row in MODALITIES.items():
        shared = {name: value for name, value in common.items() if name in fields[kind]}
        made[kind] = row.limits(root=root, **{**shared, **(own or {}).get(kind, {})})
    return made
