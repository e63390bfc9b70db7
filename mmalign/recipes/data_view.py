"""`mmalign data view`: a file of rows, or media alone, as one page to look at in a browser."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from mmalign.errors import DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.modalities.table import limits_below
from mmalign.recipes.terminal import safe
from mmalign.report.data_page import LARGEST_PAGE_ROWS, MOST_ROWS, DataPage
from mmalign.report.media_shelf import MediaShelf
from mmalign.report.page import write
from mmalign.sources.detect import every_row, named
from mmalign.sources.places import Place, refuse_options_for, rows_or_media
from mmalign.sources.quarantine import RefusedRow, recorded
from mmalign.sources.tables import is_datasets_folder

MAX_MEDIA_MB = 64.0

_PAGE_ENDINGS = (".html", ".htm")


Row = Preference | MediaRef | RefusedRow


@dataclass(frozen=True)
class View:
    """What `view` wrote.

    Args:
        path: the page.
        rows: number of rows in it, the refused ones included.
        refused: number of those that are refused.
        pictures: number of pictures in it, each content once.
        left_out: number of media without a picture, because the budget was spent.
        playable_left_out: number of media with a picture that cannot be played for the same reason.
        more_rows: whether the file holds rows beyond the last one shown.
    """

    path: Path
    rows: int
    refused: int
    pictures: int
    left_out: int
    playable_left_out: int
    more_rows: bool


def view(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    format: str | None = None,
    from_row: int = 1,
    limit: int = MOST_ROWS,
    quarantine: str | os.PathLike[str] | None = None,
    max_media_mb: float = MAX_MEDIA_MB,
    overwrite: bool = False,
    allow_network: bool = False,
    console: Console | None = None,
) -> View:
    """Write a page that shows rows, refused ones included, and return what is in it.

    Args:
        path: rows in any known format, a picture, a clip, a folder of either, or a hub id with `allow_network`.
        output: the page.
        root: directory below which media are; None takes the one of `path`.
        format: name of the format; None recognises it row by row.
        from_row: first row to show, by its number in the file (the line in JSONL); in a folder of files, and of media,
            by its place among all of them. The page calls rows by this number.
        limit: most rows to show, at most `LARGEST_PAGE_ROWS`.
        quarantine: refused rows of a run (`quarantine.jsonl`), whose reasons are shown at the rows.
        max_media_mb: room for pictures in units of 10^6 bytes.
        overwrite: whether a page at `output` may be replaced.
        allow_network: whether `path` may be fetched from the hub.
        console: where the progress is shown; None takes the error stream.

    Raises:
        DataError: nothing can be read or written, an option would be ignored, or there is no row to show.
    """
    if format:
        named(format)
    _require_possible(Path(output), quarantine, limit, overwrite)
    place = rows_or_media(path, root)
    if place.media:
        refuse_options_for(place, "rows", format=format is not None, quarantine=quarantine is not None)
    shelf = MediaShelf(limits_below(place.root), int(max_media_mb * 1e6))
    page = DataPage(shelf, recorded(quarantine) if quarantine is not None else (), _base(Path(path)))
    rows = place.media or every_row(path, format=format, allow_network=allow_network)
    more_rows = _collect(page, _numbered(place, rows), from_row, limit, console or Console(stderr=True))
    if from_row == 1 and not more_rows:
        page.name_rest()
    if not len(page):
        raise DataError(f"{path} has no row {from_row} to begin with; leave out --from-row")
    options = {"root": root, "format": format, "quarantine": quarantine, "from-row": from_row, "limit": limit}
    again = _again(path, output, options, max_media_mb, allow_network)
    html = page.html(title=Path(path).name or str(path), path=str(path), more_rows=more_rows, again=again)
    written = write(Path(output), html)
    counts = len(page), page.refused_rows, len(shelf.pictures), shelf.left_out, shelf.playable_left_out
    return View(written, *counts, more_rows)


def report(done: View, console: Console | None = None) -> None:
    """Print what was written, and everything that did not come along."""
    console = console or Console()
    size_mb = done.path.stat().st_size / 1e6
    counts = [_counted(done.rows, "row"), _counted(done.refused, "refused", ""), _counted(done.pictures, "picture")]
    console.print(f"[bold green]{safe(str(done.path))}[/]: {', '.join(counts)}, {size_mb:.1f} MB", soft_wrap=True)
    if done.more_rows:
        console.print("the file holds more rows: see --limit and --from-row", style="yellow")
    if done.left_out:
        console.print(f"{done.left_out:,} media have no picture in it: see --max-media-mb", style="yellow")
    if done.playable_left_out:
        console.print(f"{done.playable_left_out:,} media cannot be played in it: see --max-media-mb", style="yellow")


def _require_possible(output: Path, quarantine: str | os.PathLike[str] | None, limit: int, overwrite: bool) -> None:
    """Check what needs no reading of rows."""
    if quarantine is not None and not Path(quarantine).is_file():
        raise DataError(f"there is no quarantine file {str(quarantine)!r}; a run writes quarantine.jsonl")
    if limit > LARGEST_PAGE_ROWS:
        way_out = f"take {LARGEST_PAGE_ROWS:,} at most, and others with --from-row"
        raise DataError(f"limit {limit:,} is more rows than a browser can list; {way_out}")
    if output.suffix.lower() not in _PAGE_ENDINGS:
        rule = f"a page ends with {' or '.join(_PAGE_ENDINGS)}, so that no data file is written over by mistake"
        raise DataError(f"output {str(output)!r} is not the name of a page; {rule}")
    if output.exists() and not overwrite:
        raise DataError(f"{output} exists; give another place, or --overwrite")


def _base(path: Path) -> Path:
    """Return the directory in which the files are whose names rows have."""
    return path if path.is_dir() and not is_datasets_folder(path) else path.parent


def _again(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: Mapping[str, Any],
    max_media_mb: float,
    allow_network: bool,
) -> str:
    """Return the command that writes the same page with more room for pictures, without options that change nothing."""
    usual = {"from-row": 1, "limit": MOST_ROWS}
    more = options | {"max-media-mb": f"{max(2 * max_media_mb, MAX_MEDIA_MB):g}"}
    said = [[f"--{name}", str(value)] for name, value in more.items() if value not in (None, usual.get(name))]
    flags = ["--overwrite", *(["--allow-network"] if allow_network else [])]
    return shlex.join(["mmalign", "data", "view", str(path), "-o", str(output), *itertools.chain(*said), *flags])


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"


def _numbered(place: Place, rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
    """Yield rows with the numbers that commands call them by, as `from_row` explains them."""
    by_place = bool(place.media) or Path(place.path).is_dir()
    for count, row in enumerate(rows, start=1):
        if by_place:
            yield count, row
        else:
            yield row.refusal.row if isinstance(row, RefusedRow) else int(row.provenance["row"]), row


def _collect(page: DataPage, rows: Iterable[tuple[int, Row]], from_row: int, limit: int, console: Console) -> bool:
    """Put rows into the page, show how far it is, and return whether there are more."""
    rows = itertools.dropwhile(lambda numbered: numbered[0] < from_row, rows)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading rows and their media", total=None)
        for number, row in itertools.islice(rows, limit):
            if isinstance(row, Preference):
                page.add(row, number)
            elif isinstance(row, RefusedRow):
                page.refuse(row.refusal, row.columns, number)
            else:
                page.add_medium(row, number)
            progress.advance(task)
    return next(rows, None) is not None
