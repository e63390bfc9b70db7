"""`mmalign data convert`: a file of rows in one format becomes a file in another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mmalign.errors import DataError, RowError
from mmalign.formats.preference import Preference
from mmalign.recipes.terminal import safe
from mmalign.sources.detect import named, read
from mmalign.sources.quarantine import Quarantine
from mmalign.sources.write import target_for, write


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Args:
        rows: number of rows written.
        formats: rows read, by the format they were first published in.
        refused: rows refused, by reason.
        lost: rows that lost something that the format cannot say, by what it was.
        quarantine: where the refused rows are listed; there is no such file when none was refused.
    """

    rows: int
    formats: Counter[str]
    refused: Counter[str]
    lost: Counter[str]
    quarantine: Path


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str = "mmalign",
    format: str | None = None,
    max_refused_share: float = 0.05,
    overwrite: bool = False,
    allow_network: bool = False,
    change: Callable[[Preference], Iterable[Preference]] | None = None,
) -> Conversion:
    """Read rows in any known format and write them in another, a few in memory at a time.

    Refused rows are listed in `<out>.quarantine.jsonl`. `out` appears only when everything is written.

    Args:
        path: file, folder, or hub id with `allow_network`.
        out: .jsonl or .parquet for mmalign and trl; .json or .jsonl for sharegpt and swift.
        to: "mmalign", "trl", "sharegpt" or "swift".
        format: name of the format of `path`; None recognises it by its columns.
        max_refused_share: more refused rows than this share is an error, and nothing is written.
        overwrite: whether a file at `out` may be replaced.
        allow_network: whether `path` may be fetched from the hub.
        change: what a row becomes; it may raise RowError. None leaves rows as they are.

    Raises:
        DataError: nothing can be read or written, or too many rows are refused.
    """
    out = Path(out)
    target_for(to, out)
    if format:
        named(format)
    if out.exists() and Path(path).exists() and out.samefile(path):
        raise DataError(f"{out} cannot be read and written at once; give another place")
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists; give another place, or --overwrite")
    quarantine = Quarantine(
        out.with_name(out.name + ".quarantine.jsonl"), max_refused_share, limit_name="--max-refused-share"
    )
    quarantine.path.unlink(missing_ok=True)
    formats: Counter[str] = Counter()

    def rows() -> Iterator[Preference]:
        for preference in read(path, format=format, on_refused=quarantine.take, allow_network=allow_network):
            formats[preference.provenance["source"]] += 1
            try:
                made = (preference,) if change is None else tuple(change(preference))
            except RowError as error:
                _refuse(quarantine, preference, error)
                continue
            quarantine.kept()
            yield from made
        quarantine.check()

    def refuse(preference: Preference, error: RowError) -> None:
        quarantine.kept_rows -= 1
        _refuse(quarantine, preference, error)

    try:
        count, lost = write(out, rows(), to, refuse)
    finally:
        quarantine.close()
    return Conversion(count, formats, quarantine.counts, lost, quarantine.path)


def _refuse(quarantine: Quarantine, preference: Preference, error: RowError) -> None:
    quarantine.refuse(preference.provenance["file"], int(preference.provenance["row"]), error)


def report(conversion: Conversion, out: str | os.PathLike[str], console: Console | None = None) -> None:
    """Print what a conversion did, with everything that did not come along."""
    console = console or Console()
    came_from = ", ".join(f"{name} ({count:,})" for name, count in conversion.formats.most_common())
    written = f"[bold green]{conversion.rows:,}[/] rows written to [bold]{safe(str(out))}[/]"
    console.print(f"{written} from {safe(came_from)}", soft_wrap=True)
    for title, counts in (
        ("cannot be said in this format and is lost", conversion.lost),
        (f"refused, listed in {safe(str(conversion.quarantine))}", conversion.refused),
    ):
        if counts:
            table = Table("rows", title, box=None, header_style="yellow", pad_edge=False)
            for what, count in counts.most_common():
                table.add_row(f"{count:,}", what)
            console.print(table)
