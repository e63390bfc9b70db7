"""CLIP: pictures and texts as unit vectors of one space, in batches. The cosine of two says how alike they are.

Models are open_clip's: directories in its own layout (`open_clip_config.json` beside `open_clip_model.safetensors`, as
the hub has them and `open_clip.push_to_hf_hub.save_for_hf` writes them), or hub ids.

    encoder = ClipEncoder.load("models/ViT-SO400M-14-SigLIP-384")
    similarity = cosine(encoder.pictures(frames), encoder.pictures(frames))      # [N, N]
    agreement = cosine(encoder.pictures([poster]), encoder.texts(["a red poster"]))[0, 0]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mmalign.errors import ModelError, RowError

Item = TypeVar("Item")

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


class ClipEncoder:
    """Pictures and texts to unit vectors.

    Args:
        model: of open_clip, in the type that it computes in.
        preprocess: PIL picture to tensor [3, H, W], as the model was trained.
        tokenizer: makes the function from texts to token ids [N, L]; called at the first text, since many directories
            of models that only see pictures hold no tokenizer.
        name: what the model is called in messages.
        batch_size: pictures or texts of one forward.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], Tensor],
        tokenizer: Callable[[], Callable[[list[str]], Tensor]],
        *,
        name: str,
        batch_size: int = 32,
    ) -> None:
        self.model, self.name, self.batch_size = model.eval().requires_grad_(False), name, batch_size
        self._preprocess, self._tokenizer, self._tokenise = preprocess, tokenizer, None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 32,
    ) -> ClipEncoder:
        """Load a model.

        Args:
            path: directory, or hub id whose files were fetched before.
            dtype: type of weights and numbers; the vectors are float32 all the same.

        Raises:
            ModelError: it is no such directory, its weights are not safetensors, or open_clip cannot load it.
        """
        import open_clip  # Takes a second and brings torchvision; nobody else should wait for it.

        where = _identifier(path)
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(where, device=device)
        except Exception as error:  # open_clip raises what its parts raise
            raise ModelError(f"CLIP model {str(path)!r} cannot be loaded: {error}") from error
        name = str(path)
        return cls(
            model.to(dtype), preprocess, lambda: open_clip.get_tokenizer(where), name=name, batch_size=batch_size
        )

    def pictures(self, pictures: Iterable[Image.Image | np.ndarray]) -> Tensor:
        """Return unit vectors of pictures.

        Args:
            pictures: PIL pictures, or frames as uint8 [H, W, 3]; read as they are needed, a batch at a time.

        Returns:
            float32 [N, D] on the CPU.

        Raises:
            RowError: the model gives no numbers.
        """
        return self._encoded(pictures, lambda some: torch.stack(list(map(self._seen, some))), self.model.encode_image)

    def texts(self, texts: Iterable[str]) -> Tensor:
        """Return unit vectors of texts, float32 [N, D] on the CPU; what is longer than the model's context is cut.

        Raises:
            ModelError: the model has no tokenizer.
            RowError: the model gives no numbers.
        """
        if self._tokenise is None:
            try:
                self._tokenise = self._tokenizer()
            except Exception as error:  # open_clip raises what its parts raise
                raise ModelError(f"tokenizer of CLIP model {self.name!r} cannot be loaded: {error}") from error
        return self._encoded(texts, self._tokenise, self.model.encode_text)

    def _seen(self, picture: Image.Image | np.ndarray) -> Tensor:
        shown = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        return self._preprocess(shown.convert("RGB"))

    def _encoded(
        self, items: Iterable[Item], inputs: Callable[[list[Item]], Tensor], encode: Callable[..., Tensor]
    ) -> Tensor:
        weights = next(self.model.parameters())
        made = []
        with torch.no_grad():
            for some in _batches(items, self.batch_size):
                batch = inputs(some).to(weights.device)
                vectors = encode(batch.to(weights.dtype) if batch.is_floating_point() else batch).float()
                made.append(nn.functional.normalize(vectors, dim=-1).cpu())
        vectors = torch.cat(made) if made else torch.empty(0, 0)
        if not vectors.isfinite().all():
            hint = "its weights may be broken, or their type too narrow; try float32"
            raise RowError("CLIP gives vectors that are no numbers", value=self.name, hint=hint)
        return vectors


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each pair of unit vectors [N, D] and [M, D], as float32 [N, M] within -1 and 1."""
    return (left @ right.T).clamp(-1.0, 1.0)


def _identifier(path: str | Path) -> str:
    """Return how open_clip calls a directory or a hub id, once it is known that no pickle would be read."""
    place = Path(path)
    if not place.is_dir():
        return f"hf-hub:{path}"
    if not (place / CONFIG_FILE).is_file():
        raise ModelError(f"CLIP model {str(path)!r} has no {CONFIG_FILE}; open_clip's save_for_hf writes one")
    if not any(place.glob("*.safetensors")):
        raise ModelError(f"CLIP model {str(path)!r} has no weights in safetensors; convert them, pickles are not read")
    return f"local-dir:{place}"


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while some := list(itertools.islice(iterator, size)):
        yield some
