"""Recipe files written by programs: the same YAML a user writes, keys in the order in which one reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def write_recipe(path: Path, about: str, values: Mapping[str, Any]) -> Path:
    """Write a recipe under a header that says what it is and how to run it again elsewhere; return its path.

    Args:
        about: one line.
        values: sections of the recipe, in the order in which they are written.
    """
    again = f"# Again, elsewhere: mmalign train {path} train.output_dir=runs/mine"
    text = yaml.safe_dump(dict(values), sort_keys=False, width=110)
    path.write_text(f"# {about}\n{again}\n{text}", encoding="utf-8")
    return path
