"""Rows for tests of the data page, and the page that they make."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.modalities.table import limits_below
from mmalign.report.data_page import DataPage
from mmalign.report.media_shelf import MediaShelf
from mmalign.report.page import write
from mmalign.sources.quarantine import Refusal

HOSTILE = "</script><!--<script>window.hacked = 1</script><img src=http://example.com/x onerror='window.hacked = 2'>"


def row(
    name: str,
    prompt: str = "What is on the stove?",
    answers: Iterable[str | Response] = ("A red kettle.", "A red kettle and two pans."),
    *,
    media: tuple[MediaRef, ...] = (),
    number: int = 1,
    **facts,
) -> Preference:
    """A row as it comes from a file `rows.jsonl`."""
    made = tuple(Response.of(answer) if isinstance(answer, str) else answer for answer in answers)
    return Preference(
        id=name,
        prompt=(Message.of("user", *range(len(media)), prompt),),
        media=media,
        responses=made,
        provenance={"source": "mmalign", "file": "rows.jsonl", "row": str(number)},
        **facts,
    )


def image(name: str) -> MediaRef:
    """A reference to a picture below the data root."""
    return MediaRef(kind="image", uri=name)


def shelf(root: Path, budget_bytes: int = 10**8) -> MediaShelf:
    """An empty shelf."""
    return MediaShelf(limits_below(root), budget_bytes)


def page_of(
    root: Path,
    rows: Iterable[Preference | MediaRef | Refusal],
    *,
    refused_before: Iterable[Refusal] = (),
    budget_bytes: int = 10**8,
    **how,
) -> Path:
    """Write the page of rows whose media are below `root`, and return its path."""
    page = DataPage(shelf(root, budget_bytes), refused_before)
    for one in rows:
        add = {Preference: page.add, MediaRef: page.add_medium, Refusal: page.refuse}[type(one)]
        add(one)
    page.name_rest()
    return write(root / "page.html", page.html(title="rows.jsonl", path="data/rows.jsonl", **how))


def many(count: int) -> Iterable[Preference]:
    """Rows of which every seventh has a tag, and whose answers get longer and longer."""
    for k in itertools.islice(itertools.count(), count):
        tags = {"day": "seventh"} if k % 7 == 0 else {}
        yield row(f"row-{k}", f"Question {k}?", (f"Yes {k}.", f"No {k}."), number=k + 1, tags=tags)


KITCHEN = (
    row("kettle", "What boils?", ("A red kettle.", "A red kettle and two pans."), margin=1.5, tags={"room": "kitchen"}),
    row(
        "bed",
        "What is soft?",
        (Response.of("The bed is.", critique="Terse, but right."), "The floor."),
        margin=9.0,
        number=2,
    ),
    row(
        "list",
        "Name a colour",
        ("Red", "Green", "Blue as the sea in summer"),
        margin=0.5,
        tags={"room": "hall"},
        number=3,
    ),
    row("demo", "Name a fruit", ("A pear, which is a user of water.",), number=4),
    Refusal("rows.jsonl", 7, "prompt", "", "prompt is empty"),
)
