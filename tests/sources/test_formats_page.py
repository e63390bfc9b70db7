"""docs/formats.md is what the example rows say, row by row."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from mmalign.sources.detect import SOURCES

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "write_formats_doc.py"


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("write_formats_doc", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_as_the_examples_are(program):
    assert program.PAGE.read_text(encoding="utf-8") == program.page(), "run python tools/write_formats_doc.py"


def test_the_rows_on_the_page_are_the_examples_to_the_letter(program):
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", program.page(), re.DOTALL)]
    assert shown == [row for source in SOURCES for row in source.examples.values()]
