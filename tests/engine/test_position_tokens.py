"""Position tokens: whole for the tokenizer, kept in decoding, with rows that fit the embedding."""

import pytest
import torch
from transformers import AutoTokenizer

from mmalign.engine.load import load_model
from mmalign.engine.position_tokens import add_position_tokens, smooth_code
from mmalign.engine.tokenise import load_processor
from mmalign.errors import ConfigError, ModelError


@pytest.fixture(scope="module", params=["qwen2_5_vl", "gemma3", "llava"])
def grown(request, tiny_model):
    directory = tiny_model(request.param)
    model, processor = load_model(directory), load_processor(directory)
    before = model.get_input_embeddings().weight.detach().clone()
    was_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    ids = add_position_tokens(model, processor.tokenizer, 24, seed=1)
    return model, processor.tokenizer, ids, before, was_tied


def test_tokens_are_whole_and_survive_decoding(grown):
    _, tokenizer, ids, *_ = grown
    text = "<pos_3><pos_23><pos_0>"
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found == [ids[3], ids[23], ids[0]]
    assert tokenizer.decode(found, skip_special_tokens=True).replace(" ", "") == text


def test_rows_there_were_stay_and_new_ones_fit(grown):
    model, tokenizer, ids, before, _ = grown
    table = model.get_input_embeddings().weight.detach()
    assert len(table) >= len(tokenizer) and model.get_output_embeddings().weight.shape[0] == len(table)
    untouched = [row for row in range(len(before)) if row not in ids]
    assert torch.equal(table[untouched], before[untouched])
    # Of the old rows' size, and neighbours alike: unlike rows drawn one by one.
    new, old = table[ids], before[: ids[0]]
    assert new.std() == pytest.approx(float(old.std()), rel=0.25)
    away = new - new.mean(dim=0)
    alike = torch.cosine_similarity(away[:-1], away[1:])
    assert alike.mean() > 0.6
    assert torch.cosine_similarity(away[:12], away[12:]).mean() < 0.3


def test_tied_heads_stay_tied(grown):
    model, _, ids, _, was_tied = grown
    head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is table) == was_tied
    assert head[ids].std() > 0


def test_the_code_has_unit_size_on_average_and_changes_slowly():
    code = smooth_code(128)
    assert code.square().sum(dim=1).mean() == pytest.approx(1.0, abs=1e-4)
    assert (code[1:] - code[:-1]).norm(dim=1).max() < 0.25


def test_they_are_added_once(grown):
    model, tokenizer, *_ = grown
    with pytest.raises(ModelError, match="the tokenizer has 24 of 30 position tokens already, e.g. '<pos_0>'"):
        add_position_tokens(model, tokenizer, 30)
    with pytest.raises(ConfigError, match="a grid needs 2 to 10,000 bins"):
        add_position_tokens(model, tokenizer, 1)


def test_a_saved_model_has_them(grown, tmp_path):
    _, tokenizer, ids, *_ = grown
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("<pos_23>") == ids[23]
