"""A prompt without its earlier turns, and what they add to the logits."""

from __future__ import annotations

import pytest
import torch
from prompt_rows import Tree, every_distribution, ids
from test_policy import gpt_neox
from test_tree_backbones import VOCABULARY, tiny

from mmalign.engine.families import family_of
from mmalign.engine.policy import Policy
from mmalign.engine.token_terms import LogitGain
from mmalign.engine.tree import collate
from mmalign.engine.views import without_history
from mmalign.errors import ModelError, RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response

VIEW = without_history()


def row(*prompt, media=()):
    return Preference(id="r", prompt=prompt, media=media, responses=(Response.of("yes"),))


def test_system_messages_and_the_last_turn_stay_with_their_media():
    first, second = (MediaRef(kind="image", uri=name) for name in ("first.png", "second.png"))
    system = Message.of("system", "Be brief.")
    turns = [Message.of("user", 0, "What is it?"), Message.of("assistant", "A cat."), Message.of("user", "And", 1, "?")]
    seen = VIEW.row(row(system, *turns, media=(first, second)))
    assert seen.prompt == (system, Message.of("user", "And", 0, "?"))
    assert seen.media == (second,)
    assert not VIEW.keeps_shape


def test_a_prompt_of_one_turn_has_no_history_and_is_refused():
    with pytest.raises(RowError, match="prompt has no turn before the last") as raised:
        VIEW.row(row(Message.of("system", "Be brief."), Message.of("user", "Is it?")))
    assert "or train on such rows with sft" in str(raised.value)


def two_rows():
    """A row of two answers, and the same answers after the end of its prompt."""
    answers = (ids(5, 9, 2), ids(7, 2))
    return [
        Tree(id="r", prompt_ids=ids(3, 8, 6, 4), response_ids=answers),
        Tree(prompt_ids=ids(6, 4), response_ids=answers),
    ]


@pytest.mark.parametrize("make", [lambda: tiny("llama"), gpt_neox], ids=["known", "outside the tables"])
def test_what_history_adds_is_the_difference_of_all_logits(make):
    model = make()
    trees = two_rows()
    batch = collate(trees, family_of(model.config), pad_id=1, views=(VIEW,))
    _, found = Policy(model)(batch, also=(LogitGain(VIEW.name),))
    distributions = list(every_distribution(model, trees))
    expected = torch.zeros(2, 2, 3)
    for k in (0, 1):
        (_, _, answer, whole), (*_, bare) = distributions[k], distributions[2 + k]
        gain = (whole - bare).log_softmax(-1)  # what normalises either side is one number a token, and cancels
        expected[0, k, : len(answer)] = gain.gather(1, answer[:, None]).squeeze(1)
    torch.testing.assert_close(found["gained_logps"], expected, rtol=1e-4, atol=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = (
        torch.autograd.grad(v.sum(), parameters, allow_unused=True) for v in (found["gained_logps"], expected)
    )
    for got, wanted in zip(ours, theirs, strict=True):
        if wanted is not None:
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5 * max(1.0, float(wanted.abs().max())))


def test_a_model_that_caps_its_logits_is_refused_in_words():
    model = tiny("gemma2")
    batch = collate(two_rows(), family_of(model.config), pad_id=1, views=(VIEW,))
    assert VOCABULARY > 9
    with pytest.raises(ModelError, match="caps its logits.*history_weight: 0"):
        Policy(model)(batch, also=(LogitGain(VIEW.name),))
