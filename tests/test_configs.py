"""Every file under configs/ is read by the code that users read it with, and says what it is."""

from pathlib import Path

import pytest

from mmalign.config.load import dump, load_any, loads
from mmalign.recipes.configuration import needs_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ALL = sorted(path for path in CONFIGS.rglob("*") if path.suffix in (".yaml", ".yml"))
ACCELERATE = [path for path in ALL if path.parent.name == "accelerate"]
RECIPES = [path for path in ALL if path not in ACCELERATE]


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def header_of(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("#"))])


def test_there_are_configs_of_every_kind():
    kinds = {"preference", "sft", "generate", "temporal", "miniature", "accelerate"}
    assert {path.parent.name for path in ALL} >= kinds
    assert len(RECIPES) >= 6


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_loads_and_reads_back_equal(path: Path):
    recipe = load_any(path, check_objectives=needs_of)
    assert loads(dump(recipe)) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_says_where_it_comes_from_and_how_it_is_run(path: Path):
    header = header_of(path)
    for field in ("source", "command", "hardware", "expected", "measured"):
        assert f"\n# {field}: " in header, f"{name(path)} says nothing about {field}"
    assert name(path) in header, f"{name(path)}: the command names another file"


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parent.name == "miniature"], ids=name)
def test_the_rows_of_a_miniature_recipe_are_there(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(CONFIGS.parent)
    data = load_any(path).data
    if hasattr(data, "videos"):
        assert "draw_reel(" in header_of(path), f"{name(path)} does not say how its videos are drawn"
        return
    files = [data.prompts] if hasattr(data, "prompts") else [data.train, data.eval]
    assert all(Path(file).is_file() for file in files)


@pytest.mark.parametrize("path", ACCELERATE, ids=name)
def test_accelerate_reads_its_files_and_leaves_precision_to_the_recipe(path: Path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.mixed_precision == "no"
    assert config.num_processes == 8
    assert name(path) in header_of(path)


def test_accelerate_files_cover_what_is_promised():
    assert [path.stem for path in ACCELERATE] == ["ddp", "deepspeed_zero2", "deepspeed_zero3", "fsdp2"]
