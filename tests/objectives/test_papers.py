"""`docs/papers.md` has one row per preset and states its defaults as they are."""

from dataclasses import fields
from pathlib import Path

import pytest

from mmalign.objectives.presets import PRESETS

PAPERS = (Path(__file__).parents[2] / "docs" / "papers.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_row_with_its_options_and_defaults(name):
    rows = [line for line in PAPERS.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1
    for option in fields(PRESETS[name].options):
        assert f"{option.name} ({option.default})" in rows[0]
