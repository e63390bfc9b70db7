"""From a template and its values to one HTML file that needs nothing else.

Everything that is not made by our own code is escaped by the templates, and the page forbids the browser to fetch
anything, or to run what is not the page's own script (content security policy), so that a row with hostile text is
shown and does nothing.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mmalign.formats.store import completed
from mmalign.report.svg import figure

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Return the page that `templates/<template>` makes of `values`; a value that is missing is an error."""
    return _environment().get_template(template).render(**values)


def source(name: str) -> str:
    """Return the text of a file beside the templates, such as a script."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def write(path: Path, html: str) -> Path:
    """Write a page whole or not at all, and return its path.

    Half a surrogate pair, which file names of strangers may hold, is written as its escape: JSON reads it back.

    Raises:
        DataError: the disk is full or the place cannot be written.
    """
    with completed(path) as unfinished:
        unfinished.write_text(html, encoding="utf-8", errors="backslashreplace")
    return path


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    return environment
