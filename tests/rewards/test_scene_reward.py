"""The reward of an added object and the advantages of a group, worked by hand."""

import json

import numpy as np
import pytest

from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_task import Edit, Task
from mmalign.rewards.scene import Criteria, advantages, judge

FLOOR = ((-2.0, 0.0, -2.0), (2.0, 0.0, -2.0), (2.0, 0.0, 2.0), (-2.0, 0.0, 2.0))
TRUTH = SceneObject(desc="Oak desk", size=(1.0, 0.7, 0.6), pos=(0.0, 0.0, 0.0), rot=(0, 0, 0, 1))
TASK = Task(
    scene=Scene(room_type="other", bounds_top=tuple((x, 2.6, z) for x, _, z in FLOOR), bounds_bottom=FLOOR),
    edit=Edit(verb="add", words="oak desk"),
)


def answer(**changes) -> str:
    return json.dumps({"desc": "Oak desk", "size": [1, 0.7, 0.6], "pos": [1, 0, 1], "rot": [0, 0, 0, 1], **changes})


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (answer(), 1.0),
        (answer(pos=[2, 0, 1]), 0.2),  # half outside
        (answer(desc="Desk of oak wood"), 0.2),  # cosine of words 2 / sqrt(2 x 4)
        (answer(desc="Desk"), 0.2),  # half of the words
        (answer(size=[1.25, 0.7, 0.6]), 0.2),  # size error 0.25
        (answer(size=[1.15, 0.7, 0.6]), 1.0),  # 0.15
        ("a desk", 0.0),
        (answer(rot=[0, 0, 0, 3]), 0.0),
        (answer(size=[-1, 1, 1]), 0.0),
    ],
)
def test_rewards_of_answers(text, reward):
    verdict = judge(TASK, text, TRUTH)
    assert verdict.reward == reward
    assert bool(verdict.trouble) == (reward == 0.0) and verdict.is_neutral == (reward == 0.2)


def test_criteria_encoder_and_description_are_the_callers():
    outside = answer(pos=[2, 0, 1])
    assert judge(TASK, outside, TRUTH, criteria=Criteria(most_delta_pbl_m3=1.0)).reward == 1.0
    assert judge(TASK, answer(), TRUTH, described=lambda item: "Glass table").reward == 0.2
    turned_away = judge(TASK, answer(), TRUTH, encode=lambda texts: np.array([[1.0, 0], [0, 1.0]]))
    assert (turned_away.reward, turned_away.similarity) == (0.2, 0.0)


def test_neutral_rewards_have_no_advantage_and_still_shift_the_mean():
    # mean 0.4, std (N - 1) of [1, 0.2, 0.2, 0.2] is 0.4
    assert advantages([1.0, 0.2, 0.2, 0.2]) == pytest.approx([0.6 / 0.4001, 0, 0, 0])
    assert advantages([1.0, 0.2, 0.2, 0.2], neutral=False) == pytest.approx(np.array([0.6, -0.2, -0.2, -0.2]) / 0.4001)
    found = advantages([0.0, 0.2, 1.0])
    assert found[0] < 0 == found[1] < found[2]


def test_equal_rewards_and_lone_answers_have_no_advantage():
    assert advantages([1.0, 1.0, 1.0]) == pytest.approx([0, 0, 0])
    assert advantages([1.0]) == pytest.approx([0])
