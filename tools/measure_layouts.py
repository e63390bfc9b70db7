"""Measure how well a model lays out posters, before and after preference training.

    python tools/measure_layouts.py --seeds 0 1 2

In a world of small posters whose good layout is known (`mmalign/miniature/layouts.py`) a tiny Qwen2.5-VL with position
tokens learns from an annotator in a hurry. Continued runs of equal length are compared on held-out posters: more of the
same; DPO on true layouts against worsened ones, with and without an SFT term; DPO on the model's own samples, best
against worst by a judge that sees no truth, which is AesthetiQ's way; SFT on the truth. One more question shows whether
models look: posters whose picture was exchanged for that of another, under the truths of before.

Everything of a seed lies in `<output-dir>/<seed>/`, `summary.json` with every figure. A run that was stopped goes on
where it was; finished parts are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Threads that wait by spinning slow down everything beside them; read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import add_position_tokens
import layout_runs
import numpy as np
import torch
from layout_runs import CONTINUED, FIRST
from measure_video_order import Ledger
from transformers.utils import logging as transformers_logging
from video_order_runs import Run

from mmalign.config.media import media_limits
from mmalign.errors import RowError
from mmalign.evaluate import bootstrap
from mmalign.evaluate import layout as metrics
from mmalign.formats import store
from mmalign.formats.preference import Preference
from mmalign.generate.hf import Sampling
from mmalign.miniature import layout_rows, layouts, models
from mmalign.miniature.layout_rows import Wall
from mmalign.recipes import asking, train
from mmalign.recipes.configuration import load_recipe

LEARNED_POSTERS, FRESH_POSTERS, HELD_OUT_POSTERS = 1600, 320, 300
CANDIDATES = 4
ASKED_ABOUT_EXCHANGED = ("sft", "judged_sft")
EXCHANGED = "exchanged"
_TOKENS = Sampling(max_new_tokens=20).max_new_tokens
GREEDY, SAMPLED = Sampling(max_new_tokens=_TOKENS), Sampling(max_new_tokens=_TOKENS, temperature=1.0)
FIGURES: Mapping[str, str] = {
    "read": "share of answers that are a layout of all elements",
    "overlap": "LayoutGAN++, x 100, of answers that can be read",
    "alignment": "LayoutGAN++, x 100, of answers that can be read",
    "occluded": "share of the subject that elements cover, in %, of answers that can be read",
    "mean_iou": "with the designer's layout, in %, 0 where nothing can be read",
    "exact": "share of answers that are the designer's layout, in %",
}


def measure(place: Path, *, seed: int, threads: int, runs: Sequence[Run] = CONTINUED) -> dict[str, Any]:
    """Do what is not finished yet and return what `summary.json` holds.

    Args:
        place: directory of this seed.
        seed: of the world, the weights and the orders of rows.
        threads: CPU threads of torch.
        runs: which continued runs are compared.
    """
    ledger = Ledger(place, _settings(seed, threads))
    torch.set_num_threads(threads)
    ledger.do("world", "Drawing posters and writing rows", lambda: _write_world(place, seed))
    ledger.do(
        "sft",
        f"Training {FIRST.title}",
        lambda: train_recipe(layout_runs.write(place, FIRST, seed=seed, threads=threads)),
    )
    ledger.do("judged rows", "Judging samples of it", lambda: _write_judged(place, seed))
    for run in runs:
        recipe = layout_runs.write(place, run, seed=seed, threads=threads)
        ledger.do(run.name, f"Training {run.name}: {run.title}", lambda recipe=recipe: train_recipe(recipe))
    held_out = layout_rows.draw_wall("held_out", HELD_OUT_POSTERS, place, seed=stream_seed(seed, 3))
    walls = {"held_out": held_out, EXCHANGED: layout_rows.with_pictures_exchanged(held_out)}
    for run in (FIRST, *runs):
        for name, wall in _asked(run, walls).items():
            answers = place / "answers" / f"{run.name}.{name}.json"
            about = f"Asking {run.name} about {len(wall.posters)} posters ({name})"
            ledger.do(answers.stem, about, lambda run=run, wall=wall, answers=answers: _ask(place, run, wall, answers))
    summary = {"seed": seed, **_judged(place, runs, walls), "settings": ledger.settings, "seconds": ledger.seconds}
    (place / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _asked(run: Run, walls: Mapping[str, Wall]) -> dict[str, Wall]:
    """Return the walls that a model is asked about."""
    return {name: wall for name, wall in walls.items() if name != EXCHANGED or run.name in ASKED_ABOUT_EXCHANGED}


def _settings(seed: int, threads: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "threads": threads,
        "posters": [LEARNED_POSTERS, FRESH_POSTERS, HELD_OUT_POSTERS],
        "steps": [layout_runs.SFT_STEPS, layout_runs.CONTINUED_STEPS],
    }


def stream_seed(seed: int, stream: int) -> int:
    """Return a seed for one of the independent streams of a run; streams of different runs differ too."""
    return seed * 1000 + stream


def _write_world(place: Path, seed: int) -> None:
    """Write the pictures, the rows of the recipes that need no model, and the model as it starts."""
    learned = layout_rows.draw_wall("learned", LEARNED_POSTERS, place, seed=stream_seed(seed, 1))
    fresh = _fresh(place, seed)
    rows = {
        "annotator": layout_rows.demonstrations(learned, biased=True, seed=stream_seed(seed, 4)),
        "annotator_fresh": layout_rows.demonstrations(fresh, biased=True, seed=stream_seed(seed, 5)),
        "truth_fresh": layout_rows.demonstrations(fresh, biased=False, seed=stream_seed(seed, 5)),
        "worsened": layout_rows.comparisons(fresh, seed=stream_seed(seed, 6)),
    }
    for name, made in rows.items():
        store.write_jsonl(place / "rows" / f"{name}.jsonl", made)
    bare = models.save("qwen2_5_vl", place / "bare", seed=seed, scale="shapes", words=layout_rows.words())
    shutil.rmtree(place / "start", ignore_errors=True)
    add_position_tokens.write(str(bare), place / "start", bins=layouts.GRID.bins, seed=seed)


def _fresh(place: Path, seed: int) -> Wall:
    return layout_rows.draw_wall("fresh", FRESH_POSTERS, place, seed=stream_seed(seed, 2))


def train_recipe(recipe: Path) -> None:
    """Run a recipe file as `mmalign train` does, in place of what a stopped run left."""
    config = load_recipe(recipe)
    shutil.rmtree(config.train.output_dir, ignore_errors=True)
    train.run(config)


def _write_judged(place: Path, seed: int) -> None:
    """Sample layouts of the first model and write the rows that the judge makes of them."""
    fresh = _fresh(place, seed)
    samples = [
        _answers(place, FIRST, layout_rows.prompts(fresh), SAMPLED, seed=stream_seed(seed, 100 * (k + 1)))
        for k in range(CANDIDATES)
    ]
    rows = layout_rows.judged(fresh, list(zip(*samples, strict=True)))
    store.write_jsonl(place / "rows" / "judged.jsonl", rows)


def _answers(
    place: Path, run: Run, rows: Iterable[Preference], sampling: Sampling, *, seed: int = 0
) -> tuple[str, ...]:
    recipe = load_recipe(place / f"{FIRST.name}.yaml")
    return asking.ask(run.model_dir(place), rows, media_limits(recipe.data, recipe.data.train), sampling, seed=seed)


def _ask(place: Path, run: Run, wall: Wall, path: Path) -> None:
    answers = _answers(place, run, layout_rows.prompts(wall), GREEDY)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(answers, indent=0))


def values(wall: Wall, answers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for each answer what `FIGURES` is made of: arrays [N], 0 where an answer cannot be read."""
    rows = [_values_of_one(wall, k, answer) for k, answer in enumerate(answers)]
    return dict(zip(FIGURES, np.array(rows, dtype=np.float64).reshape(-1, len(FIGURES)).T, strict=True))


