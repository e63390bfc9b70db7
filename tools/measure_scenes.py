"""Measure how well a model places furniture, before and after preference training.

    python tools/measure_scenes.py --seeds 0 1 2

In a world of small bedrooms whose good arrangement is known (`mmalign/miniature/scenes.py`) a tiny Qwen2.5-VL, shown no
picture, learns from an annotator in a hurry to write the piece that is asked for as JSON. Continued runs of equal
length are compared on held-out rooms: more of the same; DPO on true placements against worsened ones, with and without
an SFT term; DPO on the model's own samples, best against worst by ReSpace's reward; SFT on the truth.

Everything of a seed lies in `<output-dir>/<seed>/`, `summary.json` with every figure. A run that was stopped goes on
where it was; finished parts are not done again. The runs and their settings are those of `layout_runs.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Threads that wait by spinning slow down everything beside them; read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import layout_runs
import numpy as np
import torch
from layout_runs import CONTINUED, FIRST
from measure_layouts import changes, levels, share, stream_seed, train_recipe
from measure_video_order import Ledger
from transformers.utils import logging as transformers_logging
from video_order_runs import Run

from mmalign.config.media import media_limits
from mmalign.errors import RowError
from mmalign.evaluate import scene as metrics
from mmalign.formats import store
from mmalign.formats.preference import Preference
from mmalign.generate.hf import Sampling
from mmalign.miniature import models, scene_rows
from mmalign.miniature.scene_rows import House
from mmalign.recipes import asking
from mmalign.recipes.configuration import load_recipe

LEARNED_ROOMS, FRESH_ROOMS, HELD_OUT_ROOMS = 1600, 320, 300
CANDIDATES = 4
_TOKENS = 90
GREEDY, SAMPLED = Sampling(max_new_tokens=_TOKENS), Sampling(max_new_tokens=_TOKENS, temperature=1.0)
FIGURES: Mapping[str, str] = {
    "read": "share of answers that are an object",
    "delta_oob": "volume put outside the room, m³, of answers that can be read",
    "delta_mbl": "volume shared with other objects, m³, of answers that can be read",
    "valid": "share of answers that leave a valid scene (PBL of at most 0.1 m³), 0 where nothing can be read",
    "free": "share of answers that add no loss at all, 0 where nothing can be read",
    "exact": "share of answers that are the designer's piece",
}
_AMONG_READ = ("delta_oob", "delta_mbl")


def measure(place: Path, *, seed: int, threads: int, runs: Sequence[Run] = CONTINUED) -> dict[str, Any]:
    """Do what is not finished yet and return what `summary.json` holds.

    Args:
        place: directory of this seed.
        seed: of the world, the weights and the orders of rows.
        threads: CPU threads of torch.
        runs: which continued runs are compared.
    """
    settings = {
        "seed": seed,
        "threads": threads,
        "rooms": [LEARNED_ROOMS, FRESH_ROOMS, HELD_OUT_ROOMS],
        "steps": [layout_runs.SFT_STEPS, layout_runs.CONTINUED_STEPS],
    }
    ledger = Ledger(place, settings)
    torch.set_num_threads(threads)
    ledger.do("world", "Drawing rooms and writing rows", lambda: _write_world(place, seed))
    first = layout_runs.write(place, FIRST, seed=seed, threads=threads)
    ledger.do("sft", f"Training {FIRST.title}", lambda: train_recipe(first))
    ledger.do("judged rows", "Rewarding samples of it", lambda: _write_judged(place, seed))
    for run in runs:
        recipe = layout_runs.write(place, run, seed=seed, threads=threads)
        ledger.do(run.name, f"Training {run.name}: {run.title}", lambda recipe=recipe: train_recipe(recipe))
    house = scene_rows.draw_house("held_out", HELD_OUT_ROOMS, seed=stream_seed(seed, 3))
    for run in (FIRST, *runs):
        about = f"Asking {run.name} about {len(house.rooms)} rooms"
        ledger.do(f"{run.name}.held_out", about, lambda run=run: _ask(place, run, house))
    summary = {"seed": seed, "held_out": _judged(place, runs, house), "settings": settings, "seconds": ledger.seconds}
    (place / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _write_world(place: Path, seed: int) -> None:
    """Write the rows of the recipes that need no model, and the model as it starts."""
    learned = scene_rows.draw_house("learned", LEARNED_ROOMS, seed=stream_seed(seed, 1))
    fresh = _fresh(seed)
    rows = {
        "annotator": scene_rows.demonstrations(learned, biased=True, seed=stream_seed(seed, 4)),
        "annotator_fresh": scene_rows.demonstrations(fresh, biased=True, seed=stream_seed(seed, 5)),
        "truth_fresh": scene_rows.demonstrations(fresh, biased=False, seed=stream_seed(seed, 5)),
        "worsened": scene_rows.comparisons(fresh, seed=stream_seed(seed, 6)),
    }
    for name, made in rows.items():
        store.write_jsonl(place / "rows" / f"{name}.jsonl", made)
    models.save("qwen2_5_vl", place / "start", seed=seed, scale="shapes", words=scene_rows.words())


def _fresh(seed: int) -> House:
    return scene_rows.draw_house("fresh", FRESH_ROOMS, seed=stream_seed(seed, 2))


def _write_judged(place: Path, seed: int) -> None:
    """Sample placements of the first model and write the rows that the reward makes of them."""
    fresh = _fresh(seed)
    samples = [
        _answers(place, FIRST, scene_rows.prompts(fresh), SAMPLED, seed=stream_seed(seed, 100 * (k + 1)))
        for k in range(CANDIDATES)
    ]
    rows = scene_rows.rewarded(fresh, list(zip(*samples, strict=True)))
    store.write_jsonl(place / "rows" / "judged.jsonl", rows)


def _answers(
    place: Path, run: Run, rows: Iterable[Preference], sampling: Sampling, *, seed: int = 0
) -> tuple[str, ...]:
    recipe = load_recipe(place / f"{FIRST.name}.yaml")
    return asking.ask(run.model_dir(place), rows, media_limits(recipe.data, recipe.data.train), sampling, seed=seed)


def _ask(place: Path, run: Run, house: House) -> None:
    answers = _answers(place, run, scene_rows.prompts(house), GREEDY)
    path = _answers_path(place, run)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(answers, indent=0))


def _answers_path(place: Path, run: Run) -> Path:
    return place / "answers" / f"{run.name}.held_out.json"


def values(house: House, answers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return for each answer what `FIGURES` is made of: arrays [N], 0 where an answer cannot be read."""
    truths = house.truths()
    found = metrics.additions(house.tasks, answers, truths)
    told = {name: np.nan_to_num(values) for name, values in found.items()}
    is_read = told["read"] > 0
    return {
        "read": told["read"],
        "delta_oob": told["delta_oob"] / 1e3,
        "delta_mbl": told["delta_mbl"] / 1e3,
        "valid": told["valid"],
        "free": (is_read & (told["delta_pbl"] < 1e-2)).astype(np.float64),
        "exact": np.array(
            [_is(task, answer, truth) for task, answer, truth in zip(house.tasks, answers, truths, strict=True)]
        ),
    }


