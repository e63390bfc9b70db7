"""Losses of placement against volumes worked by hand, in both modes, with boxes and with models."""

import json
import math

import numpy as np
import pytest

from mmalign.errors import ConfigError, RowError
from mmalign.formats import scene_json
from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_geometry import turn
from mmalign.modalities.scene_instructions import quarter_turned
from mmalign.modalities.scene_losses import box_outside_m3, box_shared_m3, change, placement
from mmalign.modalities.scene_voxels import object_voxels

FLOOR = ((-2.0, 0.0, -2.0), (2.0, 0.0, -2.0), (2.0, 0.0, 2.0), (-2.0, 0.0, 2.0))
# An L: the quarter x > 0, z > 0 is missing.
CORNERED = ((-2.0, 0, -2.0), (2.0, 0, -2.0), (2.0, 0, 0.0), (0.0, 0, 0.0), (0.0, 0, 2.0), (-2.0, 0, 2.0))


def box(x, z, y=0.0, size=(1.0, 1.0, 1.0), angle=0.0, asset=None) -> SceneObject:
    return SceneObject(desc="box", size=size, pos=(x, y, z), rot=turn(angle), asset=asset)


def scene(*objects, floor=FLOOR) -> Scene:
    top = tuple((x, 2.6, z) for x, _, z in floor)
    return Scene(room_type="other", bounds_top=top, bounds_bottom=floor, objects=objects)


def test_unit_boxes_that_share_half_have_a_loss_of_half_a_cubic_metre():
    assert placement(scene(box(0, 0), box(0.5, 0))).mbl_m3 == pytest.approx(0.5)
    assert placement(scene(box(0, 0), box(0.5, 0, y=0.75))).mbl_m3 == pytest.approx(0.125)
    assert placement(scene(box(0, 0), box(1.0, 0))).pbl_m3 == 0
    assert placement(scene(box(0, 0), box(0, 0, y=1.0))).pbl_m3 == 0


def test_official_cells_reach_half_a_cell_beyond_on_every_side():
    # A side of 1 m has 21 cells of 5 cm; moved by 0.5 m, 11 of them are shared: 11 x 21 x 21 x 0.05 ** 3.
    assert placement(scene(box(0, 0), box(0.5, 0)), compat="official").mbl_m3 == pytest.approx(0.606375)
    # The first and the last of a side stand on its ends, so 10 of 21 are outside: 10 x 21 x 21 x 0.05 ** 3.
    assert placement(scene(box(2, 0)), compat="official").oob_m3 == pytest.approx(0.55125)
    assert placement(scene(box(0, 0)), compat="official").pbl_m3 == 0


def test_what_is_outside_is_counted_at_walls_floor_and_ceiling():
    assert placement(scene(box(2, 0))).oob_m3 == pytest.approx(0.5)
    assert placement(scene(box(2, -2))).oob_m3 == pytest.approx(0.75)
    assert placement(scene(box(0, 0, y=-0.25))).oob_m3 == pytest.approx(0.25)
    assert placement(scene(box(0, 0, y=2.0))).oob_m3 == pytest.approx(0.4)
    assert placement(scene(box(9, 9))).oob_m3 == pytest.approx(1.0)


def test_the_missing_corner_of_a_room_is_outside():
    assert placement(scene(box(1, 1), floor=CORNERED)).oob_m3 == pytest.approx(1.0)
    assert placement(scene(box(0, 0), floor=CORNERED)).oob_m3 == pytest.approx(0.25)
    assert placement(scene(box(-1, 1), floor=CORNERED)).pbl_m3 == 0
    found = placement(scene(box(1, 1), floor=CORNERED), compat="official").oob_m3
    assert found == pytest.approx(1.0, abs=0.16)  # of 21 ** 3 cells


def test_an_oblique_box_has_about_its_volume_outside():
    # A square of side 1 turned by 45 degrees reaches 0.7071 from its middle; beyond x = 2 lies a triangle of area
    # (0.7071 - 0.2) ** 2.
    found = placement(scene(box(1.8, 0, angle=math.pi / 4)))
    exact = (math.sqrt(0.5) - 0.2) ** 2
    assert box_outside_m3(scene(), box(1.8, 0, angle=math.pi / 4)) == pytest.approx(exact)
    assert found.oob_m3 == pytest.approx(exact, rel=0.08)