def _values_of_one(wall: Wall, k: int, answer: str) -> tuple[float, ...]:
    task, poster = wall.tasks[k], wall.posters[k]
    truth = layouts.truth(poster, task)
    try:
        layout = task.layout(answer)
    except RowError:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    edges = metrics.boxes_of(layout)
    return (
        1.0,
        metrics.overlap(edges)["layout_gan_pp"],
        metrics.alignment(edges)["layout_gan_pp"],
        layout_rows.occlusion(poster, layout),
        metrics.mean_iou(layout, truth),
        layout.boxes == truth.boxes,
    )


_AMONG_READ = ("overlap", "alignment", "occluded")


def _judged(place: Path, runs: Sequence[Run], walls: Mapping[str, Wall]) -> dict[str, Any]:
    """Return every model's figures, and their paired change from the first model."""
    found: dict[str, Any] = {}
    for name, wall in walls.items():
        before, found[name] = None, {}
        for run in [run for run in (FIRST, *runs) if name in _asked(run, walls)]:
            answers = json.loads((place / "answers" / f"{run.name}.{name}.json").read_text())
            after = values(wall, answers)
            facts: dict[str, Any] = {"title": run.title, "levels": levels(after, _AMONG_READ)}
            if before is not None:
                facts["change"] = changes(before, after, _AMONG_READ)
            before = before if before is not None else after
            found[name][run.name] = facts
    return found


