"""A teacher's likeliest tokens: what is found is what it says, and what is written is read."""

from __future__ import annotations

import pytest
import torch
from prompt_rows import every_distribution, rows_of
from test_reference import policy_and_batch

from mmalign.engine.teacher_table import LikeliestTokens, TeacherTable
from mmalign.errors import CheckpointError
from mmalign.recipes.teaching import likeliest_tokens


def open_table(directory, batch, *, top_k=5, contrasted=True):
    rows = [(i, [n for n in r if n]) for i, r in zip(batch.ids, batch.response_lengths.tolist(), strict=True)]
    return TeacherTable.open(directory, rows=rows, made_with={"teacher": "t"}, top_k=top_k, contrasted=contrasted)


def test_what_the_table_holds_is_what_the_teacher_says(tiny_model):
    teacher, batch = policy_and_batch(tiny_model("qwen2_5_vl", seed=1))
    contrast, _ = policy_and_batch(tiny_model("qwen2_5_vl", seed=2))
    found = likeliest_tokens(teacher, contrast, batch, top_k=5, vocabulary=400)
    trees = rows_of(tiny_model("qwen2_5_vl"), teacher.base.config)
    sides = zip(every_distribution(teacher.base, trees), every_distribution(contrast.base, trees), strict=True)
    for (b, k, response, logps), (*_, others) in sides:
        ids = logps[:, :400].topk(5).indices
        assert torch.equal(found.ids[b, k, : len(response)], ids)
        for got, side in ((found.teacher, logps), (found.contrast, others)):
            chosen = side.gather(1, ids)
            expected = torch.cat([chosen, (1 - chosen.exp().sum(1, keepdim=True)).log()], 1)
            torch.testing.assert_close(got[b, k, : len(response)], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("top_k", [1, 5])
def test_what_is_written_is_read(tiny_model, tmp_path, top_k):
    teacher, batch = policy_and_batch(tiny_model("llama"))
    found = likeliest_tokens(teacher, teacher, batch, top_k=top_k, vocabulary=400)
    table = open_table(tmp_path / "table", batch, top_k=top_k)
    with pytest.raises(CheckpointError, match="teacher table .* has no log-probs of row 'row 0' yet"):
        table.read(batch)
    table.write(batch, found)
    read = table.read(batch)
    for got, expected in zip((read.ids, read.teacher, read.contrast), vars(found).values(), strict=True):
        assert torch.equal(got, expected)


def test_a_table_without_a_contrast_model_has_none(tiny_model, tmp_path):
    teacher, batch = policy_and_batch(tiny_model("llama"))
    table = open_table(tmp_path / "table", batch, contrasted=False)
    table.write(batch, likeliest_tokens(teacher, None, batch, top_k=5, vocabulary=400))
    assert table.read(batch).contrast is None
    assert table.blank(batch).contrast is None


def test_a_filler_gets_different_tokens_of_the_right_shape(tiny_model, tmp_path):
    _, batch = policy_and_batch(tiny_model("llama"))
    blank = open_table(tmp_path / "table", batch).blank(batch)
    assert isinstance(blank, LikeliestTokens)
    assert blank.ids.shape == (*batch.response_mask.shape, 5)
    assert blank.ids[0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert blank.teacher.shape == blank.contrast.shape == (*batch.response_mask.shape, 6)


def test_a_table_of_another_size_is_stale(tiny_model, tmp_path):
    _, batch = policy_and_batch(tiny_model("llama"))
    open_table(tmp_path / "table", batch)
    with pytest.raises(CheckpointError, match=r"what changed is top_k \(then 5, now 6\)"):
        open_table(tmp_path / "table", batch, top_k=6)
