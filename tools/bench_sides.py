"""The two sides of the benchmark: TRL's DPOTrainer and mmalign, made to do the same step on the same rows.

A side is built from a directory with a policy, one with a reference, and a case; `step()` then computes loss and
gradients once. Rows are tokenised and images processed before any clock starts, on both sides. The optimiser is left
out: it is the same work for both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

BETA = 0.1
LORA = {"rank": 16, "alpha": 32}
IMAGE_TOKEN_PX = 28  # Qwen2.5-VL: 2 x 2 patches of 14 pixels become one token


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting that both sides are measured in.

    Args:
        name: for the table.
        prompts: rows per step.
        responses: K of every row; the peer gets K / 2 pairs of the same prompt.
        image_tokens: a square number.
        response_tokens: length of every response, end of turn included.
        vision: "trained" or "frozen" (tower and projector).
        tuning: "full" or "lora" (language part; vision too when it is trained).
    """

    name: str
    prompts: int
    responses: int
    image_tokens: int
    response_tokens: int
    vision: str = "trained"
    tuning: str = "full"

    @property
    def pairs(self) -> int:
        """Pairs per step."""
        return self.prompts * self.responses // 2

    @property
    def lora_parts(self) -> tuple[str, ...]:
        """Parts that get adapters."""
        return ("language",) if self.vision == "frozen" else ("vision", "projector", "language")


