"""Rendering: what the chat template says is what is trained, and what it cannot say is refused."""

import logging
import pickle

import pytest
from token_rows import NO_IMAGE, ONE_IMAGE, png, row

from mmalign.engine.families import families_with_videos
from mmalign.engine.tokenise import Tokeniser
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Response
from mmalign.miniature import models


def with_template(made: Tokeniser, template: str) -> Tokeniser:
    processor = pickle.loads(pickle.dumps(made.processor))
    processor.chat_template = template
    return Tokeniser(processor, made.family, made.limits)


@pytest.mark.parametrize(
    ("preference", "message"),
    [
        (row(Message.of("user", "see <|image_pad|>")), r"prompt: text holds a media token of the model .*image_pad"),
        (row(Message.of("user", "?"), responses=("<|video_pad|>",)), r"responses\[0\]: text holds a media token"),
        (row(Message.of("user", "\ud83d")), "prompt: text is not valid Unicode"),
        (row(Message.of("user", "?"), responses=("ok", "\udc00")), r"responses\[1\]: text is not valid Unicode"),
        (
            row(Message.of("user", "x" * 1_000_000), responses=("y" * 1_000_000, "z")),
            r"row has too much text \(got 2000001\); at most 2,000,000 characters are tokenised",
        ),
        (row(Message.of("user", "?"), Message.of("system", "!")), "prompt ends with a system turn"),
        (row(Message.of("user", 0), media=[MediaRef(kind="image", uri="no.png")]), r"images\[0\]: image is missing"),
        (row(Message.of("user", 0), media=[MediaRef(kind="video", uri="a.mp4")]), r"videos\[0\]: video is missing"),
        (
            row(Message.of("user", 0), media=[png(9, 9)], responses=(Response.of("x", media=(png(8, 8),)),)),
            "responses with media of their own cannot share one prompt",
        ),
        (
            row(Message.of("user", "?"), responses=(Response(messages=(Message.of("assistant", 0),)),)),
            r"responses\[0\]: media can stand in the prompt only",
        ),
    ],
)
def test_rows_that_cannot_be_tokenised_are_refused(tokeniser, preference, message):
    for verb in (tokeniser("qwen2_vl"), tokeniser("qwen2_vl").lengths):
        with pytest.raises(RowError, match=message):
            verb(preference)


def test_a_text_model_refuses_images_in_words(tokeniser):
    with pytest.raises(
        RowError,
        match=r"images\[0\]: model reads text only, but the row has images \(got '<\d+ bytes>'\); use a vision-",
    ):
        tokeniser("llama").lengths(ONE_IMAGE)


@pytest.mark.parametrize("name", [name for name in models.FAMILIES if name not in families_with_videos()])
def test_a_model_without_videos_refuses_them_with_the_way_out(tokeniser, name):
    video = row(Message.of("user", "?", 0), media=[MediaRef(kind="video", uri="a.mp4")])
    text_only = name in models.TEXT_FAMILIES
    reason = "model reads text only, but the row has videos" if text_only else "model reads no videos"
    way_out = "use a vision-language model" if text_only else r"family that does \(qwen2_vl, .*\), or give some frames"
    for verb in (tokeniser(name), tokeniser(name).lengths):
        with pytest.raises(RowError, match=rf"videos\[0\]: {reason} \(got 'a.mp4'\); .*{way_out}") as refusal:
            verb(video)
        assert refusal.value.reason == reason


def test_a_template_that_raises_is_a_refusal(tokeniser):
    made = with_template(tokeniser("qwen2_vl"), "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RowError, match=r"chat template refuses the conversation .*roles must alternate"):
        made.lengths(NO_IMAGE)


def test_a_template_that_drops_images_is_a_refusal(tokeniser):
    made = with_template(tokeniser("qwen2_vl"), "{% for m in messages %}{{ m.role }} {% endfor %}")
    with pytest.raises(RowError, match=r"chat template puts 0 image\(s\) into the part that all responses share"):
        made.lengths(ONE_IMAGE)


def test_what_renderings_share_is_the_prompt_even_if_the_generation_prompt_says_more(tokeniser):
    thinking = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content[0].text }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]<think>{% endif %}"
    )
    tree = (made := with_template(tokeniser("qwen2_vl"), thinking))(NO_IMAGE)
    assert made.tokenizer.decode(tree.prompt_ids) == "[user]Who are you?[assistant]"
    assert made.tokenizer.decode(tree.response_ids[0]) == "A cat."


def test_a_template_without_end_of_turn_is_said_once_and_not_mended(tokeniser, caplog):
    open_ended = "{% for m in messages %}{{ m.role }}: {{ m.content[0].text }} {% endfor %}"
    with caplog.at_level(logging.WARNING, logger="mmalign"):
        made = with_template(tokeniser("qwen2_vl"), open_ended)
    assert "puts no end of turn after an answer" in caplog.text
    assert not made.ends_turn
    assert made.tokenizer.decode(made(NO_IMAGE).response_ids[0]).rstrip().endswith("A cat.")
    assert tokeniser("qwen2_vl").ends_turn


def test_a_base_model_reads_one_plain_turn(tokeniser):
    made = pickle.loads(pickle.dumps(tokeniser("llama")))
    made.tokenizer.chat_template = None
    made = Tokeniser(made.tokenizer, made.family, made.limits)
    tree = made(row(Message.of("user", "Once upon"), responses=(" a time", " a cat")))
    begin = [made.tokenizer.bos_token_id] if made.tokenizer("a")["input_ids"][0] == made.tokenizer.bos_token_id else []
    assert tree.prompt_ids.tolist() == begin + made.tokenizer("Once upon", add_special_tokens=False)["input_ids"]
    assert made.tokenizer.decode(tree.response_ids[0]) == " a time" + made.tokenizer.eos_token
    with pytest.raises(RowError, match="model has no chat template for several turns .*'system', 'user'"):
        made(row(Message.of("system", "Be."), Message.of("user", "Hm?")))
