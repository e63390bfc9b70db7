"""Rows with pictures, recipes on miniature models, and whole runs, for tests of training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import fsdp_on_cpu
import pytest
import torch
import yaml
from pictures import encoded, noise
from processes import finish_ranks
from safetensors.torch import load_file

from mmalign.config.load import from_values
from mmalign.config.schema import RecipeConfig
from mmalign.recipes import train, training
from mmalign.train.metrics import MetricsFile

REPOSITORY = Path(__file__).resolve().parents[1]
TIMES = ("step_time_s", "data_time_s")
_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]


def write_rows(
    directory: Path,
    count: int,
    *,
    text_only: Sequence[int] = (),
    videos: Mapping[int, str] | None = None,
    name: str = "rows.jsonl",
) -> Path:
    """Write `count` preference rows of different lengths, each with a picture of its own but those in `text_only`.

    Args:
        videos: row -> path of a video that takes the place of its picture.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in range(count):
        question = {"type": "text", "text": f"What is {' '.join(_WORDS[: row % 5])} ?"}
        columns: dict[str, Any] = {"prompt": [{"role": "user", "content": [question]}], "images": []}
        if row in (videos or {}):
            columns["prompt"][0]["content"].insert(0, {"type": "video"})
            columns["videos"] = [videos[row]]
        elif row not in text_only:
            columns["prompt"][0]["content"].insert(0, {"type": "image"})
            columns["images"] = [f"{row}.png"]
            (directory / f"{row}.png").write_bytes(encoded(noise(28 + 28 * (row % 2), 56, seed=row)))
        columns["chosen"] = [{"role": "assistant", "content": f"It is {_WORDS[row % 11]}" + " indeed" * (row % 3)}]
        columns["rejected"] = [{"role": "assistant", "content": f"No {_WORDS[-row % 11]}" + " at all" * (row % 4)}]
        lines.append(json.dumps(columns))
    path = directory / name
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe(model: Path | str, rows: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """Return the values of a recipe file; `changes` are dotted keys with `__` for the dot (`train__seed=3`)."""
    values: dict[str, Any] = {
        "recipe": "preference",
        "model": {"path": str(model)},
        "data": {"train": str(rows)},
        "objective": [{"name": "dpo", "beta": 0.1}, {"name": "sft", "weight": 0.1}],
        "train": {
            "output_dir": str(output_dir),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "max_steps": 3,
            "seed": 7,
        },
    }
    for key, value in changes.items():
        place = values
        *sections, last = key.split("__")
        for section in sections:
            place = place.setdefault(section, {})
        if value is None and last in place:
            del place[last]
        else:
            place[last] = value
    return values


def configured(values: dict[str, Any]) -> RecipeConfig:
    return from_values(values)


def run(values: dict[str, Any], *, resume: bool = False):
    """Run a recipe in this process."""
    return train.run(configured(values), resume=resume)


def command(values: dict[str, Any], *arguments: str, ranks: int = 1) -> list[str]:
    """Return the command line that runs a recipe in processes of its own, one a rank."""
    config = Path(values["train"]["output_dir"]).with_suffix(".yaml")
    config.write_text(yaml.safe_dump(values))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    return [sys.executable, *launch, "-m", "mmalign", "train", str(config), *arguments]


def environment() -> dict[str, str]:
    """Return the environment of a process of its own: one thread, our package."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def by_launcher(values: dict[str, Any], *, ranks: int) -> None:
    """Run a recipe as a person does on several devices, and check that it ends well."""
    line = command(values, ranks=ranks)
    ended = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def on_two_ranks(values: dict[str, Any], *, resume: bool = False, sharded: bool = False) -> None:
    """Run a recipe on two ranks, which hold all of the weights each or share them, and check that it ends well."""
    log = Path(values["train"]["output_dir"]).parent
    finish_ranks(_run_as_rank, (values, resume, sharded), log)


def _run_as_rank(values: dict[str, Any], resume: bool, sharded: bool) -> None:
    if sharded:
        fsdp_on_cpu.pretend()
    run(values, resume=resume)


class CutInFours:
    """Recipes on the same rows, in the order of the file, whose steps are four of them however they are cut.

    Args:
        model: where a run starts.
        directory: where the rows are written.
        count, text_only: as `write_rows` has them.
        changes: to every recipe.
    """

    CUTS: ClassVar = {
        "one batch": {"train__per_device_train_batch_size": 4, "train__gradient_accumulation_steps": 1},
        "four batches": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 4},
        "two ranks": {"train__per_device_train_batch_size": 1, "train__gradient_accumulation_steps": 2},
    }

    def __init__(self, model: Path, directory: Path, count: int, text_only: Sequence[int], **changes: Any) -> None:
        self._model, self._rows = model, write_rows(directory / "rows", count, text_only=text_only)
        held_out = write_rows(directory / "held_out", 3, text_only=(0,))
        steps = {"train__shuffle": False, "train__max_steps": 4, "train__save_steps": 2, "data__eval": str(held_out)}
        self._changes = {**steps, **changes}

    def __call__(self, output_dir: Path, cut: str, **changes: Any) -> dict[str, Any]:
        """Return the values of the recipe that cuts its steps so."""
        return recipe(self._model, self._rows, output_dir, **{**self.CUTS[cut], **self._changes, **changes})


def wait_for_line(output_dir: Path, count: int) -> None:
    """Wait until `metrics.jsonl` has `count` lines."""
    path = output_dir / "metrics.jsonl"
    for _ in range(24_000):  # two minutes: a new process imports torch, maybe on a busy machine
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.005)
    raise AssertionError("the run wrote no lines")


def run_until(step: int, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run die without a word after `step`, as a process that is killed."""
    write = MetricsFile.write

    def write_or_die(self, line):
        write(self, line)
        if line["step"] == step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "write", write_or_die)
        with pytest.raises(KeyboardInterrupt):
            run(values)


def lose_a_medium(monkeypatch: pytest.MonkeyPatch, lose: Callable[[], None]) -> None:
    """Do something to the media after the rows were prepared and before the first step reads them."""
    prepare_rows = training.prepare_rows

    def prepare_and_lose(*args):
        prepared = prepare_rows(*args)
        lose()
        return prepared

    monkeypatch.setattr(training, "prepare_rows", prepare_and_lose)


def metrics(output_dir: Path | str) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl` without the times."""
    lines = [json.loads(line) for line in (Path(output_dir) / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def final_weights(output_dir: Path | str) -> dict[str, torch.Tensor]:
    """Return the weights in `final/`."""
    (path,) = (Path(output_dir) / "final").glob("*.safetensors")
    return load_file(path)


def assert_close(one: list[dict[str, Any]], other: list[dict[str, Any]], tolerance: float) -> None:
    """Check two curves, number by number."""
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert abs(value - right[name]) <= tolerance * (1 + abs(value)), (left["step"], name, value, right[name])


def assert_same_run(one: Path, other: Path) -> None:
    """Check curves and weights bit by bit."""
    assert metrics(one) == metrics(other)
    assert_same_weights(final_weights(one), final_weights(other))


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Check weights bit by bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