def levels(told: Mapping[str, np.ndarray], among_read: Sequence[str]) -> dict[str, Any]:
    """Return every figure with its 95% interval; those `among_read` are means over answers that can be read."""
    read = told["read"]
    return {
        name: asdict(bootstrap.ratio(array, read) if name in among_read else bootstrap.mean(array))
        for name, array in told.items()
        if name not in among_read or read.any()
    }


def changes(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], among_read: Sequence[str]
) -> dict[str, Any]:
    """Return the paired change of every figure with its 95% interval."""
    both_read = before["read"].any() and after["read"].any()
    return {
        name: asdict(
            bootstrap.paired_ratio((before[name], before["read"]), (after[name], after["read"]))
            if name in among_read
            else bootstrap.paired(before[name], after[name])
        )
        for name in after
        if name not in among_read or both_read
    }


def table(summary: Mapping[str, Any]) -> str:
    """Return a seed's figures as Markdown, all in %: with 95% intervals, and paired changes from the first model."""
    lines = ["| model | read | overlap | change | alignment | change | occluded | mean IoU | exact |", "|" + "---|" * 9]
    for facts in summary["held_out"].values():
        level, change = facts["levels"], facts.get("change", {})
        cells = [share(level, "read"), share(level, "overlap"), share(change, "overlap", "+")]
        cells += [share(level, "alignment", digits=1), share(change, "alignment", "+", digits=1)]
        cells += [share(level, figure) for figure in ("occluded", "mean_iou", "exact")]
        lines.append(f"| {facts['title']} | {' | '.join(cells)} |")
    for name, facts in summary[EXCHANGED].items():
        level = facts["levels"]
        cells = [share(level, "read"), share(level, "overlap"), "", share(level, "alignment", digits=1), ""]
        cells += [share(level, figure) for figure in ("occluded", "mean_iou", "exact")]
        lines.append(f"| {name}: another's picture, truths of before | {' | '.join(cells)} |")
    return "\n".join(lines)


def share(figures: Mapping[str, Mapping[str, float]], name: str, sign: str = "", digits: int = 0) -> str:
    """Return a figure in % with its interval, nothing where there is none."""
    if name not in figures:
        return ""
    mean, low, high = (format(100 * figures[name][part], f"{sign}.{digits}f") for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every seed and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/layouts"))
    names = [run.name for run in CONTINUED]
    parser.add_argument("--runs", nargs="+", choices=names, default=names, help="continued runs to compare")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; the model is too small for many")
    chosen = parser.parse_args(arguments)
    transformers_logging.disable_progress_bar()
    for seed in chosen.seeds:
        runs = [run for run in CONTINUED if run.name in chosen.runs]
        summary = measure(chosen.output_dir / str(seed), seed=seed, threads=chosen.threads, runs=runs)
        print(f"\nSeed {seed}, {sum(summary['seconds'].values()):.0f} s\n\n{table(summary)}\n", flush=True)


if __name__ == "__main__":
    main()
