"""Prompt trees for tests of the engine, made with nothing but a family's own processor, and the yardstick for them.

The yardstick is the plainest thing there is: one response, one row, no padding, the processor's own inputs, the model's
own top-level forward, `log_softmax` of all its logits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pictures import encoded, noise
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer

from mmalign.engine.families import family_of
from mmalign.engine.tokenise import Tokeniser
from mmalign.engine.tree import TreeBatch
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.video import VideoLimits

NATIVE_TYPES = ("mm_token_type_ids", "token_type_ids")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """What `collate` reads of a prompt tree, and the processor's own token types for the yardstick."""

    prompt_ids: Tensor
    response_ids: tuple[Tensor, ...]
    media: dict[str, Tensor] = field(default_factory=dict)
    native_types: dict[str, Tensor] = field(default_factory=dict)
    id: str = "row"
    response_weights: tuple[Tensor, ...] | None = None
    margin: float | None = None
    scores: tuple[float, ...] = ()
    numbers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    weight: float = 1.0
    tags: dict = field(default_factory=dict)
    media_key: str | None = None

    @property
    def levels(self) -> tuple[int, ...]:
        """Best first, no ties."""
        return tuple(range(len(self.response_ids)))


def ids(*tokens: int) -> Tensor:
    """Return token ids as a tensor."""
    return torch.tensor(tokens, dtype=torch.long)


def random_trees(
    vocabulary: int, prompts: Sequence[int], responses: Sequence[Sequence[int]], seed: int = 0
) -> list[Tree]:
    """Return text-only trees with prompts and responses of the given lengths."""
    generator = torch.Generator().manual_seed(seed)

    def draw(length: int) -> Tensor:
        return torch.randint(3, vocabulary, (length,), generator=generator)

    return [
        Tree(id=f"row {row}", prompt_ids=draw(prompt), response_ids=tuple(draw(length) for length in lengths))
        for row, (prompt, lengths) in enumerate(zip(prompts, responses, strict=True))
    ]


def rows_of(directory, config) -> list[Tree]:
    """Return three rows for a saved model: one image and K = 2; two images in two turns and K = 3; text only and K = 5.

    PaliGemma, whose processor refuses text alone, gets an image in the third row too; text-only models get none.
    """
    family = family_of(config)
    processor = (
        AutoProcessor.from_pretrained(directory) if family.has_vision else AutoTokenizer.from_pretrained(directory)
    )
    picture = _pictures() if family.has_vision else lambda *size: None
    third = [picture(45, 45)] if family.name == "paligemma" else []
    plan = [
        ([("user", "what is here?", [picture(60, 40)])], ["a cat", "two dogs on it"]),
        (
            [
                ("user", "look", [picture(40, 70)]),
                ("assistant", "yes", []),
                ("user", "and now?", [picture(50, 30)]),
            ],
            ["same", "not the same", "no"],
        ),
        ([("user", "say a number, please", third)], ["1", "two", "3.5", "x", "forty-two"]),
    ]
    return [_row(processor, family, turns, answers) for turns, answers in plan]


def video_rows_of(directory, config, root) -> list[Tree]:
    """Return four rows for a saved model: two videos and K = 2; a video and an image in two turns and K = 3; text only
    and K = 5; an image and K = 2. Videos differ in length from row to row, and in size within one."""
    family = family_of(config)
    limits = {"image": ImageLimits(root=root), "video": VideoLimits(root=root)}
    tokenise = Tokeniser(AutoProcessor.from_pretrained(directory), family, limits)
    # The last one lasts longer than the text behind it has tokens: its frames then have larger positions than the text.
    wide, tall, longer = (clip(root, *shape) for shape in [(4, 60, 40), (4, 40, 70), (24, 30, 30)])
    picture = MediaRef(kind="image", content=encoded(noise(50, 30, seed=3)))
    two_turns = [Message.of("user", 0, "look"), Message.of("assistant", "yes"), Message.of("user", "and", 1, "now?")]
    plan = [
        ([Message.of("user", 0, "then", 1, "?")], [wide, tall], ["a cat", "two dogs on it"]),
        (two_turns, [longer, picture], ["same", "not the same", "no"]),
        ([Message.of("user", "say a number, please")], [], ["1", "two", "3.5", "x", "forty-two"]),
        ([Message.of("user", "what is here?", 0)], [picture], ["a cat", "two dogs on it"]),
    ]
    rows = [
        Preference(id="", prompt=tuple(turns), media=tuple(media), responses=tuple(map(Response.of, answers)))
        for turns, media, answers in plan
    ]
    made = [tokenise(row) for row in rows]
    types = family.token_types
    return [
        Tree(
            prompt_ids=tree.prompt_ids,
            media=tree.media,
            native_types={types: tree.mm_token_type_ids} if types and tree.mm_token_type_ids is not None else {},
            response_ids=tree.response_ids,
        )
        for tree in made
    ]


