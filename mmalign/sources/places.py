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
from mmalign.sources.read import ENDINGS, is_seen

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
        files = () if _holds_rows(place) else [file for file in sorted(place.rglob("*")) if is_seen(file, place)]
    else:
        files = (place,)
    media = tuple(_reference(file, at_root) for file in files if kind_of(file) is not None and file.is_file())
    return Place(path=str(path), root=at_root, media=media)


def refuse_options_for(place: Place, what: str, **given: bool) -> None:
    """Refuse options that would be ignored because the media that stand alone here are not what they ask about.

    Args:
        place: media that stand alone.
        what: what the options are about and the place does not hold: "rows", or the plural of a kind of media.
        given: whether each option says something else than its default, by its name.

    Raises:
        DataError: one of them does.
    """
    names = [f"--{name.replace('_', '-')}" for name, is_given in given.items() if is_given]
    if names:
        asks = "asks" if len(names) == 1 else "ask"
        way_out = (
            "leave it out, or name a file of them" if len(names) == 1 else "leave them out, or name a file of them"
        )
        raise DataError(f"{place.path} holds media and no {what}; {', '.join(names)} {asks} for {what}: {way_out}")


def kind_of(path: str | os.PathLike[str]) -> MediaKind | None:
    """Return the kind of media that files with this ending are, None for every other ending."""
    return _KIND_OF.get(Path(path).suffix.lower())


def _holds_rows(folder: Path) -> bool:
    if tables.is_datasets_folder(folder):
        return True
    files = (file for file in folder.rglob("*") if file.name.removesuffix(".gz").endswith(ENDINGS))
    return any(file.is_file() and is_seen(file, folder) for file in files)


def _reference(file: Path, root: Path) -> MediaRef:
    try:
        inside = Path(os.path.abspath(file)).relative_to(os.path.abspath(root))
    except ValueError:
        raise DataError(f"{file} is not below the data root {root}; give a --root above it") from None
    return MediaRef(kind=kind_of(file), uri=inside.as_posix())
