"""Measure whether a model tells what happens in a video in its order, before and after preference training.

    python tools/measure_video_order.py --seeds 0 1 2

In a world of moving squares whose truth is known (`mmalign/miniature/events.py`) a tiny Qwen2.5-VL learns from an
annotator who often gives the ending away first. Continued runs of equal length are compared on held-out clips: more
of the same captions; DPO on pairs that differ in the order alone, with mistakes that are hard to notice, easy, both, or
one after the other; DPO with an SFT term; SFT on the truth. Some models are asked again about clips whose events are
shown in another order, and about blank ones: a model that does not look at the video cannot tell the difference.

Everything of a seed lies in `<output-dir>/<seed>/`: rows, frames, recipe files, run directories, answers, and
`summary.json` with every figure. A run that was stopped goes on where it was; finished parts are not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Threads that wait by spinning slow down everything beside them; read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import video_order_runs
from transformers.utils import logging as transformers_logging
from video_order_runs import CONTINUED, FIRST, Run

from mmalign.config.media import media_limits
from mmalign.errors import ConfigError
from mmalign.evaluate import order
from mmalign.evaluate.bootstrap import Interval
from mmalign.formats import store
from mmalign.generate.hf import Sampling
from mmalign.miniature import event_rows, events, models
from mmalign.miniature.event_rows import Reel
from mmalign.recipes import asking, train
from mmalign.recipes.configuration import load_recipe

LEARNED_CLIPS, FRESH_CLIPS, HELD_OUT_CLIPS = 1600, 320, 300
ASKED_ABOUT_OTHER_FILMS = ("sft", "dpo_mixed_sft")
GREEDY = Sampling(max_new_tokens=24)
SHUFFLED, BLANK = "shuffled", "blank"


class Ledger:
    """What is finished in a directory, and how many seconds each part took.

    Raises:
        ConfigError: the directory was begun with other settings.
    """

    def __init__(self, place: Path, settings: Mapping[str, Any]) -> None:
        self._path = place / "finished.json"
        place.mkdir(parents=True, exist_ok=True)
        found = json.loads(self._path.read_text()) if self._path.exists() else {"settings": settings, "seconds": {}}
        if found["settings"] != settings:
            raise ConfigError(
                f"{place} was begun with other settings ({_differences(found['settings'], settings)}); delete it or "
                "name another --output-dir"
            )
        self.settings, self.seconds = found["settings"], found["seconds"]

    def do(self, part: str, about: str, work: Callable[[], object]) -> None:
        """Do a part unless it is finished, and say which."""
        if part in self.seconds:
            print(f"{about}: finished before, {self.seconds[part]:.0f} s", flush=True)
            return
        print(f"{about} ...", flush=True)
        began = time.perf_counter()
        work()
        self.seconds[part] = round(time.perf_counter() - began, 1)
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"settings": self.settings, "seconds": self.seconds}, indent=1))
        os.replace(unfinished, self._path)


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    return ", ".join(f"{key} {found.get(key)}, now {wanted.get(key)}" for key in keys)


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
    ledger.do("world", "Drawing clips and writing rows", lambda: _write_world(place, seed))
    held_out = event_rows.draw_reel("held_out", HELD_OUT_CLIPS, place, seed=_seed(seed, 3))

    for run in (FIRST, *runs):
        for recipe in video_order_runs.write_recipes(place, run, seed=seed, threads=threads):
            ledger.do(recipe.stem, f"Training {recipe.stem}: {run.title}", lambda recipe=recipe: _train(recipe))
    films = _films(held_out, place, seed)
    for run in (FIRST, *runs):
        for film in films if run.name in ASKED_ABOUT_OTHER_FILMS else ("held_out",):
            name, reel = f"{run.name}.{film}", films[film][0]
            about = f"Asking {run.name} about {len(reel.refs)} clips ({film})"
            ledger.do(name, about, lambda run=run, name=name, reel=reel: _ask(place, run, name, reel))

    summary = {"seed": seed, **_judged(place, runs, films), "settings": ledger.settings, "seconds": ledger.seconds}
    (place / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return summary


def _settings(seed: int, threads: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "threads": threads,
        "clips": [LEARNED_CLIPS, FRESH_CLIPS, HELD_OUT_CLIPS],
        "steps": [video_order_runs.SFT_STEPS, video_order_runs.CONTINUED_STEPS],
    }


def _seed(seed: int, stream: int) -> int:
    """Return a seed for one of the independent streams of a run; streams of different runs differ too."""
    return seed * 1000 + stream


def _write_world(place: Path, seed: int) -> None:
    """Write the frames, the rows of every recipe, and the model as it starts."""
    learned = event_rows.draw_reel("learned", LEARNED_CLIPS, place, seed=_seed(seed, 1))
    fresh = event_rows.draw_reel("fresh", FRESH_CLIPS, place, seed=_seed(seed, 2))
    rows = {
        "annotator": event_rows.demonstrations(learned, biased=True, seed=_seed(seed, 4)),
        "annotator_fresh": event_rows.demonstrations(fresh, biased=True, seed=_seed(seed, 5)),
        "truth_fresh": event_rows.demonstrations(fresh, biased=False, seed=_seed(seed, 5)),
        "fine": event_rows.comparisons(fresh, "fine", seed=_seed(seed, 6)),
        "coarse": event_rows.comparisons(fresh, "coarse", seed=_seed(seed, 7)),
        "mixed": event_rows.comparisons(fresh, "mixed", seed=_seed(seed, 8)),
    }
    (place / "rows").mkdir(exist_ok=True)
    for name, made in rows.items():
        store.write_jsonl(place / "rows" / f"{name}.jsonl", made)
    # Time has the fast rotary frequencies. The base that suits the corners of one picture makes them all alike.
    models.save("qwen2_5_vl", place / "start", seed=seed, scale="shapes", words=events.WORDS, rope_theta=1e4)


def _train(recipe: Path) -> None:
    """Run a recipe file as `mmalign train` does, in place of what a stopped run left."""
    config = load_recipe(recipe)
    shutil.rmtree(config.train.output_dir, ignore_errors=True)
    train.run(config)


def _films(held_out: Reel, place: Path, seed: int) -> dict[str, tuple[Reel, tuple[events.Events, ...]]]:
    """Return what models are asked about, and what each clip shows; blank clips show nothing and keep the truths."""
    shuffled, shown = event_rows.with_shuffled_events(held_out, place, seed=_seed(seed, 9))
    return {
        "held_out": (held_out, held_out.truths),
        SHUFFLED: (shuffled, shown),
        BLANK: (event_rows.with_blank_frames(held_out, place), held_out.truths),
    }


def _ask(place: Path, run: Run, name: str, reel: Reel) -> None:
    """Ask a model what happens in every clip and write its answers to `<place>/answers/<name>.json`."""
    recipe = load_recipe(place / f"{run.stage_names()[-1]}.yaml")
    limits = media_limits(recipe.data, recipe.data.train)
    answers = asking.ask(run.model_dir(place), event_rows.prompts(reel), limits, GREEDY)
    (place / "answers").mkdir(exist_ok=True)
    (place / "answers" / f"{name}.json").write_text(json.dumps(answers, indent=0))


def _judged(place: Path, runs: Sequence[Run], films: Mapping[str, tuple[Reel, Any]]) -> dict[str, Any]:
    """Return every model's figures, their paired change from the first model, and those of the other films."""

    def values(run: Run, film: str, truths: Sequence[events.Events]) -> order.Values:
        answers = json.loads((place / "answers" / f"{run.name}.{film}.json").read_text())
        told = [events.parse_caption(answer) for answer in answers]
        return order.score([one.events for one in told], truths, well_formed=[one.well_formed for one in told])

    held_out, (shuffled, shown) = films["held_out"][0], films[SHUFFLED]
    before = values(FIRST, "held_out", held_out.truths)
    figures: dict[str, Any] = {"models": {}, "other_films": {}}
    for run in (FIRST, *runs):
        after = values(run, "held_out", held_out.truths)
        change = {} if run is FIRST else order.compare(before, after)
        figures["models"][run.name] = {"title": run.title, **_plain(order.levels(after), change)}
        if run.name in ASKED_ABOUT_OTHER_FILMS:
            blank = values(run, BLANK, held_out.truths)
            figures["other_films"][run.name] = {
                "shuffled, judged by the order of before": _plain(order.levels(values(run, SHUFFLED, shuffled.truths))),
                "shuffled, judged by what is shown": _plain(order.levels(values(run, SHUFFLED, shown))),
                "blank, judged by what was there before": _plain(order.levels(blank)),
            }
    return figures