@dataclass(frozen=True)
class Setting:
    """Where and how both sides compute."""

    policy: Path
    reference: Path
    device: str = "cpu"
    dtype: str = "float32"
    attention: str = "sdpa"


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Return the rows of a case: prompt text, a picture of noise, K responses of printable letters."""
    generator = np.random.default_rng(0)
    side = int(case.image_tokens**0.5) * IMAGE_TOKEN_PX
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz "))
    end_tokens = 2  # what the chat template puts after an answer: end of turn, line break
    return [
        {
            "image": Image.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8)),
            "prompt": "where?",
            "responses": [
                "".join(generator.choice(letters, case.response_tokens - end_tokens)) for _ in range(case.responses)
            ],
        }
        for _ in range(case.prompts)
    ]


class TrlSide:
    """TRL's DPOTrainer: `compute_loss` and backward on what its own collator made.

    Args:
        head_on_responses: project response positions only, as TRL does where Triton runs; on a CPU it projects every
            position.
    """

    def __init__(self, setting: Setting, case: Case, *, head_on_responses: bool = False) -> None:
        import trl.trainer.utils as trl_utils
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        if head_on_responses:
            trl_utils._use_triton = lambda device: True
        from transformers import AutoProcessor

        from mmalign.engine.load import load_model

        self.device = setting.device
        options = {"dtype": setting.dtype, "attn_implementation": setting.attention}
        model = load_model(setting.policy, **options).to(setting.device)
        reference = load_model(setting.reference, **options).to(setting.device) if case.tuning == "full" else None
        freeze(model, case)
        arguments = DPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=case.pairs,
            beta=BETA,
            max_length=None,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=setting.device == "cpu",
            report_to=[],
            disable_tqdm=True,
        )
        self._trainer = DPOTrainer(
            model=model,
            ref_model=reference,
            args=arguments,
            train_dataset=Dataset.from_list([{"images": [], "prompt": "", "chosen": "", "rejected": ""}]),
            processing_class=AutoProcessor.from_pretrained(setting.policy),
            peft_config=lora_config(setting, case) if case.tuning == "lora" else None,
        )
        self.model = self._trainer.model
        move_adapters(self.model)
        self.model.train()
        inputs = self._trainer.data_collator(list(_peer_rows(case)))
        self._inputs = {name: value.to(setting.device) for name, value in inputs.items()}

    def step(self) -> float:
        """Compute loss and gradients once and return the loss."""
        self.model.zero_grad(set_to_none=True)
        loss = self._trainer.compute_loss(self.model, self._inputs)
        self._trainer.accelerator.backward(loss)
        return float(loss.detach())


class OurSide:
    """mmalign: `train.step.score` and backward, as its training loop calls them.

    Args:
        engine: "tree", or "flat" for separate rows whose head still sees response positions only.
        steady: reference log-probs from a table and vision features from a cache, as in every epoch but the first.
    """

    def __init__(self, setting: Setting, case: Case, *, engine: str = "tree", steady: bool = False) -> None:
        from accelerate import Accelerator

        from mmalign.engine.load import load_model
        from mmalign.engine.parts import add_lora
        from mmalign.engine.policy import Policy
        from mmalign.engine.reference import AdapterOff, FrozenCopy
        from mmalign.objectives.compose import build
        from mmalign.train.loader import LoadedBatch
        from mmalign.train.step import Learner

        options = {"dtype": setting.dtype, "attn_implementation": setting.attention}
        model = load_model(setting.policy, **options).to(setting.device)
        freeze(model, case)
        if case.tuning == "lora":
            model = add_lora(model, Policy(model).family, parts=case.lora_parts, **LORA)
            move_adapters(model)
        policy = Policy(model, engine=engine)
        self.model = policy.model
        batch = _our_batch(setting.policy, policy.family, case).to(setting.device)
        if case.tuning == "lora":
            reference = AdapterOff(policy)
        else:
            reference = FrozenCopy.of_model(load_model(setting.reference, **options).to(setting.device), policy)
        cache = Path(tempfile.mkdtemp()) if steady and case.vision == "frozen" else None
        reference, vision = _reuse(policy, reference, batch, steady=steady, cache=cache)
        self._learner = Learner(
            accelerator=Accelerator(cpu=setting.device == "cpu"),
            policy=policy,
            reference=reference,
            vision=vision,
            objective=build([{"name": "dpo", "beta": BETA, "pairs": "disjoint"}]),
        )
        self._loaded = LoadedBatch(batch=batch)

    def step(self) -> float:
        """Compute loss and gradients once and return the loss."""
        from mmalign.train.step import count_over_ranks, forward

        self.model.zero_grad(set_to_none=True)
        totals = count_over_ranks(self._learner, [self._loaded])
        scored = forward(self._learner, self._loaded)
        loss = self._learner.objective(scored.policy, scored.reference, scored.facts).loss(totals)
        self._learner.accelerator.backward(loss)
        return float(loss.detach())


SIDES: dict[str, tuple[type, dict[str, Any]]] = {
    "trl": (TrlSide, {}),
    "trl, head on responses": (TrlSide, {"head_on_responses": True}),
    "separate rows": (OurSide, {"engine": "flat"}),
    "tree": (OurSide, {}),
    "tree, steady": (OurSide, {"steady": True}),
}
"""The sides by name. "separate rows" is our own flat engine: what the tree itself gives is its distance to the tree."""


def build_side(name: str, setting: Setting, case: Case) -> TrlSide | OurSide:
    """Build one side."""
    kind, options = SIDES[name]
    return kind(setting, case, **options)


def freeze(model: nn.Module, case: Case) -> None:
    """Freeze vision tower and projector where the case says so."""
    from mmalign.engine.families import family_of
    from mmalign.engine.parts import freeze_parts

    if case.vision == "frozen":
        freeze_parts(model, family_of(model.config), ("vision", "projector"))


def lora_config(setting: Setting, case: Case) -> Any:
    """Return the adapter configuration that mmalign makes for the case, for the peer to use."""
    from mmalign.engine.families import family_of
    from mmalign.engine.load import load_model
    from mmalign.engine.parts import add_lora

    model = load_model(setting.policy)
    return add_lora(model, family_of(model.config), parts=case.lora_parts, **LORA).peft_config["default"]


def move_adapters(model: nn.Module) -> None:
    """Give every adapter weight the same value on both sides, away from zero, so that gradients are no accident."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            generator = torch.Generator().manual_seed(sum(name.encode()))
            values = torch.randn(parameter.shape, generator=generator) * 0.02
            parameter.data.copy_(values.to(parameter.dtype))


