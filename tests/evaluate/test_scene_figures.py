"""Figures of added objects and of whole scenes, in the units of the paper's tables."""

import json

import numpy as np
import pytest

from mmalign.evaluate import scene as metrics
from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_task import Edit, Task

FLOOR = ((-2.0, 0.0, -2.0), (2.0, 0.0, -2.0), (2.0, 0.0, 2.0), (-2.0, 0.0, 2.0))
DESK = SceneObject(desc="Oak desk", size=(1.0, 1.0, 1.0), pos=(0.0, 0.0, 0.0), rot=(0, 0, 0, 1))
ROOM = Scene(
    room_type="other", bounds_top=tuple((x, 2.6, z) for x, _, z in FLOOR), bounds_bottom=FLOOR, objects=(DESK,)
)
TASK = Task(scene=ROOM, edit=Edit(verb="add", words="oak chair"))


def answer(x) -> str:
    return json.dumps({"desc": "Oak desk", "size": [1, 1, 1], "pos": [x, 0, 0], "rot": [0, 0, 0, 1]})


def test_additions_are_told_in_thousandths_and_unreadable_ones_left_out():
    found = metrics.additions([TASK] * 4, [answer(0.5), answer(2.0), answer(1.0), "none"], [DESK] * 4)
    assert found["read"].tolist() == [1, 1, 1, 0]
    assert found["delta_mbl"][:3] == pytest.approx([500, 0, 0])
    assert found["delta_oob"][:3] == pytest.approx([0, 500, 0])
    assert found["delta_pbl"][:3] == pytest.approx([500, 500, 0])
    assert found["valid"][:3].tolist() == [0, 0, 1] and np.isnan(found["valid"][3])
    assert found["pms"][:3].tolist() == [0.5] * 3
    assert found["size_error"][:3] == pytest.approx([0] * 3) and found["dss"][:3] == pytest.approx([1] * 3)
    means = metrics.means(found)
    assert (means["read"], means["valid"]) == pytest.approx((0.75, 1 / 3))
    assert "valid" not in metrics.means(metrics.additions([TASK], ["none"], [DESK]))


def test_whole_scenes_are_told_in_thousandths():
    found = metrics.scenes([ROOM, TASK.after(answer(2.0)), TASK.after(answer(0.5))])
    assert found["oob"] == pytest.approx([0, 500, 0])
    assert found["mbl"] == pytest.approx([0, 0, 500])
    assert found["pbl"] == pytest.approx([0, 500, 500])
    assert found["valid"].tolist() == [1, 0, 0]
