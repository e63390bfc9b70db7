"""A file damaged anywhere is read as far as it can be, or refused with a message; never a traceback."""

import json
import random

import pytest
from formats.rows import EVERYTHING, pair, png

from mmalign.errors import DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.store import write_jsonl, write_parquet
from mmalign.sources.detect import SOURCES, read

EXAMPLES = [row for source in SOURCES for row in source.examples.values()]


def files(folder):
    """One file of each kind, small."""
    (folder / "rows.json").write_text(json.dumps(EXAMPLES, indent=1))
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, EXAMPLES)))
    write_jsonl(folder / "ours.jsonl", [pair(0), EVERYTHING])
    write_parquet(folder / "ours.parquet", [pair(0), pair(1, MediaRef(kind="image", content=png()))])
    return sorted(folder.iterdir())


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, swap, repeat or overwrite a stretch somewhere."""
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice([1, 2, 16, 300]))
    piece = rng.choice(
        [b"", bytes(rng.randrange(256) for _ in range(end - start)), content[start:end] * 3, b"null", b"[[{"]
    )
    return content[:start] + piece + content[end:] if rng.random() < 0.8 else content[:start]


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_never_ends_in_a_traceback(tmp_path, seed):
    rng, outcomes = random.Random(seed), {"whole": 0, "some refused": 0, "not readable": 0}
    for path in files(tmp_path):
        content = path.read_bytes()
        for _ in range(100):
            path.write_bytes(damaged(content, rng))
            refused = []
            try:
                list(read(path, on_refused=refused.append))
                outcomes["some refused" if refused else "whole"] += 1
            except DataError:
                outcomes["not readable"] += 1
    assert all(outcomes.values()), outcomes


def test_a_file_of_something_else_never_ends_in_a_traceback(tmp_path):
    for content in (
        png(),
        b"\x00" * 5000,
        b"\x1f\x8b",
        b"{" * 5000,
        b"[" * 5000,
        b'"' * 99,
        b"\xff" * 99,
        b"%PDF-1.7\n",
    ):
        for name in ("x.json", "x.jsonl", "x.parquet", "x.json.gz", "x.jsonl.gz"):
            (tmp_path / name).write_bytes(content)
            refused = []
            try:
                kept = list(read(tmp_path / name, on_refused=refused.append))
            except DataError:
                continue
            assert kept == [] and refused
