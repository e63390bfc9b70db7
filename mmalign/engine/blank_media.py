"""A blank image for batches without media, so that in distributed training every rank runs the vision side.

A rank that leaves the vision tower out makes the others wait forever: FSDP and ZeRO gather its weights together, DDP
waits for its gradients. The features of a blank image enter the loss with weight zero.

One run of the tower is enough for DDP, whether it sees an image or a video. Where weights are gathered for every run,
ranks must run it equally often: a family that looks at images and at videos one after the other does so twice on a rank
that has both, so every rank does. The blank images of one forward differ, and from every picture: a tower that repeats
what it said (`vision_memo.py`) must not take one for the other and run once where other ranks run it twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mmalign.engine.families import Family

_DARKEST = -4.0
"""Darker than any pixel: black is about -2.2 after the normalisation of CLIP or ImageNet, and 0 without."""


def calls_left_out(media: Mapping[str, Tensor], family: Family, base: nn.Module) -> int:
    """Return how many blank images a rank looks at beside these media."""
    if not family.has_vision:
        return 0
    calls = sum(name in media for name in ("pixel_values", "pixel_values_videos"))
    is_gathered = any(isinstance(weight, DTensor) or hasattr(weight, "ds_id") for weight in base.parameters())
    return max(0, (2 if family.videos == "apart" and is_gathered else 1) - calls)


def blank_features(inner: nn.Module, family: Family, number: int = 0) -> Tensor:
    """Run the vision side on the smallest blank image; return the mean of its features, a scalar with a gradient.

    Args:
        number: which of the blank images of one forward it is.
    """
    output = inner.get_image_features(**blank_image(inner, family, number))
    features = output if isinstance(output, (Tensor, list, tuple)) else output.pooler_output
    between_layers = getattr(output, "deepstack_features", None)
    return torch.stack([entry.float().mean() for entry in _tensors([features, between_layers])]).mean()


def blank_image(inner: nn.Module, family: Family, number: int = 0) -> dict[str, Tensor]:
    """Return the processor outputs of one blank image in the form the family takes; its number decides its colour."""
    vision, colour = inner.config.vision_config, _DARKEST - number
    options = {"device": inner.device, "dtype": inner.dtype}
    if family.positions == "mrope":
        side = vision.spatial_merge_size
        channels = getattr(vision, "in_channels", None) or getattr(vision, "in_chans", 3)
        values = channels * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, side, side]], device=inner.device)
        return {"pixel_values": torch.full((side * side, values), colour, **options), "image_grid_thw": grid}
    size = vision.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    pixels = torch.full((1, 3, height, width), colour, **options)
    if family.media_per_row:
        return {"pixel_values": pixels[None]}
    sizes = torch.tensor([[height, width]], device=inner.device)
    if "model.image_newline" in family.projector:
        return {"pixel_values": _patches(pixels, inner, sizes), "image_sizes": sizes}
    return {"pixel_values": pixels} | ({"image_sizes": sizes} if vision.model_type == "pixtral" else {})


def _patches(pixels: Tensor, inner: nn.Module, sizes: Tensor) -> Tensor:
    """Return as many blank patches as an image of this size is cut into, [1, patches, 3, H, W]."""
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    count = image_size_to_num_patches(sizes[0], inner.config.image_grid_pinpoints, pixels.shape[-1])
    return pixels[:, None].expand(1, count, *pixels.shape[1:])


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a nest of lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    else:
        for entry in value or ():
            yield from _tensors(entry)
