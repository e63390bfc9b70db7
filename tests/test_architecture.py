"""The house keeps its shape: one-way imports, small files, guessable names, and rooms that need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mmalign"
# A room imports from rooms above it and from itself.
ROOMS = (
    "errors",
    "formats",
    "sources",
    "modalities",
    "pairs",
    "config",
    "engine",
    "objectives",
    "rewards",
    "generate",
    "train",
    "curate",
    "evaluate",
    "report",
    "miniature",
    "recipes",
    "cli",
    "__main__",
)
WITHOUT_TORCH = ROOMS[: ROOMS.index("engine")]
MOST_LINES = 350
ATTICS = {"utils", "util", "helpers", "helper", "misc", "common", "shared", "stuff"}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of everything that `path` imports, also inside functions and under TYPE_CHECKING."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write mmalign. in full"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def test_there_is_a_house():
    assert len(FILES) > 30
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"} <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_one_way(path: Path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        allowed = set()
    else:
        allowed = set(ROOMS[: ROOMS.index(own) + 1])
    for line, name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "mmalign" or name == "mmalign.__version__":
            continue
        assert parts[1] in allowed, f"{path}:{line}: {own} must not import {name}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_is_small_and_named_by_what_it_holds(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{path} has {lines} lines; split it by what it does"
    assert path.stem not in ATTICS, f"{path}: nobody can guess what is in there"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_module_says_what_it_is(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), f"{path} has no docstring"


def imports_in_a_fresh_process(modules: list[str], forbidden: tuple[str, ...]) -> str:
    """Import `modules` with `forbidden` packages made unimportable; return what went wrong, or nothing."""
    program = (
        f"import sys\nfor name in {forbidden!r}: sys.modules[name] = None\nfor name in {modules!r}: __import__(name)\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent)
    return finished.stderr


def test_the_lower_rooms_work_without_torch():
    modules = [module_name(path) for path in FILES if path.relative_to(PACKAGE).parts[0].split(".")[0] in WITHOUT_TORCH]
    assert len(modules) > 10
    assert imports_in_a_fresh_process(modules, ("torch", "torchvision", "transformers")) == ""


def test_the_command_line_shows_its_help_without_torch():
    assert imports_in_a_fresh_process(["mmalign.cli"], ("torch", "torchvision", "transformers", "datasets")) == ""


def test_optional_packages_are_never_needed_to_import():
    modules = [module_name(path) for path in FILES if path.stem != "__main__"]
    assert imports_in_a_fresh_process(modules, ("trl", "bitsandbytes", "wandb", "tensorboard", "skimage")) == ""
