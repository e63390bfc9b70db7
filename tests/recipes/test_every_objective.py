"""Every preset there is, through whole runs on rows with pictures, on clips, on lists of four and on judged answers.

`NEEDS` says of each preset which rows it reads and what it wants in them or in the recipe; presets that want the same
rows share a run, as a weighted sum. A preset that is not in it fails.
"""

import math
from dataclasses import dataclass

import pytest
import torch
import videos
from pictures import encoded, noise
from training_runs import recipe, run

from mmalign.config.needs import CONTRAST, TEACHER, TOKEN_REWARD
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.formats.store import write_jsonl
from mmalign.objectives.compose import Objective, build
from mmalign.objectives.presets import PRESETS


@dataclass(frozen=True)
class Needs:
    """What a preset wants.

    Args:
        rows: which file: "lists", "taught" (lists, and a teacher), "other media" (the last response saw other media
            than the row), or "judged" (one answer a row, and a label).
        of_responses: what every response has to have: "score", or the name of a number.
        of_recipe: what the section `model` has to name, by the names of `mmalign.config.needs`.
        responses: from how many on a row teaches anything; likelihood alone wants one.
    """

    rows: str = "lists"
    of_responses: tuple[str, ...] = ()
    of_recipe: tuple[str, ...] = ()
    responses: int = 2


PLAIN = Needs()
WITH_LIKELIHOOD = Needs(responses=1)
SCORED = Needs(of_responses=("score",))
JUDGED = Needs(rows="judged", responses=1)
SECOND_JUDGE = Needs(of_responses=("judge",))
OTHER_MODEL = Needs(of_responses=("logp/other", "tokens/other"))
SAMPLED = Needs(of_responses=("from_reference",))

NEEDS = {
    **dict.fromkeys(["dpo", "cdpo", "robust", "ipo", "hinge", "dpo_norm", "exo", "discopop", "f_dpo"], PLAIN),
    **dict.fromkeys(["ld_dpo", "sampo", "mask_dpo", "ddpo", "wpo", "curry_dpo"], PLAIN),
    **dict.fromkeys(["bco_pair", "bco", "nca", "sppo_hard", "apo_zero", "apo_down", "kto_pair"], PLAIN),
    **dict.fromkeys(["aot", "aot_unpaired", "simpo", "alphapo"], PLAIN),
    **dict.fromkeys(["rpo", "mpo", "cpo", "cpo_simpo", "orpo", "nextquill", "sft"], WITH_LIKELIHOOD),
    **dict.fromkeys(["beta_dpo", "beta_dpo_implicit", "lcpo", "spa", "eurus"], PLAIN),
    **dict.fromkeys(["plackett_luce", "knowpat", "rrhf", "trpa", "tdpo1", "tdpo2"], PLAIN),
    **dict.fromkeys(["mdpo", "chip", "povid", "v_dpo"], PLAIN),
    **dict.fromkeys(["tpo", "tpo_l", "vista_dpo"], Needs(responses=3)),
    **dict.fromkeys(["kto", "apo_zero_unpaired", "bco_unpaired"], JUDGED),
    **dict.fromkeys(["pro", "da_dpo", "dama", "uni_dpo", "sppo_single"], SCORED),
    "mm_dpo": Needs(of_responses=("score",), responses=1),
    **dict.fromkeys(["cream", "scir", "crm"], SECOND_JUDGE),
    **dict.fromkeys(["infifpo", "infifpo_sum"], OTHER_MODEL),
    "poft": Needs(of_responses=("logp/other", "tokens/other"), responses=1),
    "sppo": Needs(of_responses=("win_rate",)),
    "irepo": Needs(of_responses=("strength",)),
    **dict.fromkeys(["selm", "xpo"], SAMPLED),
    "sail": Needs(of_recipe=(TOKEN_REWARD,)),
    "dckd": Needs(rows="taught", of_recipe=(TEACHER,), responses=1),
    **dict.fromkeys(["adpa", "aligndistil"], Needs(rows="taught", of_recipe=(TEACHER, CONTRAST), responses=1)),
    "symmpo": Needs(rows="other media", responses=3),
    "mixed_image": Needs(rows="other media"),
}

OPTIONS = {
    "spa": {"doubt": 0.3, "quantile": 0.5, "warmup_steps": 0},
    "uni_dpo": {"good_score": 0.0},
    "v_dpo": {"visual_weight": 0.5},
}
"""Options under which each term has something to do in a short run."""

NUMBERS = {
    "win_rate": (0.9, 0.6, 0.4, 0.1),
    "strength": (4, 3, 2, 1),
    "judge": (1.0, 0.5, 0.2, 0.1),
    "from_reference": (0, 1, 0, 0),
    "logp/other": (-40.0, -50.0, -60.0, -70.0),
    "tokens/other": (12, 10, 11, 13),
}
NAMED = ("clip_w", "clip_l", "frame")


def media_of(directory, kind, name):
    """Write a picture or a clip that differs by its name, and return where it is."""
    seed, file = sum(map(ord, name)), directory / f"{name}.{'png' if kind == 'image' else 'mp4'}"
    if kind == "image":
        file.write_bytes(encoded(noise(28, 56, seed=seed)))
    else:
        videos.write(file, videos.numbered(4 + seed % 3), fps=5)
    return MediaRef(kind=kind, uri=file.name)