def clip(root, frames: int, width: int, height: int, seed: int = 0) -> MediaRef:
    """Write a video as a list of lossless frames of noise below `root` and return its reference."""
    names = [f"{frames}x{width}x{height}-{seed}-{number}.png" for number in range(frames)]
    for number, name in enumerate(names):
        (Path(root) / name).write_bytes(encoded(noise(width, height, seed=100 * seed + number)))
    return MediaRef(kind="video", frames=tuple(names))


def yardstick(base: torch.nn.Module, trees: Sequence[Tree], batch: TreeBatch) -> Tensor:
    """Return log-probs [B, K, R] of every response computed alone."""
    cells = torch.zeros(batch.response_mask.shape)
    for b, k, response, logps in every_distribution(base, trees):
        cells[b, k, : len(response)] = logps.gather(1, response[:, None]).squeeze(1)
    return cells


def every_distribution(base: torch.nn.Module, trees: Sequence[Tree]) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Yield row, place, tokens and all log-probs [R, V] of every response computed alone."""
    for b, tree in enumerate(trees):
        for k, response in enumerate(tree.response_ids):
            row = torch.cat([tree.prompt_ids, response])[None]
            after = int(base.config.model_type == "paligemma")
            types = {
                name: torch.cat([kinds, torch.full_like(response, after)])[None]
                for name, kinds in tree.native_types.items()
            }
            logits = base(
                input_ids=row, attention_mask=torch.ones_like(row), use_cache=False, **types, **tree.media
            ).logits
            yield b, k, response, logits[0, len(tree.prompt_ids) - 1 : -1].float().log_softmax(-1)


def _row(processor, family, turns, answers: Sequence[str]) -> Tree:
    tokenizer = getattr(processor, "tokenizer", processor)
    pictures = [picture for _, _, pictures in turns for picture in pictures if picture is not None]
    out = _processed(processor, family, turns, pictures)
    media = {name: _tensor(out[name]) for name in family.media_inputs if name in out} if pictures else {}
    end = [tokenizer.eos_token_id]
    return Tree(
        prompt_ids=out["input_ids"][0],
        media=media,
        native_types={name: out[name][0] for name in NATIVE_TYPES if name == family.token_types and name in out},
        response_ids=tuple(ids(*tokenizer(text, add_special_tokens=False)["input_ids"], *end) for text in answers),
    )


def _processed(processor, family, turns, pictures) -> dict:
    if not family.has_vision:
        return processor([_rendered(processor, turns, False)], add_special_tokens=False, return_tensors="pt")
    images = {"images": [pictures]} if pictures else {}
    options = {"return_mm_token_type_ids": True} if family.token_types == "mm_token_type_ids" else {}
    text = _rendered(processor, turns, True)
    return processor(text=[text], **images, add_special_tokens=False, return_tensors="pt", **options)


def _rendered(processor, turns, has_vision: bool) -> str:
    if not processor.chat_template:
        return "".join("<image>" * len([p for p in pictures if p is not None]) + text for _, text, pictures in turns)
    messages = [
        {
            "role": role,
            "content": [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}] if has_vision else text,
        }
        for role, text, pictures in turns
    ]
    return processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def _pictures() -> Callable[[int, int], Image.Image]:
    generator = np.random.default_rng(0)
    return lambda width, height: Image.fromarray(generator.integers(0, 255, (height, width, 3), dtype=np.uint8))


def _tensor(value) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value)
