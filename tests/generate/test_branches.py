"""How one token is chosen and how an answer ends, on numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmalign.formats.prompt import Prompt
from mmalign.generate.answers import Generated, Sample
from mmalign.generate.branches import Branch, Ends, choose, grow
from mmalign.generate.sampling import Sampling, is_endless, seed_of

PROBABILITIES = (0.1, 0.4, 0.2, 0.3)
LOGITS = torch.tensor([PROBABILITIES]).log()


class Letters:
    """A tokenizer whose token k is the k-th letter, and 9 the end."""

    def decode(self, ids, skip_special_tokens):
        return "".join("abcdefghi"[token] for token in ids if token != 9)


def picked(number: float, **how) -> int:
    return int(choose(LOGITS, Sampling(**{"temperature": 1.0, **how}), torch.tensor([number], dtype=torch.float64)))


def test_a_number_picks_the_token_on_whose_piece_of_the_line_it_falls():
    assert [picked(number) for number in (0.0, 0.09, 0.11, 0.49, 0.51, 0.69, 0.71, 0.999)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_top_k_leaves_the_most_probable():
    """0.4 and 0.3 are left: the border is at 4/7 = 0.571."""
    assert [picked(number, top_k=2) for number in (0.0, 0.57, 0.58, 0.999)] == [1, 1, 3, 3]


def test_top_p_leaves_the_smallest_set_of_that_probability():
    """0.4 + 0.3 = 0.7 is not yet 0.75, so 0.2 comes along; without 0.1 the borders are at 4/9 and 6/9."""
    assert [picked(number, top_p=0.75) for number in (0.0, 0.44, 0.45, 0.66, 0.67)] == [1, 1, 2, 2, 3]
    assert [picked(number, top_p=0.3) for number in (0.0, 0.999)] == [1, 1]


def test_temperature_makes_the_distribution_steeper():
    """At 1/2 probabilities are squared: 1, 16, 4 and 9 of 30."""
    assert [picked(number / 30, temperature=0.5) for number in (0.9, 1.1, 16.9, 17.1, 20.9, 21.1)] == [0, 1, 1, 2, 2, 3]
    assert picked(0.0, temperature=0.0) == 1


def test_draws_follow_the_distribution():
    numbers = torch.from_numpy(np.random.default_rng(0).random(20_000))
    tokens = choose(LOGITS.expand(20_000, -1), Sampling(temperature=1.0), numbers)
    shares = torch.bincount(tokens, minlength=4) / 20_000
    assert shares.tolist() == pytest.approx(PROBABILITIES, abs=0.015)


def test_a_log_prob_is_the_models_own_whatever_the_filter():
    branch = Branch(seed=1)
    grow([branch], LOGITS, Sampling(temperature=0.5, top_k=1), Ends(Letters(), [9], Sampling()))
    assert branch.ids == [1]
    assert branch.logps == pytest.approx([math.log(0.4)])


def grown(tokens, **how) -> Branch:
    """Let a branch take these tokens, most probable each."""
    sampling = Sampling(**how)
    branch, ends = Branch(seed=0), Ends(Letters(), [9], sampling)
    for token in tokens:
        grow([branch], torch.nn.functional.one_hot(torch.tensor([token]), 10).float() * 50, sampling, ends)
    return branch


@pytest.mark.parametrize(
    ("tokens", "how", "finish", "text"),
    [
        ([0, 1, 9, 2], {}, "end", "ab"),
        ([0, 1, 2, 3, 4], {"max_new_tokens": 3}, "length", "abc"),
        ([0, 1, 2, 3, 4], {"stop": ("cd",)}, "stop", "ab"),
        ([0, 1, 2, 3, 4], {"stop": ("de", "b")}, "stop", "a"),
        ([0, 1, 2] * 9, {"endless_after_tokens": 12}, "endless", "abc" * 5 + "a"),
        ([0, 1, 2] * 9, {"endless_after_tokens": None}, None, "abc" * 9),
    ],
)
def test_how_an_answer_ends(tokens, how, finish, text):
    branch = grown(tokens, **how)
    assert branch.finish == finish
    assert Ends(Letters(), [9], Sampling(**how)).sample(branch).text == text


def test_a_list_is_endless_when_its_tail_repeats_one_piece_four_times():
    assert is_endless([7, 8, 9] * 4, 12)
    assert not is_endless([7, 8, 9] * 3, 12)
    assert not is_endless([1, 2, 3, 4, 5, 6] * 2, 12)
    assert is_endless([0, 1, *[5] * 12], 12)


def test_probabilities_that_are_no_numbers_end_one_branch_alone():
    good, bad = Branch(seed=1), Branch(seed=2)
    logits = torch.cat([LOGITS, LOGITS * math.nan])
    grow([good, bad], logits, Sampling(temperature=1.0), Ends(Letters(), [9], Sampling()))
    assert (good.finish, bad.finish) == (None, "not_finite")
    assert "model.dtype: float32" in str(Sample(text="", finish="not_finite", seed=2).problem(0))


def test_seeds_differ_by_run_row_and_number():
    seeds = {seed_of(seed, row, number) for seed in (0, 1) for row in ("a", "b", "a1") for number in (0, 1)}
    assert len(seeds) == 12
    assert all(float(seed) == seed for seed in seeds)


def test_a_row_has_the_useful_answers_all_tied_and_names_the_others():
    samples = (
        Sample(text="a cat", finish="end", seed=3, ids=(1, 2), logps=(-0.5, -1.5)),
        Sample(text="", finish="end", seed=4),
        Sample(text="la la la", finish="endless", seed=5),
        Sample(text="a dog", finish="length", seed=6),
    )
    made = Generated(prompt=Prompt.ask("what?", id="7"), samples=samples, model="m", seed=1)
    row = made.row()
    assert [response.text for response in row.responses] == ["a cat", "a dog"]
    assert row.ties == ((0, 1),)
    assert row.responses[0].scores == {
        "sample": 0,
        "seed": 3,
        "finished": 1.0,
        "tokens": 2,
        "logp": -2.0,
        "logp_per_token": -1.0,
    }
    assert row.responses[1].scores == {"sample": 3, "seed": 6, "finished": 0.0}
    assert row.provenance == {"model": "m", "seed": "1", "finish": "end length"}
    reasons = [(error.field, error.reason) for error in made.problems()]
    assert reasons == [
        ("responses[1]", "answer is empty"),
        ("responses[2]", "answer repeats itself without end"),
    ]
    assert Generated(prompt=made.prompt, samples=samples[1:3], model="m", seed=1).row() is None
