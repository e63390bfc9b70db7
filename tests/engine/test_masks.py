"""The attention rule of a tree, cell by cell."""

from types import SimpleNamespace

import pytest
import torch
from prompt_rows import Tree, ids

from mmalign.engine.families import Family
from mmalign.engine.masks import token_types, tree_attention_mask, tree_positions
from mmalign.engine.tree import collate

IMAGE, VIDEO = 90, 91


class Config(SimpleNamespace):
    """A transformers config, as far as masks read one."""

    def get_text_config(self):
        return self.text


def config_of(model_type="llama", **text):
    return Config(text=SimpleNamespace(model_type=model_type, **text), image_token_id=IMAGE, video_token_id=VIDEO)


def picture(mask: torch.Tensor) -> list[str]:
    """Draw a mask [T, T]: one string a query, x where it sees the key."""
    return ["".join("x" if cell else "." for cell in row) for row in mask.tolist()]


def mask_of(trees, family, config, **options):
    batch = collate(trees, family, pad_id=0)
    return tree_attention_mask(batch, family, config, **{"additive_dtype": None, **options})


ROW = Tree(prompt_ids=ids(1, 2, 3), response_ids=(ids(4, 5), ids(6, 7)))
SHORT = Tree(prompt_ids=ids(1, 2), response_ids=(ids(4),))


def test_a_response_sees_the_prompt_and_itself():
    mask = mask_of([ROW], Family(name="llama"), config_of())
    assert picture(mask[0, 0]) == [
        "x......",
        "xx.....",
        "xxx....",
        "xxxx...",
        "xxxxx..",
        "xxx..x.",
        "xxx..xx",
    ]


def test_padding_is_seen_by_nobody_but_itself():
    mask = mask_of([ROW, SHORT], Family(name="llama"), config_of())
    assert picture(mask[1, 0])[:3] == ["x......", "xx.....", "xxx...."]
    assert picture(mask[1, 0, :, 3:]) == ["...."] * 3 + ["x...", ".x..", "..x.", "...x"]


def test_a_window_counts_in_the_stand_alone_sequence_not_in_columns():
    mask = mask_of([ROW], Family(name="mistral"), config_of("mistral", sliding_window=3))
    assert picture(mask[0, 0]) == [
        "x......",
        "xx.....",
        "xxx....",
        ".xxx...",
        "..xxx..",
        ".xx..x.",
        "..x..xx",
    ]


def test_models_with_two_kinds_of_layers_get_two_masks():
    config = config_of("qwen2", sliding_window=2, layer_types=["full_attention", "sliding_attention"])
    masks = mask_of([ROW], Family(name="qwen2"), config)
    assert picture(masks["full_attention"][0, 0])[4] == "xxxxx.."
    assert picture(masks["sliding_attention"][0, 0])[4] == "...xx.."


def test_a_window_wider_than_the_row_shares_the_full_mask():
    config = config_of("qwen2", sliding_window=5, layer_types=["full_attention", "sliding_attention"])
    masks = mask_of([ROW], Family(name="qwen2"), config)
    assert masks["full_attention"] is masks["sliding_attention"]


def test_an_image_sees_all_of_itself_but_not_the_next_image():
    tree = Tree(prompt_ids=ids(IMAGE, IMAGE, 5, IMAGE, IMAGE), response_ids=(ids(6),))
    family = Family(name="gemma3", bidirectional="images")
    mask = mask_of([tree], family, config_of())
    assert picture(mask[0, 0]) == ["xx....", "xx....", "xxx...", "xxxxx.", "xxxxx.", "xxxxxx"]


def test_a_prompt_may_see_all_of_itself():
    mask = mask_of([ROW], Family(name="paligemma", bidirectional="prompt"), config_of("gemma"))
    assert picture(mask[0, 0])[:4] == ["xxx....", "xxx....", "xxx....", "xxxx..."]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_additive_mask_is_zero_or_the_least_number_of_its_type(dtype):
    family, config = Family(name="llama"), config_of()
    seen = mask_of([ROW, SHORT], family, config)
    added = mask_of([ROW, SHORT], family, config, additive_dtype=dtype)
    assert added.dtype == dtype
    assert torch.equal(added == 0, seen)
    assert added[~seen].unique().tolist() == [torch.finfo(dtype).min]


def test_token_types_mark_media_of_the_prompt_only():
    tree = Tree(prompt_ids=ids(IMAGE, 5, VIDEO), response_ids=(ids(IMAGE, 6),))
    batch = collate([tree], Family(name="llama"), pad_id=IMAGE)
    assert token_types(batch, config_of()).tolist() == [[1, 0, 2, 0, 0]]


def test_every_response_counts_on_from_the_prompt():
    batch = collate([ROW, SHORT], Family(name="llama"), pad_id=0)
    assert tree_positions(batch, Family(name="llama"), None).tolist()[0] == [0, 1, 2, 3, 4, 3, 4]
    one_based = Family(name="paligemma", positions="from_one")
    assert tree_positions(batch, one_based, None).tolist()[0] == [1, 2, 3, 4, 5, 4, 5]


class MropeModel:
    """A model whose rope index puts an image of 4 tokens on a 2 x 2 square."""

    config = config_of()

    def get_rope_index(self, *, input_ids, mm_token_type_ids, attention_mask, image_grid_thw):
        assert mm_token_type_ids.tolist() == [[0, 1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0]]
        assert attention_mask.tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
        rows = [
            [[0, 1, 1, 8, 8, 3, 4], [0, 1, 1, 2, 2, 3, 4], [0, 1, 2, 1, 2, 3, 4]],
            [[0, 1, 2, 9, 9, 9, 9]] * 3,
        ]
        return torch.tensor(rows).transpose(0, 1), None


def test_mrope_counts_on_where_the_model_puts_the_next_token_whatever_the_largest_position_is():
    family = Family(name="qwen2_vl", positions="mrope", media_inputs=("image_grid_thw",))
    with_image = Tree(
        prompt_ids=ids(5, IMAGE, IMAGE, IMAGE, IMAGE, 6),
        response_ids=(ids(7, 8), ids(9)),
        media={"image_grid_thw": torch.tensor([[1, 4, 4]])},
    )
    batch = collate([with_image, SHORT], family, pad_id=0)
    positions = tree_positions(batch, family, MropeModel())
    assert positions[:, 0].tolist() == [
        [0, 1, 1, 8, 8, 3, 4, 5, 4],
        [0, 1, 1, 2, 2, 3, 4, 5, 4],
        [0, 1, 2, 1, 2, 3, 4, 5, 4],
    ]
    assert positions[:, 1].tolist() == [[0, 1, 2, 0, 0, 0, 0, 0, 0]] * 3


def test_mrope_without_media_is_the_plain_count_on_three_axes():
    family = Family(name="qwen2_vl", positions="mrope")
    batch = collate([SHORT], family, pad_id=0)
    assert tree_positions(batch, family, None).tolist() == [[[0, 1, 2]]] * 3
