"""Watch a tiny vision-language model stop hallucinating: minutes on two CPU cores, nothing downloaded.

The story, in a world whose truth is known (`miniature/shapes.py`). An annotator often reports a blue cross where
something red or yellow is. A model fine-tuned on these captions (SFT) reports it too. More of the same captions do not
cure it. Preference pairs from the model's own mistakes do: the true caption before what the model itself said (DPO with
an SFT term).

Two controls say what this does and does not show. The same pairs without the SFT term lower hallucination as well, and
pay with recall. SFT on the truth is as good or better: where true captions exist, imitating them is the simplest cure.

Every training run goes through a YAML file as a user's does; the files stay beside the results.

    mmalign quickstart --output-dir runs/quickstart --seed 0

Expected on two idle CPU cores: under four minutes; hallucinating captions from about one half to about one tenth
(docs/log.md has five seeds).
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from mmalign.errors import ConfigError
from mmalign.formats import store
from mmalign.miniature import models, photographs, shape_rows, shapes
from mmalign.miniature.shape_rows import Album
from mmalign.recipes import quickstart_recipes, quickstart_story, train
from mmalign.recipes.configuration import load_recipe
from mmalign.recipes.quickstart_answers import Asked, ask, judge
from mmalign.recipes.quickstart_story import MODELS, Findings
from mmalign.recipes.results import RunResult
from mmalign.report.quickstart_report import write_quickstart_report

MARKER = "written_by_mmalign_quickstart"
SFT_PICTURES, FRESH_PICTURES, HELD_OUT_PICTURES = 6000, 600, 300
QUESTION_SHARE = 0.2


@dataclass
class Stages:
    """Prints what is being done and measures how long it takes."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, about: str) -> Iterator[None]:
        """Announce a stage and record its wall time under `name`."""
        self.console.print(f"[bold cyan]{len(self.seconds) + 1}.[/] {about}")
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 1)


