"""Relabellings, with rows worked by hand."""

import re
from collections import Counter

import pytest
from pairs.rows import CLIP, FRAMES, IMAGE, ranked, texts

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Response, Span
from mmalign.formats.store import from_columns, to_columns
from mmalign.pairs.relabel import HOWS, options_of, relabelling

DPA = {"scores": ["help", "brief"]}
DEFAULTS = {how: DPA if how == "dpa" else {} for how in HOWS}


def made(how, row, **options):
    return list(relabelling(how, options)(row))


def scored(*rewards, **facts):
    """Responses "a", "b", ... with the scores help and brief."""
    responses = tuple(
        Response.of("abcdefgh"[k], scores={"help": float(h), "brief": float(b)}) for k, (h, b) in enumerate(rewards)
    )
    return ranked(responses=responses, **facts)


# ---- reward-augmented rows ------------------------------------------------------------------------------------------


def test_asked_for_the_worse_score_the_worse_response_wins():
    high, low = made("reward_augmented", ranked(8.0, 5.5), goal="Reach {score}.")
    assert [message.text for message in high.prompt] == ["Reach 8.", "Which?"]
    assert [message.text for message in low.prompt] == ["Reach 5.5.", "Which?"]
    assert [message.role for message in low.prompt] == ["system", "user"]
    assert (texts(high), texts(low)) == ("ab", "ba")
    assert [response.score for response in high.responses] == [0.0, -2.5]
    assert [response.score for response in low.responses] == [0.0, -2.5]
    assert [response.scores["score"] for response in low.responses] == [5.5, 8.0]
    assert (high.margin, low.margin) == (2.5, 2.5)
    assert (high.tags["goal"], low.tags["goal"]) == ("8", "5.5")
    assert high.id != low.id


def test_without_a_system_turn_the_responses_are_turned_round_too():
    """The released script changes the first message only and leaves chosen and rejected as they are."""
    high, low = made("reward_augmented", ranked(8.0, 5.5, media=(IMAGE,)), goal="Reach {score}.", place="user")
    for row, said, order in ((high, "Reach 8.", "ab"), (low, "Reach 5.5.", "ba")):
        (turn,) = row.prompt
        assert turn.role == "user"
        assert [getattr(part, "text", part) for part in turn.parts][0] == f"{said}\n\n"
        assert turn.media_indices == (0,)
        assert turn.text == f"{said}\n\nWhich?"
        assert texts(row) == order


def test_a_goal_stands_before_what_the_system_turn_says():
    row = ranked(2.0, 1.0, prompt=(Message.of("system", "Be kind."), Message.of("user", "Which?")))
    high, _ = made("reward_augmented", row, goal="Reach {score}.")
    assert [message.text for message in high.prompt] == ["Reach 2.\n\nBe kind.", "Which?"]


def test_a_goal_of_a_conversation_stands_in_its_first_user_turn():
    turns = (Message.of("user", "One?"), Message.of("assistant", "Yes."), Message.of("user", "Two?"))
    high, _ = made("reward_augmented", ranked(2.0, 1.0, prompt=turns), goal="{score}", place="user")
    assert [message.text for message in high.prompt] == ["2\n\nOne?", "Yes.", "Two?"]


def test_of_a_list_the_best_meets_one_drawn_from_the_lower_ones():
    drawn = Counter()
    for number in range(300):
        row = ranked(9.0, 9.0, 5.0, 3.0, 1.0, ties=((0, 1),), id=f"row {number}")
        high, low = made("reward_augmented", row, seed=1)
        assert texts(high) == texts(low)[::-1]
        assert texts(high)[0] == "a"
        drawn[texts(high)[1]] += 1
    assert set(drawn) == {"c", "d", "e"}
    assert min(drawn.values()) > 70  # a hundred each, give or take 3.7 standard deviations


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ranked(3.0, 3.0), "responses have the same score, so that both goals would be one"),
        (ranked(None, None), "response has no score to be asked for"),
        (ranked(3.0), "responses have the same score"),
        (ranked(3.0, 0.0), "score lies outside the scale .* 1 to 10 .got .3.0, 0.0..; say the scale of your scores"),
        (ranked(11.0, 2.0), "score lies outside the scale"),
    ],
    ids=["equal", "unscored", "one response", "too low", "too high"],
)
def test_a_row_without_two_goals_is_refused(row, reason):
    with pytest.raises(RowError, match=reason):
        made("reward_augmented", row)


def test_a_single_judged_answer_is_not_swapped():
    with pytest.raises(RowError, match="it is a single answer; to turn a judgement round, change its label"):
        made("swap", ranked(3.0))


def test_a_prompt_without_a_user_turn_cannot_say_a_goal_there():
    row = ranked(2.0, 1.0, prompt=(Message.of("system", "Be kind."),))
    with pytest.raises(RowError, match="prompt has no user turn that could say the goal; put it into the system turn"):
        made("reward_augmented", row, place="user")


# ---- directions -----------------------------------------------------------------------------------------------------


