"""Measure how much of a step is waiting for videos: preference training of a bench-size miniature on video files.

    python tools/measure_data_time.py ../shared/data/video --workers 0 2

Rows take the files in turn, and every row decodes its video anew: one epoch, so that nothing stays in memory. Printed
is `data_time_s / step_time_s` of `metrics.jsonl` without the first step, which waits for the workers to start.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mmalign.config.load import from_values
from mmalign.miniature import models
from mmalign.recipes import preference
from mmalign.train.metrics import read_metrics

ROWS_PER_STEP = 2


def main() -> None:
    """Run once for every number of workers and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of video files; those that cannot be read are refused")
    parser.add_argument("--family", default="qwen2_5_vl")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--max-pixels", type=int, default=224 * 224)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model = models.save(asked.family, Path(place) / "model", scale="bench")
        rows = write_rows(asked.folder, Path(place) / "rows", asked.steps)
        for workers in asked.workers:
            output_dir = Path(place) / f"workers-{workers}"
            preference.run(from_values(recipe(model, rows, output_dir, workers, asked)))
            lines = read_metrics(output_dir / "metrics.jsonl")[1:]
            waited = sum(line["data_time_s"] for line in lines)
            took = sum(line["step_time_s"] for line in lines)
            worst = max(line["data_time_s"] / line["step_time_s"] for line in lines)
            print(
                f"{workers} workers: {waited / len(lines):.3f} s of {took / len(lines):.2f} s a step wait for data, "
                f"{waited / took:.1%}; in the worst step {worst:.1%}",
                flush=True,
            )


def write_rows(folder: Path, place: Path, steps: int) -> Path:
    """Copy the videos to `place` and write a row for each turn of each; return the file of rows."""
    place.mkdir()
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    for name in names:
        shutil.copyfile(folder / name, place / name)
    # Twice as many as are read, in case some videos are refused.
    rows = [row(turn, names[turn % len(names)]) for turn in range(2 * ROWS_PER_STEP * steps)]
    path = place / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))
    return path


def row(turn: int, video: str) -> dict[str, Any]:
    """Return a row with a video and two answers that differ from turn to turn."""
    question = [{"type": "video"}, {"type": "text", "text": f"What happens, in {turn + 3} words?"}]
    return {
        "prompt": [{"role": "user", "content": question}],
        "videos": [video],
        "chosen": [{"role": "assistant", "content": f"Somebody does something, {turn} times."}],
        "rejected": [{"role": "assistant", "content": f"Nothing happens, {turn} times."}],
    }


def recipe(model: Path, rows: Path, output_dir: Path, workers: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Return the values of a recipe file."""
    return {
        "recipe": "preference",
        "model": {"path": str(model)},
        "data": {
            "train": str(rows),
            "num_workers": workers,
            "max_refused_share": 0.5,
            "video": {"frames": asked.frames, "max_pixels": asked.max_pixels},
        },
        "objective": [{"name": "dpo"}],
        "train": {
            "output_dir": str(output_dir),
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": ROWS_PER_STEP,
            "learning_rate": 1e-4,
            "max_steps": asked.steps,
            "save_steps": None,
            "threads": 1,
        },
    }


if __name__ == "__main__":
    main()
