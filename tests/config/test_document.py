"""YAML becomes plain values that know their lines."""

import math

import pytest

from mmalign.config.document import parse_document, parse_value, read_document
from mmalign.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("5E6", 5e6),
        ("-1.5e+3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("5.0e-6", 5e-6),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("7", 7),
        ("-0", 0),
        ("010", 10),
        ("true", True),
        ("False", False),
        ("off", "off"),
        ("no", "no"),
        ("y", "y"),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-5'", "1e-5"),
        ("1:30", "1:30"),
        ("2026-11-20", "2026-11-20"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("[a, 1]", ["a", 1]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_a_plain_scalar_is_what_it_looks_like(text, value):
    read = parse_value(text, "override")
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read_as_such():
    assert math.isnan(parse_value(".nan", "override"))


def test_every_value_knows_its_line():
    document = parse_document("a: 1\nb:\n  - x: 2\n    y: 3\n  - 4\n", "r.yaml")
    assert document.values == {"a": 1, "b": [{"x": 2, "y": 3}, 4]}
    assert document.place(("a",)) == "r.yaml:1"
    assert document.place(("b",)) == "r.yaml:2"
    assert document.place(("b", 0, "y")) == "r.yaml:4"
    assert document.place(("b", 1)) == "r.yaml:5"


def test_a_missing_value_is_placed_at_what_should_hold_it():
    document = parse_document("a: 1\nb:\n  c: 2\n", "r.yaml")
    assert document.place(("b", "missing", "deeper")) == "r.yaml:2"


def test_anchors_repeat_a_value():
    document = parse_document("a: &x {k: 1}\nb: *x\n", "r.yaml")
    assert document.values == {"a": {"k": 1}, "b": {"k": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"r\.yaml:3: a: stands twice \(first at r\.yaml:1\); keep one"),
        ("m:\n  k: 1\n  k: 1\n", r"r\.yaml:3: m\.k: stands twice"),
        ("a: [1, 2\nb: 3\n", r"r\.yaml:2: is not valid YAML"),
        ("a: b: c\n", r"r\.yaml:1: is not valid YAML: mapping values are not allowed here"),
        ("a:\n\t- 1\n", r"r\.yaml:2: is not valid YAML"),
        ("a: *nowhere\n", r"r\.yaml:1: is not valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", r"r\.yaml:2: is not valid YAML: but found another document"),
        ("- a\n- b\n", r"r\.yaml:1: a recipe is a mapping of keys"),
        ("just words\n", r"r\.yaml:1: a recipe is a mapping of keys"),
        ("1: a\n", r"r\.yaml:1: a key must be text, got '1'"),
        ("? [a, b]\n: 1\n", r"r\.yaml:1: a key must be text"),
        ("a: !!python/object:os.system x\n", r"r\.yaml:1: 'x' with tag .* is no plain value; remove the tag"),
        ("a: !!int x\n", r"r\.yaml:1: 'x' with tag"),
        ("a: &a\n  b: *a\n", r"an alias repeats its own value"),
        ("", r"r\.yaml: is empty; a recipe needs"),
        ("# only a remark\n", r"r\.yaml: is empty"),
        ("a: \x07\n", r"r\.yaml: is not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_line(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_document(text, "r.yaml")


def test_aliases_cannot_grow_without_end():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="too many; write the value out"):
        parse_document("\n".join(lines), "r.yaml")


def test_nesting_cannot_exhaust_the_stack():
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_document("a: " + "[" * 5000 + "]" * 5000, "r.yaml")


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.yaml: no such file"):
        read_document(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("a: café".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 6\)"):
        read_document(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_document(tmp_path / "r.yaml").values == {"a": 1}