def _is(task: Any, answer: str, truth: Any) -> float:
    try:
        return float(task.item(answer) == truth)
    except RowError:
        return 0.0


def _judged(place: Path, runs: Sequence[Run], house: House) -> dict[str, Any]:
    """Return every model's figures, and their paired change from the first model."""
    before, found = None, {}
    for run in (FIRST, *runs):
        after = values(house, json.loads(_answers_path(place, run).read_text()))
        facts: dict[str, Any] = {"title": run.title, "levels": levels(after, _AMONG_READ)}
        if before is not None:
            facts["change"] = changes(before, after, _AMONG_READ)
        before = before if before is not None else after
        found[run.name] = facts
    return found


def table(summary: Mapping[str, Any]) -> str:
    """Return a seed's figures as Markdown: shares in %, volumes in 10⁻² m³, with 95% intervals and paired changes."""
    lines = ["| model | read | outside | change | shared | change | valid | free | exact |", "|" + "---|" * 9]
    for facts in summary["held_out"].values():
        level, change = facts["levels"], facts.get("change", {})
        cells = [share(level, "read")]
        for figure in _AMONG_READ:
            cells += [share(level, figure, digits=2), share(change, figure, "+", digits=2)]
        cells += [share(level, figure) for figure in ("valid", "free", "exact")]
        lines.append(f"| {facts['title']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every seed and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/scenes"))
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
