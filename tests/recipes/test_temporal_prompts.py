"""What is kept of a model's answers about clips, and which pairs are kept."""

from __future__ import annotations

import pytest

from mmalign.recipes.temporal_pairs import why_not
from mmalign.recipes.temporal_prompts import REQUESTS, after_thinking, caption_in, of_captions, request_of


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A man.\nHe goes on.\nCaption: A man sits.", "A man sits."),
        ('A man.\n\n**Caption:** "A man sits."\n\n', "A man sits."),
        ("x\nDetailed caption of video clip 2: Rain, then.", "Rain, then."),
        ("x\nUnlike Video clip 1, video clip 2 is dark.", "Unlike the previous clip, this video clip is dark."),
        ("<think>Caption: no</think>Rain falls.", "Rain falls."),
        ("He said: caption this!", "He said: caption this!"),
        ("A.\nCaption:", ""),
    ],
)
def test_of_a_later_clip_the_last_line_is_kept_without_its_label(answer, caption):
    assert caption_in(answer, is_first=False) == caption


def test_of_the_first_clip_the_whole_answer_is_kept_as_one_line():
    assert caption_in("A man.\n\nHe  sits.", is_first=True) == "A man. He sits."


def test_captions_are_numbered_anew_in_the_order_in_which_they_are_told():
    asked = of_captions("a", ["rain", "sun"]).prompt[0].text
    assert asked.endswith("\n- Caption 1: rain\n- Caption 2: sun")


def test_a_request_belongs_to_a_video():
    drawn = [request_of(f"{number}.mp4", 0) for number in range(60)]
    assert set(drawn) == set(REQUESTS) and drawn[0] == request_of("0.mp4", 0)
    assert after_thinking("thoughts</think>\n text ") == "text"


@pytest.mark.parametrize(
    ("true", "wrong", "how", "why"),
    [
        ("abcd", "abc", "drop", None),
        ("abcd", "wxyz", "drop", "the wrong telling is as long though it lacks something"),
        ("abcd", "wxyz", "reverse", None),
        ("abcd", "x abcd y", "drop", "the wrong telling holds the true one"),
        ("abcd", "wxyzab", "shuffle", None),
        ("abcd", "wxyzabc", "shuffle", "the tellings differ too much in length"),
        ("abcdefg", "wxyz", "reverse", "the tellings differ too much in length"),
    ],
)
def test_pairs_that_differ_in_other_ways_are_left_out(true, wrong, how, why):
    assert why_not(true, wrong, how, 1.5) == why