def _plain(levels: Mapping[str, Interval], change: Mapping[str, Interval] | None = None) -> dict[str, Any]:
    made = {"levels": {name: asdict(interval) for name, interval in levels.items()}}
    if change:
        made["change"] = {name: asdict(interval) for name, interval in change.items()}
    return made


def table(summary: Mapping[str, Any]) -> str:
    """Return a seed's figures as Markdown: shares in % with 95% intervals; changes are paired, from the first model."""
    lines = ["| model | exact | change | order | change | events | pairs |", "|---|---|---|---|---|---|---|"]
    for facts in summary["models"].values():
        level, change = facts["levels"], facts.get("change", {})
        cells = [_share(level, "exact"), _share(change, "exact", "+"), _share(level, "order")]
        cells += [_share(change, "order", "+"), _share(level, "events"), _share(level, "pairs")]
        lines.append(f"| {facts['title']} | {' | '.join(cells)} |")
    for name, films in summary["other_films"].items():
        for film, facts in films.items():
            level = facts["levels"]
            cells = [_share(level, "exact"), "", _share(level, "order"), "", _share(level, "events")]
            lines.append(f"| {name}: {film} | {' | '.join(cells)} | {_share(level, 'pairs')} |")
    return "\n".join(lines)


def _share(figures: Mapping[str, Mapping[str, float]], name: str, sign: str = "") -> str:
    if name not in figures:
        return ""
    mean, low, high = (format(100 * figures[name][part], f"{sign}.0f") for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every seed and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/video_order"))
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