class _Fixed:
    """A generator whose draws are known."""

    def __init__(self, share, lean):
        self.share, self.lean = share, lean

    def random_sample(self):
        return self.share

    def standard_normal(self, count):
        return self.lean[:count]


def test_a_direction_is_an_angle_from_the_first_axis_in_hundredths():
    import numpy as np

    with_two = relabelling("dpa", {"scores": ["help", "brief"], "angle": 60})
    assert with_two.direction(_Fixed(0.5, np.array([3.0]))) == (87, 50)  # cos 30, sin 30
    assert with_two.direction(_Fixed(0.5, np.array([-0.2]))) == (87, -50)
    assert with_two.direction(_Fixed(0.0, np.array([1.0]))) == (100, 0)
    with_three = relabelling("dpa", {"scores": ["a", "b", "c"], "angle": 90})
    assert with_three.direction(_Fixed(1.0, np.array([3.0, 4.0]))) == (0, 60, 80)


def test_the_sign_of_the_directed_difference_orders_a_pair():
    """r = (4, 1) and (3, 3): v . (r_1 - r_2) = v_help - 2 v_brief."""
    orders = set()
    for number in range(40):
        row = scored((4, 1), (3, 3), id=f"row {number}")
        (directed,) = made("dpa", row, **DPA, text="Weigh {weights}.")
        help_, brief = map(int, re.fullmatch(r"Weigh help (-?\d+), brief (-?\d+)\.", directed.prompt[0].text).groups())
        assert texts(directed) == ("ab" if help_ - 2 * brief > 0 else "ba")
        assert directed.margin == pytest.approx(abs(help_ - 2 * brief) / 100)
        worth = {"a": (4 * help_ + brief) / 100, "b": (3 * help_ + 3 * brief) / 100}
        assert [response.score for response in directed.responses] == [worth[text] for text in texts(directed)]
        assert help_ >= 70 and abs(brief) <= 71  # within 45 degrees of the first axis
        assert abs(help_**2 + brief**2 - 10_000) < 200  # a unit vector, rounded
        assert directed.tags["direction"] == f"help {help_}, brief {brief}"
        orders.add(texts(directed))
    assert orders == {"ab", "ba"}


def test_responses_that_a_direction_cannot_tell_apart_are_tied():
    (directed,) = made("dpa", scored((1, 1), (2, 2), (1, 1)), **DPA, angle=10)
    assert texts(directed) == "bac"
    assert directed.ties == ((1, 2),)


def test_several_directions_give_as_many_rows():
    rows = made("dpa", scored((4, 1), (3, 3)), **DPA, draws=3)
    assert len({row.id for row in rows}) == 3
    assert len({row.tags["direction"] for row in rows}) == 3


def test_the_score_before_a_direction_is_kept():
    row = ranked(responses=(Response.of("a", score=7.0, scores={"help": 1.0, "brief": 0.0}),))
    (directed,) = made("dpa", row, **DPA)
    assert directed.responses[0].scores == {"score": 7.0, "help": 1.0, "brief": 0.0}


def test_a_response_that_lacks_a_weighed_score_is_refused():
    with pytest.raises(
        RowError, match=r"responses\[0\]\.scores: response lacks a score that the direction weighs.*brief"
    ):
        made("dpa", ranked(responses=(Response.of("a", scores={"help": 1.0}),)), **DPA)


# ---- the other ways -------------------------------------------------------------------------------------------------


def test_swapping_turns_order_scores_and_ties_round():
    row = ranked(5.0, 4.0, 4.0, 1.0, ties=((1, 2),), margin=4.0)
    (turned,) = made("swap", row)
    assert texts(turned) == "dcba"
    assert [response.score for response in turned.responses] == [-1.0, -4.0, -4.0, -5.0]
    assert turned.ties == ((1, 2),)
    assert turned.margin == 4.0
    (tied,) = made("swap", ranked(None, None, None, ties=((0, 1),)))
    assert texts(tied) == "cba"
    assert tied.ties == ((1, 2),)


def test_swapping_twice_gives_the_row_back():
    row = ranked(5.0, 4.0, 4.0, ties=((1, 2),))
    (turned,) = made("swap", row)
    (back,) = made("swap", turned)
    assert (texts(back), back.ties) == ("abc", row.ties)
    assert [(response.score, response.scores) for response in back.responses] == [
        (5.0, {"score": 5.0}),
        (4.0, {"score": 4.0}),
        (4.0, {"score": 4.0}),
    ]
    assert back.provenance["relabel"] == "swap, swap"


def test_a_list_becomes_pairs_that_share_its_weight():
    rows = made("pairs", ranked(3.0, 2.0, 1.0, weight=3.0), pairs="all")
    assert [(texts(row), row.margin, row.weight) for row in rows] == [
        ("ab", 1.0, 1.0),
        ("ac", 2.0, 1.0),
        ("bc", 1.0, 1.0),
    ]


def test_curry_gives_the_largest_gap_first():
    rows = made("curry", ranked(9.0, 8.0, 4.0, 3.0))
    assert [(texts(row), row.margin, row.difficulty, row.weight) for row in rows] == [
        ("ad", 6.0, 1.0, 1.0),
        ("ac", 5.0, 2.0, 1.0),
        ("ab", 1.0, 3.0, 1.0),
    ]