def save_models(
    directory: Path, *, family: str = "qwen2_5_vl", scale: str = "bench", dtype: str = "float32", **changes: int
) -> tuple[Path, Path]:
    """Write policy and reference; the reference differs in its language part, so that the loss is not ln 2.

    Args:
        changes: fields of `mmalign.miniature.sizes.Size` that differ from the scale.
    """
    from transformers import AutoModelForImageTextToText

    from mmalign.miniature import models

    policy = models.save(family, directory / "policy", scale=scale, default_system_turn=False, **changes)
    model = AutoModelForImageTextToText.from_pretrained(policy, dtype=getattr(torch, dtype))
    model.save_pretrained(policy)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.model.language_model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.05 * parameter.std() * noise)
    model.save_pretrained(directory / "reference")
    return policy, directory / "reference"


def compare(left: TrlSide | OurSide, right: TrlSide | OurSide) -> tuple[float, float]:
    """Return the difference of two sides: of the loss, and the largest of a gradient over the largest gradient.

    Raises:
        ValueError: a weight has a gradient on one side only.
    """
    losses = left.step(), right.step()
    gradients = [{n: p.grad for n, p in side.model.named_parameters() if p.grad is not None} for side in (left, right)]
    if gradients[0].keys() != gradients[1].keys():
        alone = sorted(gradients[0].keys() ^ gradients[1].keys())
        raise ValueError(f"{len(alone)} weights have a gradient on one side only, e.g. {alone[0]}")
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    distance = max(float((gradients[0][name] - gradients[1][name]).abs().max()) for name in gradients[0])
    return abs(losses[0] - losses[1]), distance / largest


def _peer_rows(case: Case) -> Iterator[dict[str, Any]]:
    """Yield the pairs of every row as rows of TRL: first with last, second with last but one."""
    for row in rows_of(case):
        for better in range(case.responses // 2):
            chosen, rejected = row["responses"][better], row["responses"][-1 - better]
            yield {
                "images": [row["image"]],
                "prompt": [{"role": "user", "content": row["prompt"]}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }


def _our_batch(directory: Path, family: Any, case: Case) -> Any:
    from mmalign.engine.tokenise import Tokeniser, load_processor
    from mmalign.engine.tree import collate
    from mmalign.formats.media import MediaRef
    from mmalign.formats.message import Message
    from mmalign.formats.preference import Preference, Response
    from mmalign.modalities.table import limits_below

    folder = Path(tempfile.mkdtemp())
    tokenise = Tokeniser(load_processor(directory), family, limits_below(folder))
    trees = []
    for number, row in enumerate(rows_of(case)):
        row["image"].save(folder / f"{number}.png")
        preference = Preference(
            id=str(number),
            prompt=(Message.of("user", 0, row["prompt"]),),
            media=(MediaRef(kind="image", uri=f"{number}.png"),),
            responses=tuple(Response.of(text) for text in row["responses"]),
        )
        trees.append(tokenise(preference))
    return collate(trees, family, tokenise.pad_id)


def _reuse(policy: Any, reference: Any, batch: Any, *, steady: bool, cache: Path | None) -> tuple[Any, Any]:
    """Return reference and vision memo; in the steady state both are filled, as an earlier epoch leaves them."""
    from mmalign.engine.reference import Precomputed, precompute
    from mmalign.engine.reference_table import ReferenceTable
    from mmalign.engine.vision_memo import VisionMemo

    if not steady:
        return reference, VisionMemo([policy.base, *reference.models], policy.family)
    rows = list(zip(batch.ids, batch.response_lengths.tolist(), strict=True))
    table = ReferenceTable.open(Path(tempfile.mkdtemp()) / "table", rows=rows, made_with={})
    list(precompute(table, reference, [batch]))
    memo = VisionMemo([policy.base], policy.family, cache_dir=cache)
    with memo.batch(batch), torch.no_grad():
        policy(batch)
    return Precomputed(table), memo
