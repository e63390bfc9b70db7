"""The recipe that the tests of this room change in one place at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.config.load import load
from mmalign.config.schema import RecipeConfig

RECIPE = """\
recipe: preference
model:
  path: ./my-model
  reference: ./my-reference
  lora: {rank: 32, alpha: 64, targets: all-linear}
  freeze: [vision]
data:
  train: rows.jsonl
  eval: held_out.jsonl
  root: .
  max_pixels: 401408
objective:
  - {name: dpo, beta: 0.1}
  - {name: sft, weight: 0.1}
train:
  output_dir: runs/mine
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 2
  learning_rate: 5.0e-6
  num_train_epochs: 1
  save_steps: 50
  logging_steps: 1
  shuffle: true
  seed: 42
"""


@pytest.fixture
def recipe_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe as the file `r.yaml` of the working directory, so that messages begin with `r.yaml:`."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(RECIPE, encoding="utf-8")
    return Path("r.yaml")


@pytest.fixture
def load_with(recipe_file: Path) -> Callable[..., RecipeConfig]:
    """Load the recipe with overrides."""
    return lambda *overrides, **options: load(recipe_file, overrides, **options)


@pytest.fixture
def load_changed(recipe_file: Path) -> Callable[..., RecipeConfig]:
    """Load the recipe after replacing one text of the file by another."""

    def load_file(old: str, new: str, **options) -> RecipeConfig:
        assert RECIPE.count(old) == 1, f"{old!r} stands {RECIPE.count(old)} times in the recipe"
        recipe_file.write_text(RECIPE.replace(old, new), encoding="utf-8")
        return load(recipe_file, **options)

    return load_file
