"""Rows that are too long: media shrink, leading turns go, and what still does not fit is refused; nothing is cut."""

import time

import pytest
from pictures import encoded, noise

from mmalign.engine.truncate import Fitter, TreeLengths, without_turns_before
from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response


def row(*turns: Message, media=(), responses=("yes", "not at all")) -> Preference:
    return Preference(id="row", prompt=turns, media=tuple(media), responses=tuple(map(Response.of, responses)))


def picture(name: str) -> MediaRef:
    return MediaRef(kind="image", uri=name)


# A world in which a letter is a token, a picture of A pixels is A / 100 tokens, and nothing else counts.


def measure(preference: Preference, max_pixels: int | None) -> TreeLengths:
    areas = [int(ref.uri) for ref in preference.media]
    media_tokens = sum(min(area, max_pixels or area) // 100 for area in areas)
    return TreeLengths(
        prompt_tokens=sum(len(message.text) for message in preference.prompt) + media_tokens,
        response_tokens=tuple(len(response.text) for response in preference.responses),
        media_tokens=media_tokens,
        max_pixels=max_pixels,
    )


def fit(preference: Preference, max_length: int, smallest_pixels: int = 1):
    fitter = Fitter(
        max_length=max_length,
        make_draft=lambda record: record,
        measure=measure,
        largest_pixels=lambda record: max((int(ref.uri) for ref in record.media), default=0),
        smallest_pixels=smallest_pixels,
    )
    return fitter(preference, preference)


CHAT = row(
    Message.of("system", "s" * 5),
    Message.of("user", "a" * 20, 0),
    Message.of("assistant", "b" * 20),
    Message.of("user", "c" * 20),
    Message.of("assistant", "d" * 20),
    Message.of("user", "e" * 10, 1),
    media=[picture("1600"), picture("3200")],
)


def test_the_bound_is_on_the_longest_branch_not_on_the_tree():
    lengths = measure(CHAT, None)
    assert lengths.prompt_tokens == 5 + 20 + 16 + 20 + 20 + 20 + 10 + 32
    assert (lengths.longest_branch, lengths.tree_tokens) == (143 + 10, 143 + 13)
    fitted = fit(CHAT, 153)
    assert fitted.draft is CHAT
    assert fitted.lengths.actions == ()


def test_media_shrink_first_and_as_little_as_it_takes():
    fitted = fit(CHAT, 150)
    # 3200 * 2 ** -0.25 = 2690: 26 tokens instead of 32.
    assert fitted.draft is CHAT
    assert (fitted.lengths.max_pixels, fitted.lengths.media_tokens) == (2690, 16 + 26)
    assert fitted.lengths.actions == ("media shrunk",)


def test_turns_go_when_smaller_media_do_not_suffice():
    # Media at a sixteenth: 200 pixels, 2 + 2 tokens; 95 + 4 + 10 = 109 at the least with all turns.
    assert fit(CHAT, 109).draft is CHAT
    fitted = fit(CHAT, 108)
    assert [message.role for message in fitted.draft.prompt] == ["system", "user", "assistant", "user"]
    assert [message.text[0] for message in fitted.draft.prompt] == ["s", "c", "d", "e"]
    # The first picture goes with its turn, and the second needs no shrinking any more: 5 + 20 + 20 + 10 + 32 + 10 = 97.
    assert fitted.draft.media == (picture("3200"),)
    assert fitted.draft.prompt[-1].media_indices == (0,)
    assert (fitted.lengths.longest_branch, fitted.lengths.turns_dropped) == (97, 2)
    assert fitted.lengths.actions == ("turns dropped",)


def test_both_can_be_needed():
    fitted = fit(CHAT, 40)
    assert [message.text[0] for message in fitted.draft.prompt] == ["s", "e"]
    # 5 + 10 + 10 leave 15 tokens for media: 3200 * 2 ** (-5 / 4) = 1345 pixels are the first that take no more.
    assert (fitted.lengths.turns_dropped, fitted.lengths.max_pixels) == (4, 1345)
    assert fitted.lengths.actions == ("media shrunk", "turns dropped")


def test_system_and_last_user_turn_never_go():
    with pytest.raises(RowError, match=r"row is longer than max_length \(got 27\); data.max_length is 26 .*raise it"):
        fit(CHAT, 26)
    fit(CHAT, 27)


def test_media_do_not_shrink_below_their_smallest():
    with pytest.raises(RowError, match="row is longer than max_length"):
        fit(CHAT, 40, smallest_pixels=1600)
    assert fit(CHAT, 50, smallest_pixels=1600).lengths.max_pixels == 2262


def test_a_row_of_one_turn_or_one_role_is_refused_when_it_does_not_fit():
    for preference in (row(Message.of("user", "x" * 50)), row(Message.of("assistant", "x" * 50))):
        with pytest.raises(RowError, match=r"row is longer than max_length \(got 60\)"):
            fit(preference, 59)


def test_an_answer_to_go_on_with_stays():
    preference = row(
        Message.of("user", "u" * 30),
        Message.of("assistant", "v" * 30),
        Message.of("user", "w"),
        Message.of("assistant", "x"),
    )
    assert [m.text for m in fit(preference, 12).draft.prompt] == ["w", "x"]


def test_system_turns_in_the_middle_stay():
    preference = row(Message.of("user", "u"), Message.of("system", "s"), Message.of("user", "v"))
    assert [m.text for m in without_turns_before(preference, 2).prompt] == ["s", "v"]


def test_ten_thousand_turns_take_few_measurements():
    turns = [Message.of("user" if i % 2 == 0 else "assistant", "x" * 10) for i in range(10_001)]
    preference, calls = row(*turns), []

    def counted(record, max_pixels):
        calls.append(1)
        return measure(record, max_pixels)

    fitter = Fitter(max_length=100, make_draft=lambda r: r, measure=counted, largest_pixels=lambda record: 0)
    fitted = fitter(preference, preference)
    assert len(fitted.draft.prompt) == 9 and fitted.draft.prompt[0].role == "user"
    assert fitted.lengths.turns_dropped == 9_992
    assert len(calls) < 40


# With real processors.


def drawn(width: int, height: int, seed: int) -> MediaRef:
    return MediaRef(kind="image", content=encoded(noise(width, height, seed)))


LONG = row(
    Message.of("system", "Be terse."),
    Message.of("user", "first " * 20, 0),
    Message.of("assistant", "answer " * 20),
    Message.of("user", 1, "now?"),
    media=[drawn(280, 280, 0), drawn(448, 336, 1)],
)


@pytest.mark.parametrize(
    "name", ["qwen2_vl", "qwen3_vl", "llava", "llava_next", "llava_onevision", "idefics3", "internvl"]
)
def test_any_bound_gives_a_whole_row_or_a_refusal(tokeniser, name):
    free = tokeniser(name).lengths(LONG)
    refused = 0
    for max_length in range(10, free.longest_branch + 20, max(1, free.longest_branch // 12)):
        made = tokeniser(name, max_length=max_length)
        try:
            lengths = made.lengths(LONG)
        except RowError as error:
            refused += "row is longer than max_length" in str(error)
            continue
        tree = made(LONG)
        assert lengths.longest_branch <= max_length
        assert lengths.prompt_tokens == len(tree.prompt_ids)
        assert lengths.response_tokens == free.response_tokens
        soft_id = made.tokenizer.convert_tokens_to_ids(made.processor.image_token)
        assert int((tree.prompt_ids == soft_id).sum()) == lengths.media_tokens
        text = made.tokenizer.decode(tree.prompt_ids)
        assert "now?" in text and "Be terse." in text
    assert 0 < refused < 13


def test_qwen_media_shrink_inside_the_processor(tokeniser):
    free = tokeniser("qwen2_vl").lengths(LONG)
    # 280 x 280 and 448 x 336 in squares of 28: 100 and 192 tokens.
    assert free.media_tokens == 292
    made = tokeniser("qwen2_vl", max_length=free.longest_branch - 60)
    lengths, tree = made.lengths(LONG), made(LONG)
    assert lengths.actions == ("media shrunk",)
    grid = tree.media["image_grid_thw"]
    # At 150,528 * 2 ** (-1 / 4) pixels the larger one has 14 x 11 squares, 38 fewer; a step on, 13 x 10, 62 fewer.
    assert int(grid.prod(1).sum()) // 4 == lengths.media_tokens == free.media_tokens - 62
    assert tree.media_key != tokeniser("qwen2_vl")(LONG).media_key


def test_llava_media_have_one_size_so_turns_go(tokeniser):
    free = tokeniser("llava").lengths(LONG)
    lengths = tokeniser("llava", max_length=free.longest_branch - 1).lengths(LONG)
    assert lengths.actions == ("turns dropped",)
    assert (lengths.turns_dropped, lengths.media_tokens) == (2, free.media_tokens // 2)


def test_ten_thousand_turns_are_fitted_quickly(tokeniser):
    turns = [Message.of("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(10_001)]
    made = tokeniser("qwen2", max_length=200)
    started = time.perf_counter()
    tree = made(row(*turns))
    assert time.perf_counter() - started < 20
    assert len(tree.prompt_ids) <= 200
    assert "turn 10000<|im_end|>" in made.tokenizer.decode(tree.prompt_ids)
