"""What a path holds: rows, or media that stand alone (a photograph, a clip, a folder of them).

`mmalign data show` and `mmalign data view` take either, so that a person can point them at anything. What a medium is
is told here by its file ending alone; whether it can be read is the business of its modality.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from mmalign.errors import DataError
from mmalign.formats.media import MediaKind, MediaRef
from mmalign.sources import tables
from mmalign.sources.read import ENDINGS

MEDIA_ENDINGS: dict[MediaKind, tuple[str, ...]] = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"),
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp", ".gif"),
}
_KIND_OF = {ending: kind for kind, endings in MEDIA_ENDINGS.items() for ending in endings}


@dataclass(frozen=True, kw_only=True)
class Place:
    """A path and what it holds.

    Args:
        path: as given: a file, a folder, or a hub id.
        root: directory below which the media are, those of rows too.
        media: media that stand alone, in the order of their paths; empty when the place holds rows, which
            `mmalign.sources.read.read_raw` and `mmalign.sources.detect.read` read.
    """

    path: str
    root: Path
    media: tuple[MediaRef, ...] = ()


def rows_or_media(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Place:
    """Return what stands at `path`, without opening a file.

    A folder that holds a data file anywhere holds rows; media beside them are theirs.

    Args:
        path: a file, a folder, or a hub id (rows).
        root: directory below which media are; None takes the folder, or that of the file.

    Raises:
        DataError: the media are not below `root`.
    """
    place = Path(path)
    at_root = Path(root) if root is not None else place if place.is_dir() else place.parent
    if place.is_dir():
        files = () if _holds_rows(place) else sorted(place.rglob("*"))
    else:
        files = (place,) if place.is_file() else ()
    media = tuple(_reference(file, at_root) for file in files if kind_of(file) is not None and _is_seen(file, place))
    return Place(path=str(path), root=at_root, media=media)


def kind_of(path: str | os.PathLike[str]) -> MediaKind | None:
    """Return the kind of media that files with this ending are, None for every other ending."""
    return _KIND_OF.get(Path(path).suffix.lower())


def _holds_rows(folder: Path) -> bool:
    if tables.is_datasets_folder(folder):
        return True
    return any(_is_seen(file, folder) and file.name.removesuffix(".gz").endswith(ENDINGS) for file in folder.rglob("*"))


def _is_seen(file: Path, place: Path) -> bool:
    """Tell whether a file is meant to be seen: caches and the hidden files of file managers are not."""
    return file == place or (file.is_file() and not file.name.startswith((".", "_")))


def _reference(file: Path, root: Path) -> MediaRef:
    try:
        inside = Path(os.path.abspath(file)).relative_to(os.path.abspath(root))
    except ValueError:
        raise DataError(f"{file} is not below the data root {root}; give a --root above it") from None
    return MediaRef(kind=kind_of(file), uri=inside.as_posix())
