"""The rows of the format `layout`, their boxes told as position tokens: for models that were given these tokens.

Rows that say `"form": "tokens"` are recognised; `data.format: layout_tokens` reads all others so. Which tokens a model
needs, and how it gets them, stands in docs/layout.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.formats.preference import Preference
from mmalign.sources import layout

EXAMPLES = {
    "our JSON": {**layout.EXAMPLES["our JSON: a demonstration"], "form": "tokens", "bins": 64},
}
NEEDS = layout.NEEDS


def matches(values: Mapping[str, Any]) -> bool:
    """Tell whether the row is a layout that asks for position tokens."""
    return values.get("form") == "tokens" and layout.matches(values)


def parse(values: Mapping[str, Any]) -> Preference:
    """Return the preference of a row.

    Raises:
        RowError: as `layout.parse`.
    """
    return layout.parse(values, form="tokens")
