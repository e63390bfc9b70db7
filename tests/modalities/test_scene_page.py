"""What docs/scene.md says in Python is so."""

import json
import re
from pathlib import Path

from PIL import Image

from mmalign.sources.detect import parse
from mmalign.sources.read import RawRow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scene.md"


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert Image.open(tmp_path / "top.png").size == (336, 336)
    assert len(names["row"].responses) == 2


def test_the_row_on_the_page_is_read():
    (block,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    made = parse(RawRow("rows.jsonl", 1, json.loads(block)), None)
    assert made.provenance["source"] == "scene" and "Oak nightstand" in made.chosen.text
