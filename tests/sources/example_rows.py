"""The example rows of every format, and what one of them becomes."""

from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference
from mmalign.sources.detect import SOURCES, parse
from mmalign.sources.read import RawRow

KITCHEN = MediaRef(kind="image", uri="kitchen.jpg")
QUESTION = "What is on the stove?"
GOOD, BAD = "A red kettle.", "A red kettle and two pans."
EXAMPLES = {(source.name, title): row for source in SOURCES for title, row in source.examples.items()}


def preference(row, format=None) -> Preference:
    """What a row becomes as the seventh of a file."""
    return parse(RawRow("rows.jsonl", 7, row), format)