def full_row(directory, number, kind, *, responses, rows="lists"):
    """Return a row with everything that presets read, its history of an earlier turn included."""
    own = (media_of(directory, kind, f"own{number}"),)
    others = {tag: media_of(directory, kind, f"{tag}{number}").uri for tag in NAMED}
    answers = tuple(
        Response.of(
            f"answer {k} {'indeed ' * ((number + k) % 3)}of them",
            score=4.0 - k,
            scores={name: values[k] for name, values in NUMBERS.items()},
            spans=(Span(start=0, end=6, weight=0.0),),
            media=(media_of(directory, kind, f"other{number}"),)
            if rows == "other media" and k == responses - 1
            else None,
        )
        for k in range(responses)
    )
    return Preference(
        id=f"row {number}",
        prompt=(
            Message.of("user", "I like two ."),
            Message.of("assistant", "Two it is ."),
            Message.of("user", 0, "What is it ?"),
        ),
        media=own,
        responses=answers,
        label=number % 2 == 0 if responses == 1 else None,
        tags={"annotator": "ab"[number % 2], "bbox": "'x': 4.0, 'y': 4.0, 'w': 16.0, 'h': 24.0", **others},
    )


def test_the_table_names_every_preset():
    assert NEEDS.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", NEEDS)
def test_a_preset_asks_for_what_the_table_says_and_for_nothing_else(tmp_path, name):
    needs, objective = NEEDS[name], build([{"name": name}])
    row = full_row(tmp_path, 0, "image", responses=1 if needs.rows == "judged" else 3, rows=needs.rows)
    objective.require_row(row)
    kinds = {"reference", "reference_kl", "teacher_logps", "contrast_logps", "token_reward"}
    assert set(needs.of_recipe) == objective.needs & kinds - {"reference", "reference_kl"}
    least = next(count for count in (1, 2, 3) if objective.responses_read(range(count)))
    assert least == needs.responses
    for wanted in needs.of_responses:
        with pytest.raises(RowError, match="response (has no score|lacks a number)"):
            objective.require_row(_without(row, {wanted}))
    objective.require_row(_without(row, {"score", *NUMBERS} - set(needs.of_responses)))


def _without(row, names):
    """Return the row whose responses lack these scores."""
    answers = tuple(
        Response.of(
            answer.text,
            score=None if "score" in names else answer.score,
            scores={name: value for name, value in answer.scores.items() if name not in names},
            media=answer.media,
        )
        for answer in row.responses
    )
    return Preference(id=row.id, prompt=row.prompt, media=row.media, responses=answers, label=row.label, tags=row.tags)


RUNS = {
    "lists of four": ("lists", "image", 4),
    "lists about clips": ("lists", "video", 3),
    "with a teacher": ("taught", "image", 4),
    "with a teacher, about clips": ("taught", "video", 2),
    "with other media": ("other media", "image", 4),
    "with other clips": ("other media", "video", 3),
    "judged": ("judged", "image", 1),
    "judged clips": ("judged", "video", 1),
}


@pytest.mark.parametrize(("rows", "kind", "responses"), RUNS.values(), ids=RUNS)
def test_every_preset_trains(tmp_path, tiny_model, monkeypatch, rows, kind, responses):
    """Each term is finite and moves what the model gives, and the loss of the run is their weighted sum."""
    media = tmp_path / "rows"
    media.mkdir()
    write_jsonl(media / "rows.jsonl", [full_row(media, n, kind, responses=responses, rows=rows) for n in range(2)])
    specs = [{"name": name, **OPTIONS.get(name, {})} for name, needs in NEEDS.items() if needs.rows == rows]
    models = {
        "lists": {"token_reward": str(tiny_model("qwen2_5_vl", seed=1))},
        "taught": {
            "teacher": {
                "path": str(tiny_model("qwen2_5_vl", seed=1)),
                "contrast": str(tiny_model("qwen2_5_vl", seed=2)),
                "top_k": 8,
            }
        },
    }
    values = recipe(
        tiny_model("qwen2_5_vl"),
        media / "rows.jsonl",
        tmp_path / "run",
        objective=specs,
        data__video={"frames": 4, "fps": 5.0, "max_pixels": 3136},
        train__max_steps=2,
        train__gradient_accumulation_steps=1,
    )
    values["model"] |= models.get(rows, {})
    moved = moving_terms(monkeypatch)
    done = run(values)

    parts = build(specs).parts
    assert {part.name for part in parts} - moved <= {"uni_dpo_nll"}  # it waits until a best answer falls
    for line in done.metrics:
        losses = {part.name: line[f"loss/{part.name}"] for part in parts}
        assert all(math.isfinite(value) for value in line.values()), losses
        assert line["loss"] == pytest.approx(sum(part.weight * losses[part.name] for part in parts), rel=1e-4)
        assert line["grad_norm"] > 0


def moving_terms(monkeypatch):
    """Return a set that fills with the names of terms that have a gradient to anything the policy's forward gave."""
    moved, call = set(), Objective.__call__

    def watch(self, policy, *given, **more):
        output = call(self, policy, *given, **more)
        if not policy.token_logps.requires_grad:
            return output
        views = [policy, *policy.views.values()]
        given_by_policy = [view.token_logps for view in views] + [one for view in views for one in view.dense.values()]
        outputs = [tensor for tensor in given_by_policy if tensor.requires_grad]
        for term in output.terms:
            gradients = torch.autograd.grad(term.values.sum(), outputs, retain_graph=True, allow_unused=True)
            if any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients):
                moved.add(term.name)
        return output

    monkeypatch.setattr(Objective, "__call__", watch)
    return moved
