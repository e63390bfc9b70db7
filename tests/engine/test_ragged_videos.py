"""Videos of different length together: what each of them gives alone."""

import torch

from mmalign.engine.families import FAMILIES
from mmalign.engine.load import load_model
from mmalign.engine.ragged_videos import ragged_videos
from mmalign.engine.tree import collate_media


def test_black_frames_of_a_processor_that_does_not_normalise_are_frames(tiny_model):
    """They are all zeros, as a filling of zeros would be: two videos together give what each gives alone."""
    inner = load_model(tiny_model("llava_onevision")).base_model
    family = FAMILIES["llava_onevision"]
    torch.manual_seed(0)
    side = inner.config.vision_config.image_size
    short, longer = torch.rand(1, 2, 3, side, side), torch.rand(1, 4, 3, side, side)
    longer[0, 1:3], short[0, 1] = 0.0, 0.0
    batch, _ = collate_media([{"pixel_values_videos": short}, {"pixel_values_videos": longer}], family)
    with torch.no_grad():
        alone = [inner.get_video_features(pixels).pooler_output[0] for pixels in (short, longer)]
        with ragged_videos(inner):
            together = inner.get_video_features(batch["pixel_values_videos"]).pooler_output[0]
    newline = inner.image_newline[None]
    ends = len(alone[0]) % 2 == 1  # transformers before 5.23 puts the newline behind a video itself
    expected = [alone[0], alone[1]] if ends else [alone[0], newline, alone[1]]
    torch.testing.assert_close(together, torch.cat(expected))
