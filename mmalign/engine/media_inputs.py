"""The media of a row on their way into a processor: how large they arrive there, and what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import transformers
from PIL.Image import Image

from mmalign.engine.arriving import Arriving, Medium, Size, field_of
from mmalign.engine.clip_inputs import Clips
from mmalign.engine.fingerprint import of_settings
from mmalign.engine.picture_inputs import Pictures
from mmalign.engine.views import Change
from mmalign.formats.media import MediaKind
from mmalign.formats.preference import Preference
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.video import ClipShape


@dataclass(frozen=True, kw_only=True)
class MediaShapes:
    """What headers say of a row's media, each kind in the order of the prompt."""

    pictures: Sequence[Size] = ()
    clips: Sequence[ClipShape] = ()


@dataclass(frozen=True, kw_only=True)
class LoadedMedia:
    """Decoded media, each kind in the order of the prompt.

    Args:
        pictures: as the processor gets them.
        frames: of every clip, uint8 [F, H, W, 3].
        arriving: their shapes.
        key: the name under which features of them may be kept; None without media.
    """

    pictures: Sequence[Image] = ()
    frames: Sequence[np.ndarray] = ()
    arriving: Arriving = field(default_factory=Arriving)
    key: str | None = None


class MediaInputs:
    """Reads the media of rows for one processor.

    Args:
        processor: of the model.
        limits: of every kind of media.
    """

    def __init__(self, processor: Any, limits: Mapping[MediaKind, MediaLimits]) -> None:
        self.pictures = Pictures(processor.image_processor, limits["image"])
        video_processor = getattr(processor, "video_processor", None)
        self.clips = None if video_processor is None else Clips(video_processor, limits["video"])
        self._limits = limits
        parts = [part.to_dict() for part in (processor.image_processor, video_processor) if part is not None]
        self._settings = of_settings({"transformers": transformers.__version__, "processor": parts})

    @property
    def smallest_pixels(self) -> int:
        """Area below which no medium is shrunk."""
        kinds = [self.pictures] + ([self.clips] if self.clips is not None else [])
        return min(kind.smallest_pixels for kind in kinds)

    def shapes(self, preference: Preference) -> MediaShapes:
        """Return what the headers of a row's media say.

        Raises:
            RowError: a medium is missing, out of bounds, or is not what its kind says.
        """
        media = in_order(preference)
        return MediaShapes(
            pictures=[self.pictures.size(medium) for medium in media["image"]],
            clips=[self.clips.shape(medium) for medium in media["video"]],
        )

    def arriving(self, shapes: MediaShapes, shrunk_to: int | None) -> Arriving:
        """Return how media of these shapes reach the processor in a row whose media are shrunk to this area."""
        return Arriving(
            pictures=self.pictures.arriving(shapes.pictures, shrunk_to),
            bounds=self.pictures.bounds(shrunk_to),
            clips=[self.clips.arriving(shape, shrunk_to) for shape in shapes.clips],
        )

    def largest_pixels(self, shapes: MediaShapes) -> int:
        """Return the area of the largest picture or frame as the model sees it, 0 without media."""
        frames = [clip.width * clip.height for clip in self.arriving(shapes, None).clips]
        return max([*self.pictures.seen_pixels(shapes.pictures), *frames], default=0)

    def load(self, preference: Preference, shrunk_to: int | None, change: Change | None = None) -> LoadedMedia:
        """Decode the media of a row.

        Args:
            change: what is done to them then; their shapes stay.

        Raises:
            RowError: one of them cannot be read, decoded or changed.
        """
        media = in_order(preference)
        pictures, picture_names = self.pictures.load(media["image"], shrunk_to, change)
        clips = [self.clips.load(medium, shrunk_to, change, place) for place, medium in enumerate(media["video"])]
        arriving = Arriving(
            pictures=[picture.size for picture in pictures],
            bounds=self.pictures.bounds(shrunk_to),
            clips=[arriving for _, arriving, _ in clips],
        )
        names = {"media": picture_names, "clips": [name for _, _, name in clips], "order": _kinds(preference)}
        how = {"processor": self._settings, **self._bounds_of_pictures(shrunk_to)}
        how |= {"frames": [[clip.metadata(), clip.bounds] for clip in arriving.clips]} if clips else {}
        how |= {} if change is None else {"change": change.key}
        return LoadedMedia(
            pictures=pictures,
            frames=[frames for frames, _, _ in clips],
            arriving=arriving,
            key=of_settings({**names, **how}),
        )

    def _bounds_of_pictures(self, shrunk_to: int | None) -> dict[str, Any]:
        bounds = {"min_pixels": self._limits["image"].min_pixels, "max_pixels": self.pictures.max_pixels(shrunk_to)}
        return {**bounds, **self.pictures.arguments(shrunk_to)}


def in_order(preference: Preference) -> dict[MediaKind, list[Medium]]:
    """Return the media of each kind in the order in which the prompt names them."""
    ordered: dict[MediaKind, list[Medium]] = {"image": [], "video": []}
    for index in _indices(preference):
        ref = preference.media[index]
        ordered[ref.kind].append(Medium(field_of(preference, index), ref))
    return ordered


def _kinds(preference: Preference) -> list[MediaKind]:
    """Return the kinds of the media in the order of the prompt, which is that of features where frames are pictures."""
    return [preference.media[index].kind for index in _indices(preference)]


def _indices(preference: Preference) -> list[int]:
    return [index for message in preference.prompt for index in message.media_indices]
