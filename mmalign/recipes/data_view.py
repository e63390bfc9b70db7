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
from mmalign.report.data_page import DataPage
from mmalign.report.media_shelf import MediaShelf
from mmalign.report.page import write
from mmalign.sources.detect import named, read
from mmalign.sources.places import rows_or_media
from mmalign.sources.quarantine import Refusal, recorded

MOST_ROWS = 10_000
MAX_MEDIA_MB = 64.0

_PAGE_ENDINGS = (".html", ".htm")

Row = Preference | MediaRef | Refusal


@dataclass(frozen=True)
class View:
    """What `view` wrote.

    Args:
        path: the page.
        rows: number of rows in it, the refused ones included.
        refused: number of those that are refused.
        pictures: number of pictures in it, each content once.
        left_out: number of media without a picture, because the budget was spent.
        more_rows: whether the file holds rows beyond the last one shown.
    """

    path: Path
    rows: int
    refused: int
    pictures: int
    left_out: int
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
    allow_network: bool = False,
    console: Console | None = None,
) -> View:
    """Write a page that shows rows, refused ones included, and return what is in it.

    Args:
        path: rows in any known format, a picture, a clip, a folder of either, or a hub id with `allow_network`.
        output: the page.
        root: directory below which media are; None takes the one of `path`.
        format: name of the format; None recognises it row by row.
        from_row: first row to show, counted from 1 over kept and refused rows.
        limit: most rows to show.
        quarantine: refused rows of a run (`quarantine.jsonl`), whose reasons are shown at the rows.
        max_media_mb: room for pictures in units of 10^6 bytes.
        allow_network: whether `path` may be fetched from the hub.
        console: where the progress is shown; None takes the error stream.

    Raises:
        DataError: nothing can be read or written, or there is no row to show.
    """
    if format:
        named(format)
    if quarantine is not None and not Path(quarantine).is_file():
        raise DataError(f"there is no quarantine file {str(quarantine)!r}; a run writes quarantine.jsonl")
    if Path(output).suffix.lower() not in _PAGE_ENDINGS:
        rule = f"a page ends with {' or '.join(_PAGE_ENDINGS)}, so that no data file is written over by mistake"
        raise DataError(f"output {str(output)!r} is not the name of a page; {rule}")
    place = rows_or_media(path, root)
    shelf = MediaShelf(limits_below(place.root), int(max_media_mb * 1e6))
    page = DataPage(shelf, recorded(quarantine) if quarantine is not None else ())
    rows = iter(place.media) if place.media else _rows(path, format, allow_network)
    more_rows = _collect(page, rows, from_row, limit, console or Console(stderr=True))
    if from_row == 1 and not more_rows:
        page.refuse_rest()
    if not len(page):
        raise DataError(f"{path} has no row {from_row} to begin with; leave out --from-row")
    options = {"root": root, "format": format, "quarantine": quarantine, "from-row": from_row, "limit": limit}
    again = _command(path, output, options | {"max-media-mb": f"{2 * max_media_mb:g}"})
    html = page.html(title=Path(path).name or str(path), path=str(path), more_rows=more_rows, again=again)
    try:
        written = write(Path(output), html)
    except OSError as error:
        raise DataError(f"cannot write {output}: {error.strerror or error}") from error
    return View(written, len(page), page.refused_rows, len(shelf.pictures), shelf.left_out, more_rows)


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


def _command(path: str | os.PathLike[str], output: str | os.PathLike[str], options: Mapping[str, Any]) -> str:
    """Return the command that writes a page, without the options that are not given or say what is so anyway."""
    usual = {"from-row": 1, "limit": MOST_ROWS}
    said = [(f"--{name}", str(value)) for name, value in options.items() if value not in (None, usual.get(name))]
    return shlex.join(["mmalign", "data", "view", str(path), "-o", str(output), *itertools.chain(*said)])


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count:,} {what}{'' if count == 1 else plural}"


def _rows(path: str | os.PathLike[str], format: str | None, allow_network: bool) -> Iterator[Row]:
    """Yield rows and refusals in the order in which they stand in the file."""
    refused: list[Refusal] = []
    for preference in read(path, format=format, on_refused=refused.append, allow_network=allow_network):
        yield from refused
        refused.clear()
        yield preference
    yield from refused


def _collect(page: DataPage, rows: Iterable[Row], from_row: int, limit: int, console: Console) -> bool:
    """Put rows into the page, show how far it is, and return whether there are more."""
    rows = itertools.islice(rows, from_row - 1, None)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading rows and their media", total=None)
        for row in itertools.islice(rows, limit):
            if isinstance(row, Preference):
                page.add(row)
            elif isinstance(row, Refusal):
                page.refuse(row)
            else:
                page.add_medium(row)
            progress.advance(task)
    return next(rows, None) is not None
