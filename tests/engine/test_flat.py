"""Separate rows, worked out by hand from the same batch of trees."""

from types import SimpleNamespace

import torch
from prompt_rows import Tree, ids

from mmalign.engine.families import FAMILIES, Family
from mmalign.engine.flat import flat_call
from mmalign.engine.tree import collate

CONFIG = SimpleNamespace(image_token_id=90)
TEXT = Family(name="llama")


def test_every_response_gets_a_row_with_its_prompt():
    trees = [
        Tree(prompt_ids=ids(1, 2, 3), response_ids=(ids(4, 5), ids(6))),
        Tree(prompt_ids=ids(7), response_ids=(ids(8, 9),)),
    ]
    call = flat_call(collate(trees, TEXT, pad_id=0), TEXT, CONFIG)
    assert call.inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    real = [row[: sum(mask)] for row, mask in zip(*_lists(call), strict=True)]
    assert real == [[1, 2, 3, 4, 5], [1, 2, 3, 6], [7, 8, 9]]


def test_the_token_before_predicts_and_missing_responses_have_no_row():
    trees = [
        Tree(prompt_ids=ids(1, 2), response_ids=(ids(3),)),
        Tree(prompt_ids=ids(4), response_ids=(ids(5, 6), ids(7))),
    ]
    call = flat_call(collate(trees, TEXT, pad_id=0), TEXT, CONFIG)
    assert call.rows.tolist() == [0, 1, 1, 2]
    assert call.columns.tolist() == [1, 0, 1, 0]


def test_media_are_repeated_for_each_response_of_their_row():
    trees = [
        Tree(prompt_ids=ids(90), response_ids=(ids(1), ids(2)), media={"pixel_values": torch.tensor([[1.0], [2.0]])}),
        Tree(prompt_ids=ids(3), response_ids=(ids(4),)),
        Tree(prompt_ids=ids(90), response_ids=(ids(5),), media={"pixel_values": torch.tensor([[3.0]])}),
    ]
    family = FAMILIES["internvl"]
    call = flat_call(collate(trees, family, pad_id=0), family, CONFIG)
    assert call.media["pixel_values"].flatten().tolist() == [1.0, 2.0, 1.0, 2.0, 3.0]


def test_token_types_are_the_familys_own():
    tree = Tree(prompt_ids=ids(90, 1), response_ids=(ids(2), ids(3, 4)))
    by_medium = flat_call(collate([tree], FAMILIES["gemma3"], 0), FAMILIES["gemma3"], CONFIG)
    assert by_medium.inputs["token_type_ids"].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    by_prompt = flat_call(collate([tree], FAMILIES["paligemma"], 0), FAMILIES["paligemma"], CONFIG)
    assert by_prompt.inputs["token_type_ids"].tolist() == [[0, 0, 1, 0], [0, 0, 1, 1]]
    rope = flat_call(collate([tree], FAMILIES["qwen2_vl"], 0), FAMILIES["qwen2_vl"], CONFIG)
    assert rope.inputs["mm_token_type_ids"].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]


def test_padding_is_never_a_media_placeholder():
    trees = [Tree(prompt_ids=ids(90, 1), response_ids=(ids(2), ids(3, 4)))]
    call = flat_call(collate(trees, TEXT, pad_id=90), TEXT, CONFIG)
    assert int((call.inputs["input_ids"] == 90).sum()) == 2


def _lists(call):
    return call.inputs["input_ids"].tolist(), call.inputs["attention_mask"].tolist()