def test_n_times_n_pairs_right_with_wrong_within_its_limits():
    row = ranked(1.0, 1.0, 1.0, 0.0, 0.0, 0.0, ties=((0, 1, 2), (3, 4, 5)))
    assert [texts(pair) for pair in made("nxn", row)] == ["ad", "ae", "af", "bd", "be", "bf", "cd", "ce", "cf"]
    some = [texts(pair) for pair in made("nxn", row, most_pairs=5, most_uses=2)]
    assert len(some) == 5 == len(set(some))
    uses = Counter("".join(some))
    assert max(uses.values()) <= 2
    assert some == [texts(pair) for pair in made("nxn", row, most_pairs=5, most_uses=2)]
    assert all(pair.weight == 1.0 for pair in made("nxn", row))


@pytest.mark.parametrize("how", ["swap", "pairs", "curry", "nxn"])
def test_a_row_of_equals_is_refused(how):
    with pytest.raises(RowError, match="row has no two responses of different rank"):
        made(how, ranked(1.0, 1.0, ties=((0, 1),)))


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(
    "media", [(), (IMAGE,), (CLIP, IMAGE), (FRAMES,)], ids=["text", "image", "clip+image", "frames"]
)
def test_media_tags_and_provenance_come_along_and_the_rows_can_be_written(how, media):
    other = tuple(MediaRef(kind=ref.kind, uri="other") for ref in media) or None
    responses = (
        Response.of("abcd", score=3.0, scores={"help": 1.0, "brief": 0.0}, spans=(Span(start=0, end=2, weight=2.0),)),
        Response.of("efgh", score=1.0, scores={"help": 0.0, "brief": 1.0}, media=other, model="m", annotator="ann"),
    )
    told = {"source": "trl", "file": "x.jsonl", "row": "7"}
    row = ranked(media=media, responses=responses, tags={"split": "hard"}, provenance=told, weight=0.5)
    rows = made(how, row, **DEFAULTS[how])
    assert len({one.id for one in rows}) == len(rows) > 0
    for one in rows:
        assert one.media == media
        assert [index for message in one.prompt for index in message.media_indices] == list(range(len(media)))
        assert one.tags["split"] == "hard"
        assert one.weight == 0.5
        assert dict(one.provenance) == told | {"relabel": how}
        found = {response.text: response for response in one.responses}
        assert found["abcd"].spans == responses[0].spans
        assert (found["efgh"].media, found["efgh"].annotator) == (other, "ann")
        assert from_columns(to_columns(one)) == one


@pytest.mark.parametrize("how", HOWS)
def test_the_same_row_gives_the_same_rows_and_another_seed_may_not(how):
    def rows(seed):
        options = DEFAULTS[how] | ({"seed": seed} if "seed" in dict.fromkeys(o for o, _, _ in options_of(how)) else {})
        lists = [
            ranked(
                id=f"row {number}",
                responses=tuple(
                    Response.of("abcdef"[k], score=6.0 - k, scores={"help": 6.0 - k, "brief": k * k}) for k in range(6)
                ),
            )
            for number in range(20)
        ]
        return [one for row in lists for one in made(how, row, **options)]

    assert rows(0) == rows(0)
    if how in ("reward_augmented", "dpa"):
        assert rows(0) != rows(1)


@pytest.mark.parametrize(
    ("how", "options", "message"),
    [
        ("rewardaugmented", {}, "how 'rewardaugmented' is no relabelling; did you mean 'reward_augmented'? known are"),
        ("swap", {"seed": 1}, "seed is no option of 'swap'; it has none"),
        ("nxn", {"most_pair": 1}, "most_pair is no option of 'nxn'; did you mean 'most_pairs'? its options are most_"),
        ("nxn", {"most_uses": 0}, "most_uses must be a whole number from 1 (got 0)"),
        ("nxn", {"seed": -1}, "seed must be a whole number from 0, below 2^32 (got -1)"),
        ("pairs", {"pairs": "some"}, "pairs must be one of all, best_worst"),
        ("reward_augmented", {"place": "assistant"}, "place must be one of system, user (got 'assistant')"),
        ("reward_augmented", {"goal": "Be good."}, "goal must hold {score}, where the goal goes (got 'Be good.')"),
        ("dpa", {}, "scores must list two or more different names, such as [helpfulness, verbosity] (got ())"),
        ("dpa", {"scores": ["a", "a"]}, "scores must list two or more different names"),
        ("dpa", {"scores": "ab"}, "scores must list two or more different names"),
        ("dpa", {**DPA, "angle": 0}, "angle must be above 0 and at most 180 (got 0)"),
        ("dpa", {**DPA, "draws": 1.5}, "draws must be a whole number from 1 (got 1.5)"),
        ("dpa", {**DPA, "text": "Weigh."}, "text must hold {weights}, where the numbers go"),
    ],
)
def test_a_wrong_option_is_named(how, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        relabelling(how, options)