def run(output_dir: Path = Path("runs/quickstart"), *, seed: int = 0, threads: int = 1) -> dict[str, Any]:
    """Tell the story once and return what `summary.json` holds.

    Args:
        output_dir: replaced when an earlier quickstart wrote it.
        seed: of the world, the weights, the orders and the samples.
        threads: CPU threads of torch; the model is too small to gain from many.

    Raises:
        ConfigError: `output_dir` holds something else.
    """
    place = _fresh(Path(output_dir))
    torch.set_num_threads(threads)
    transformers_logging.disable_progress_bar()
    stages = Stages(Console())

    # 1. A world whose truth is known, and the rows of an annotator with a bias.
    with stages.stage("world", "Drawing a world of coloured shapes, with captions by an annotator who sees phantoms"):
        fresh, held_out = _write_world(place, seed)
        models.save("qwen2_5_vl", place / "start", seed=seed, scale="shapes", words=shapes.WORDS)

    # 2. A model learns from the annotator.
    with stages.stage("sft", "Fine-tuning a tiny Qwen2.5-VL on these captions (SFT)"):
        runs = {"sft": _train(quickstart_recipes.first_sft(place, seed=seed, threads=threads))}

    # 3. What it says about fresh pictures, beside the truth, becomes preference rows.
    with stages.stage("own_mistakes", f"Sampling its captions of {FRESH_PICTURES} fresh pictures"):
        sampled = ask(runs["sft"].final_dir, fresh, place, temperature=1.0, seed=seed)
        rows = store.write_jsonl(place / "rows" / "own_mistakes.jsonl", shape_rows.corrections(fresh, sampled.answers))
        stages.console.print(f"   {rows} of them are wrong: each becomes a pair, the truth before what the model said")

    # 4. Align the model to these rows, and let the controls go the same number of steps.
    with stages.stage("alignment", "Aligning it to its own mistakes, and training three controls"):
        for name, recipe in _continuations(place, seed, threads).items():
            runs[name] = _train(recipe)

    # 5. Ask all of them about pictures that none has seen.
    with stages.stage("evaluation", f"Asking all of them about {HELD_OUT_PICTURES} held-out pictures"):
        asked = {model.name: ask(runs[model.name].final_dir, held_out, place) for model in MODELS}
        findings = Findings.of({name: judge(one) for name, one in asked.items()})
        _write_answers(place / "answers.jsonl", held_out, asked)

    # 6. The same recipe on photographs: the way for one's own data.
    with stages.stage("photographs", "Running the same recipe on photographs: the way for your own data"):
        photograph_run = _photographs(place, seed, threads, stages.console)

    # 7. Write down what was seen.
    summary = {
        "seed": seed,
        "threads": threads,
        "models": findings.as_json(),
        "preference_rows": rows,
        "photographs": photograph_run,
        "seconds": {**stages.seconds, "total": round(sum(stages.seconds.values()), 1)},
        "conclusions": quickstart_story.conclusions(findings),
    }
    (place / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    _write_report(place, summary, findings, asked, runs)
    quickstart_story.print_findings(stages.console, findings)
    stages.console.print(f"\n{summary['seconds']['total']:.0f} seconds. Files to look at:")
    for path, about in _files(place).items():
        stages.console.print(f"  [bold]{path}[/]  {about}", highlight=False)
    return summary


def _fresh(place: Path) -> Path:
    """Make the directory, or empty it when an earlier quickstart wrote it."""
    if place.exists() and any(place.iterdir()) and not (place / MARKER).is_file():
        raise ConfigError(
            f"{str(place)!r} is not empty and no quickstart wrote it; name another directory with --output-dir"
        )
    shutil.rmtree(place, ignore_errors=True)
    (place / "rows").mkdir(parents=True)
    (place / MARKER).write_text("The next quickstart in this directory replaces everything in it.\n", encoding="utf-8")
    return place


def _write_world(place: Path, seed: int) -> tuple[Album, Album]:
    """Draw all pictures and write the rows that do not depend on a model; return the fresh and the held-out ones."""
    learned = shape_rows.draw_album("learned", SFT_PICTURES, place, seed=_seed(seed, 1))
    fresh = shape_rows.draw_album("fresh", FRESH_PICTURES, place, seed=_seed(seed, 2))
    held_out = shape_rows.draw_album("held_out", HELD_OUT_PICTURES, place, seed=_seed(seed, 3))

    def write(name: str, album: Album, *, biased: bool, question_share: float, stream: int) -> None:
        rows = shape_rows.demonstrations(album, biased=biased, question_share=question_share, seed=_seed(seed, stream))
        store.write_jsonl(place / "rows" / f"{name}.jsonl", rows)

    write("annotator", learned, biased=True, question_share=QUESTION_SHARE, stream=4)
    write("annotator_fresh", fresh, biased=True, question_share=0.0, stream=5)
    write("truth_fresh", fresh, biased=False, question_share=0.0, stream=6)
    return fresh, held_out


def _seed(seed: int, stream: int) -> int:
    """Return a seed for one of the independent streams of a run; streams of different runs differ too."""
    return seed * 1000 + stream


def _continuations(place: Path, seed: int, threads: int) -> dict[str, Path]:
    """Write the recipes that go on from the SFT model, all of them for the same number of steps."""
    common: dict[str, Any] = {"seed": seed, "threads": threads}
    return {
        "more_sft": quickstart_recipes.more_sft(
            place, "more_sft", "annotator_fresh", "Control: more captions by the same annotator.", **common
        ),
        "aligned": quickstart_recipes.align(
            place,
            "aligned",
            "The truth before what the model itself said: DPO, with an SFT term that holds on to the truth.",
            with_sft_term=True,
            **common,
        ),
        "dpo_alone": quickstart_recipes.align(
            place, "dpo_alone", "Control: the same rows without the SFT term.", with_sft_term=False, **common
        ),
        "truth_sft": quickstart_recipes.more_sft(
            place, "truth_sft", "truth_fresh", "Control: SFT on true captions of the same pictures.", **common
        ),
    }


def _train(recipe: Path) -> RunResult:
    """Run a recipe file as `mmalign train` does."""
    return train.run(load_recipe(recipe))


def _photographs(place: Path, seed: int, threads: int, console: Console) -> dict[str, Any]:
    """Run the recipe on the photographs inside scikit-image; say so when it is not installed."""
    count = store.write_jsonl(place / "rows" / "photographs.jsonl", photographs.rows(place))
    if not count:
        reason = "left out: scikit-image, which brings the photographs, is not installed (pip install scikit-image)"
        console.print(f"   {reason}")
        return {"rows": 0, "note": reason}
    metrics = _train(quickstart_recipes.photographs(place, seed=seed, threads=threads)).metrics
    return {
        "rows": count,
        "margin_first_step": metrics[0]["rewards/margins"],
        "margin_last_step": metrics[-1]["rewards/margins"],
        "note": "a dozen rows show the way for your own data; they prove nothing about learning",
    }


def _write_answers(path: Path, album: Album, asked: dict[str, Asked]) -> None:
    """Write one line a held-out picture: its path, its truth, and what every model answered."""
    with path.open("w", encoding="utf-8") as file:
        for index, (uri, scene) in enumerate(zip(album.uris, album.scenes, strict=True)):
            answers = {name: one.answers[index] for name, one in asked.items()}
            file.write(json.dumps({"image": uri, "truth": shapes.caption(scene), "answers": answers}) + "\n")


def _write_report(
    place: Path,
    summary: Mapping[str, Any],
    findings: Findings,
    asked: Mapping[str, Asked],
    runs: Mapping[str, RunResult],
) -> None:
    facts = {
        "seed": str(summary["seed"]),
        "pictures": f"{SFT_PICTURES} to learn from, {FRESH_PICTURES} fresh ones, {HELD_OUT_PICTURES} held out",
        "preference rows": str(summary["preference_rows"]),
        "seconds": ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in summary["seconds"].items()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}",
    }
    told = quickstart_story.story(
        findings,
        quickstart_story.examples(asked, place),
        run_dirs={name: result.output_dir for name, result in runs.items()},
        facts=facts,
        files=_files(place),
    )
    write_quickstart_report(place / "report.html", told)


def _files(place: Path) -> dict[str, str]:
    return {
        str(place / "report.html"): "curves, and pictures with the answers before and after",
        str(place / "summary.json"): "every figure before and after, with its interval",
        str(place / "aligned.yaml"): "the recipe that cured it",
        str(place / "rows" / "own_mistakes.jsonl"): "the preference rows",
        str(place / "photographs.yaml"): "the recipe to copy for your own pictures",
    }
