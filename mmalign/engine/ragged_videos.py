"""Videos of different length in one batch, for a model whose code wants them equally long.

LLaVA-OneVision reads videos as [videos, frames, 3, H, W]. In a batch the shorter ones are filled up with frames of
NaN (`tree.collate_media`), which no real frame is, whatever its processor does. Their features must not take the place
of others: inside the block the frames that are real go through the model's own code as one long video, and its features
are dealt out to the videos again, each with the newline that the model puts behind a video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmalign.engine.families import family_of
from mmalign.engine.shortcuts import replaced


@contextmanager
def ragged_videos(inner: nn.Module) -> Iterator[None]:
    """Let `inner` read videos of different length inside the block; other families than `equal_videos` do already.

    Args:
        inner: the transformers model without its head.
    """
    concerned = family_of(inner.config).equal_videos
    with replaced(inner, "get_video_features", lambda own: _of_real_frames(inner, own)) if concerned else nullcontext():
        yield


def _of_real_frames(inner: nn.Module, own: Callable) -> Callable:
    def get_video_features(pixel_values_videos: Tensor, **how: Any) -> Any:
        real = ~pixel_values_videos[:, :, 0, 0, 0].isnan()
        if real.all():
            return own(pixel_values_videos, **how)
        output = own(pixel_values_videos[real][None], **how)
        output.pooler_output = _dealt_out(output.pooler_output[0], real.sum(1).tolist(), inner.image_newline)[None]
        return output

    return get_video_features


def _dealt_out(features: Tensor, frames: list[int], newline: Tensor) -> Tensor:
    """Return the features of one long video [tokens, D] with a newline behind the frames of each video.

    The last newline is the model's own: transformers before 5.23 puts it there after this call, later ones before.
    """
    shown = len(features) // sum(frames) * sum(frames)
    videos = features[:shown].split([shown // sum(frames) * number for number in frames])
    pieces = [piece for video in videos for piece in (video, newline[None].to(video))]
    return torch.cat([*pieces[:-1], features[shown:]])
