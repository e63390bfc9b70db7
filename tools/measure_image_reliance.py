"""Measure whether preference training makes a model look that answers without looking: mDPO against plain DPO.

    python tools/measure_image_reliance.py --seeds 1 2 3

In the world of corner shapes (`mmalign/miniature/shapes.py`) a tiny Qwen2.5-VL learns captions of other pictures than
those it sees, and so learns to speak without looking. Its pairs are then told apart by their words alone: the worse
caption reports one thing too many. What blank pictures, and the pictures of other rows, cost the true captions of
held-out pictures is measured before and after DPO and mDPO of as many steps.

Everything of a seed lies in `<output-dir>/<seed>/`; a run that is there is not done again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.engine.policy import load_policy
from mmalign.engine.tokenise import Tokeniser, load_processor
from mmalign.engine.tree import collate
from mmalign.engine.views import LAST_RESPONSE, View, contrasted, other_media
from mmalign.formats import store
from mmalign.formats.media import MediaRef
from mmalign.formats.preference import Preference, Response
from mmalign.miniature import models, shape_rows, shapes
from mmalign.miniature.shape_rows import Album
from mmalign.modalities.table import limits_below
from mmalign.recipes import train as recipes_train
from mmalign.recipes.configuration import load_recipe
from mmalign.recipes.recipe_files import write_recipe
from mmalign.train.groups import groups_of

BLIND_STEPS, ROWS_PER_STEP = 25, 16
STEPS, PAIRS_PER_STEP = 60, 8
LEARNED, FRESH, HELD_OUT = 320, 160, 64
BETA = 0.3
VIEWS: dict[str, View] = {"blank": contrasted("blank"), "another row's": other_media(LAST_RESPONSE)}
CONTINUED: dict[str, dict[str, Any]] = {
    "dpo": {"objective": [{"name": "dpo", "beta": BETA}]},
    "mdpo": {"objective": [{"name": "mdpo", "beta": BETA}]},
}


def measure(place: Path, seed: int) -> dict[str, dict[str, float]]:
    """Return for every model of a seed what is lost under each view, in nats per token, and the accuracy of pairs."""
    _write_rows(place, seed)
    if not (place / "start" / "config.json").is_file():
        models.save("qwen2_5_vl", place / "start", seed=seed, scale="shapes", words=shapes.WORDS)
    schedule = {"learning_rate": 2e-3, "lr_scheduler_type": "cosine", "warmup_steps": 5, "max_steps": BLIND_STEPS}
    batch = {"per_device_train_batch_size": ROWS_PER_STEP, **schedule}
    _run(place, "blind", {}, model="start", rows="blind", train={"seed": seed, **batch})
    schedule = {"learning_rate": 1e-3, "warmup_steps": 5, "max_steps": STEPS}
    batch = {"per_device_train_batch_size": PAIRS_PER_STEP, **schedule}
    found = {"blind": looked_at(place / "blind" / "final", place)}
    for name, changes in CONTINUED.items():
        _run(place, name, changes, model="blind/final", rows="pairs", train={"seed": seed, **batch})
        found[name] = looked_at(place / name / "final", place)
    return found


@torch.no_grad()
def looked_at(model: Path, place: Path) -> dict[str, float]:
    """Return what changed media cost the true captions of the held-out pictures, and the share of pairs in order."""
    policy = load_policy(model).eval()
    tokenise = Tokeniser(load_processor(model), policy.family, limits_below(place))
    rows = list(store.read_jsonl(place / "rows" / "held_out.jsonl"))
    lost: dict[str, list[float]] = {name: [] for name in VIEWS}
    right: list[bool] = []
    for start in range(0, len(rows), PAIRS_PER_STEP):
        trees = [tokenise.trees(row, list(VIEWS.values())) for row in rows[start : start + PAIRS_PER_STEP]]
        seen = [tree for trees_of_view in zip(*trees, strict=True) for tree in trees_of_view]
        batch = collate(seen, policy.family, tokenise.pad_id, list(VIEWS.values()))
        logps = groups_of(policy(batch), batch)
        for name, view in VIEWS.items():
            lost[name] += (logps.means() - logps.views[view.name].means())[:, 0].tolist()
        right += (logps.sums()[:, 0] > logps.sums()[:, 1]).tolist()
    return {**{name: float(np.mean(values)) for name, values in lost.items()}, "pairs in order": float(np.mean(right))}


def _write_rows(place: Path, seed: int) -> None:
    """Write captions of other pictures, pairs, and held-out pairs whose worse caption saw another row's picture."""
    if (place / "rows" / "held_out.jsonl").is_file():
        return
    learned = shape_rows.draw_album("learned", LEARNED, place, seed=3 * seed)
    order = np.random.default_rng(seed).permutation(LEARNED)
    strangers = replace(learned, scenes=tuple(learned.scenes[number] for number in order))
    fresh = shape_rows.draw_album("fresh", FRESH, place, seed=3 * seed + 1)
    held_out = shape_rows.draw_album("held_out", HELD_OUT, place, seed=3 * seed + 2)
    (place / "rows").mkdir(exist_ok=True)
    store.write_jsonl(place / "rows" / "blind.jsonl", shape_rows.prompts(strangers))
    store.write_jsonl(place / "rows" / "pairs.jsonl", _pairs(fresh))
    store.write_jsonl(place / "rows" / "held_out.jsonl", _of_other_rows(_pairs(held_out), held_out))


def _pairs(album: Album) -> list[Preference]:
    """Return the true caption of every picture before one that reports a phantom beside."""
    answers = [shapes.caption((*scene, shapes.phantom_of(scene))) for scene in album.scenes]
    return list(shape_rows.corrections(album, answers))


def _of_other_rows(rows: list[Preference], album: Album) -> list[Preference]:
    uris = (*album.uris[1:], album.uris[0])

    def seen(response: Response, uri: str) -> Response:
        return replace(response, media=(MediaRef(kind="image", uri=uri),))

    return [replace(row, responses=(row.chosen, seen(row.rejected, uri))) for row, uri in zip(rows, uris, strict=True)]


def _run(place: Path, name: str, changes: dict[str, Any], *, model: str, rows: str, train: dict[str, Any]) -> None:
    if (place / name / "final").is_dir():
        return
    values = {
        "recipe": "preference" if changes else "sft",
        "model": {"path": str(place / model)},
        "data": {"train": str(place / "rows" / f"{rows}.jsonl"), "root": str(place)},
        **changes,
        "train": {"output_dir": str(place / name), "save_steps": None, "logging_steps": 10, "threads": 1, **train},
    }
    recipes_train.run(load_recipe(write_recipe(place / f"{name}.yaml", f"Image reliance: {name}.", values)))


def main() -> None:
    """Measure every seed and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output-dir", type=Path, default=Path("runs/image_reliance"))
    given = parser.parse_args()
    for seed in given.seeds:
        place = given.output_dir / str(seed)
        place.mkdir(parents=True, exist_ok=True)
        found = measure(place, seed)
        (place / "summary.json").write_text(json.dumps(found, indent=1))
        columns = list(next(iter(found.values())))
        print(f"\nseed {seed}\n\n| model | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
        for name, figures in found.items():
            print(f"| {name} | {' | '.join(f'{figures[column]:.3f}' for column in columns)} |", flush=True)


if __name__ == "__main__":
    main()
