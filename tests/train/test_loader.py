"""Trees that stay in memory between epochs are counted with everything they hold."""

import torch

from mmalign.engine.tokenise import PromptTree
from mmalign.train.loader import KeptTrees

FRAMES_BYTES = 4 * 3 * 8 * 8 * 4  # four frames of 3 x 8 x 8 numbers of four bytes


def tree_with_video() -> PromptTree:
    return PromptTree(
        id="row",
        prompt_ids=torch.tensor([1, 2]),
        response_ids=(torch.tensor([3]),),
        levels=(0,),
        media={"pixel_values_videos": torch.zeros(4, 3, 8, 8)},
    )


def test_frames_of_videos_count_against_the_memory_bound():
    for spare, is_kept in [(3 * 8, True), (3 * 8 - 1, False)]:
        kept = KeptTrees(FRAMES_BYTES + spare)
        kept.put(0, [tree_with_video()])
        assert (kept.get(0) is not None) == is_kept


def test_the_first_to_come_stay_and_the_next_is_read_again():
    kept = KeptTrees(FRAMES_BYTES + 100)
    kept.put(0, [tree_with_video()])
    kept.put(1, [tree_with_video()])
    assert kept.get(0) is not None and kept.get(1) is None