def test_official_footprints_turn_the_other_way():
    # A plank along x, turned by 30 degrees, runs to (-, +) as the quaternion says, and to (+, +) in the program.
    plank = box(0, 0, size=(3.0, 1.0, 0.2), angle=math.pi / 6)
    end = 1.3
    there = box(-end * math.cos(math.pi / 6), end * math.sin(math.pi / 6), size=(0.2, 1.0, 0.2))
    assert box_shared_m3(plank, there) == pytest.approx(0.04, rel=0.4)
    assert box_shared_m3(plank, there, "official") == 0
    assert placement(scene(plank, there)).mbl_m3 > 0.02
    assert placement(scene(plank, there), compat="official").mbl_m3 == 0  # its first look saw nothing


def test_a_change_is_what_an_edit_adds():
    before = scene(box(0, 0), box(0.5, 0))
    found = change(before, before.added(box(2, -1.5)))
    assert (found.oob_m3, found.mbl_m3, found.pbl_m3) == pytest.approx((0.5, 0, 0.5))
    assert change(before, before.without(1)).mbl_m3 == pytest.approx(-0.5)
    assert change(before, before.added(box(-1.5, -1.5))).pbl_m3 == 0


def test_an_object_is_charged_with_what_it_shares_with_later_ones():
    found = placement(scene(box(2, 0), box(1.5, 0)))
    assert (found.share_of(0), found.share_of(1)) == pytest.approx((1.0, 0.0))
    assert found.pbl_m3 == pytest.approx(1.0)


def test_a_scene_is_valid_up_to_a_tenth_of_a_cubic_metre():
    assert placement(scene(box(1.6, 0))).pbl_m3 == pytest.approx(0.1)
    assert placement(scene(box(1.55, 0))).is_valid
    assert not placement(scene(box(1.65, 0))).is_valid


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turning_a_scene_by_quarters_leaves_its_losses(quarters):
    made = scene(box(1.8, 0.3, angle=0.4), box(1.2, 0.5, size=(1.2, 0.8, 0.5)), box(-0.5, 1.9), floor=CORNERED)
    first, second = placement(made), placement(quarter_turned(made, quarters))
    assert second.outside == pytest.approx(first.outside, abs=2e-3)
    assert second.shared == pytest.approx(first.shared, abs=2e-3)
    assert first.pbl_m3 > 0.5


def test_a_model_fills_less_than_its_box():
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    ball.apply_translation([0, 0.5, 0])
    item = box(2.0, 0, asset="ball")
    volume = object_voxels(item, {"ball": ball}).count * 0.05**3
    assert volume == pytest.approx(math.pi / 6, rel=0.2)  # with half a cell on every side
    assert placement(scene(item), {"ball": ball}).oob_m3 == pytest.approx(volume / 2, rel=0.1)
    assert placement(scene(item)).oob_m3 == pytest.approx(0.5)  # without its model, its box


def test_a_model_that_cannot_be_cut_is_named_and_faultless_in_official():
    trimesh = pytest.importorskip("trimesh")
    none = trimesh.Trimesh()
    item = box(2.0, 0, asset="empty")
    with pytest.raises(RowError, match="jid: model of an object cannot be cut into cells .got 'empty'."):
        placement(scene(item), {"empty": none})
    assert placement(scene(item), {"empty": none}, "official").pbl_m3 == 0


def test_a_real_scene_has_no_loss(shared_data):
    path = shared_data / "scene" / "respace_example.json"
    if not path.is_file():
        pytest.skip("no scene/respace_example.json in ../shared/data")
    real = scene_json.from_json(json.loads(path.read_text(encoding="utf-8")))
    for compat in ("corrected", "official"):
        assert placement(real, compat=compat).pbl_m3 == 0


def test_losses_of_an_empty_room_are_nothing():
    found = placement(scene())
    assert found.pbl_m3 == 0 and found.is_valid and found.shared.shape == (0, 0)
    assert np.count_nonzero(found.outside) == 0


def test_a_mode_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match="compat 'paper' is unknown; use one of official, corrected"):
        placement(scene(), compat="paper")
