"""Ids name rows, whatever the rows say."""

import json

from mmalign.sources.detect import read


def test_ids_name_rows(tmp_path):
    rows = [{"id": "a"}, {"id": "a"}, {}, {"id": 5}]
    rows = [row | {"prompt": "q", "chosen": "x", "rejected": "y"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = [row.id for row in read(tmp_path / "rows.jsonl", on_refused=print)]
    assert made == ["a", "a (rows.jsonl:2)", "rows.jsonl:3", "5"]


def test_an_id_that_looks_like_the_mend_of_another_takes_nobodys_place(tmp_path):
    rows = [{"id": name, "prompt": "q", "chosen": "x", "rejected": "y"} for name in ("a (rows.jsonl:3)", "a", "a")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = [row.id for row in read(tmp_path / "rows.jsonl", on_refused=print)]
    assert made == ["a (rows.jsonl:3)", "a", "a (rows.jsonl:3) (rows.jsonl:3)"]
