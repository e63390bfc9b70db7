"""What docs/layout.md says in Python is so."""

import re
from pathlib import Path

from PIL import Image

PAGE = Path(__file__).resolve().parents[2] / "docs" / "layout.md"


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert Image.open(tmp_path / "sale.png").size == (458, 572)
    assert len(names["row"].responses) == 2
