"""Scenes made worse, drawn, compared with a truth, sampled, and told of as answers."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from mmalign.errors import ConfigError, RowError
from mmalign.formats.preference import Response
from mmalign.formats.scene import Scene, SceneObject
from mmalign.formats.scene_geometry import turn, yaw
from mmalign.formats.scene_task import Edit, Task
from mmalign.modalities.answers import ANSWERS, answer_kind
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.scene_colours import COLOURS, colour_of
from mmalign.modalities.scene_instructions import augment, instruction, quarter_turned
from mmalign.modalities.scene_losses import box_outside_m3, box_shared_m3, placement
from mmalign.modalities.scene_perspective import BACKGROUND, camera_for, paint_perspective
from mmalign.modalities.scene_perturb import PERTURBATIONS, perturb, without_fields
from mmalign.modalities.scene_scores import prompt_match, same_words, similarity, size_error
from mmalign.modalities.scene_top import TROUBLE, paint_sheet, paint_top

FLOOR = ((-2.0, 0.0, -2.0), (2.0, 0.0, -2.0), (2.0, 0.0, 2.0), (-2.0, 0.0, 2.0))


def thing(desc, x, z, size=(1.0, 1.0, 1.0), angle=0.0) -> SceneObject:
    return SceneObject(desc=desc, size=size, pos=(x, 0.0, z), rot=turn(angle))


def scene(*objects) -> Scene:
    top = tuple((x, 2.6, z) for x, _, z in FLOOR)
    return Scene(room_type="bedroom", bounds_top=top, bounds_bottom=FLOOR, objects=objects)


BED, DESK, RED_DESK = thing("Gray bed", -1, -1, (1.6, 0.6, 2.0)), thing("Oak desk", 1, 1), thing("Red desk", 1, -1)
GOOD = scene(BED, RED_DESK, DESK)

# ---- worse scenes --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", PERTURBATIONS)
def test_a_worse_scene_is_seeded_and_changes_one_object(how):
    worse = perturb(GOOD, how, seed=3, strength=0.5)
    assert worse == perturb(GOOD, how, seed=3, strength=0.5)
    assert worse.objects[:2] == GOOD.objects[:2] and worse.objects[2] != DESK
    assert perturb(GOOD, how, seed=3, k=0).objects[1:] == GOOD.objects[1:]


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_through_the_wall_goes_the_share_of_volume_that_is_asked_for(strength):
    worse = perturb(GOOD, "wall", seed=0, strength=strength).objects[2]
    assert box_outside_m3(GOOD, worse) == pytest.approx(strength, abs=0.011)


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.0])
def test_overlap_shares_the_share_of_volume_that_is_asked_for(strength):
    worse = perturb(GOOD, "overlap", seed=0, strength=strength)
    shared = max(box_shared_m3(worse.objects[2], other) for other in worse.objects[:2])
    assert shared == pytest.approx(min(strength, 0.6 if shared < 0.61 and strength > 0.6 else 1), abs=0.03)


def test_size_and_rotation_grow_with_strength():
    for strength in (0.2, 1.0):
        sizes = {perturb(GOOD, "size", seed=seed, strength=strength).objects[2].size[0] for seed in range(8)}
        factor = 1 + 1.5 * strength
        assert sizes == {round(factor, 2), round(1 / factor, 2)}
        angles = {abs(yaw(perturb(GOOD, "rotation", seed=s, strength=strength).objects[2].rot)) for s in range(4)}
        assert list(angles) == pytest.approx([strength * math.pi / 2] * len(angles), abs=1e-4)


def test_the_wrong_object_is_less_alike_at_more_strength():
    assert perturb(GOOD, "object", seed=0, strength=0.5).objects[2].desc == "Red desk"
    worse = perturb(GOOD, "object", seed=0, strength=1.0).objects[2]
    assert (worse.desc, worse.size, worse.pos) == ("Gray bed", BED.size, DESK.pos)


def test_missing_fields_leave_an_answer_that_cannot_be_read():
    assert len(without_fields(DESK, seed=0, strength=0.1)) == 3
    lacking = without_fields(DESK, seed=0, strength=1.0)
    assert len(lacking) == 1 and lacking == without_fields(DESK, seed=0, strength=1.0)


def test_what_cannot_be_made_worse_is_named():
    with pytest.raises(ConfigError, match="scene perturbation 'blur' is unknown; use one of wall, overlap, size"):
        perturb(GOOD, "blur", seed=0)
    with pytest.raises(ConfigError, match="strength of 'wall' must satisfy 0 < strength <= 1, got 0"):
        perturb(GOOD, "wall", seed=0, strength=0)
    with pytest.raises(RowError, match="scene has too few objects to be made worse .got 1.; overlap needs 2"):
        perturb(scene(BED), "overlap", seed=0)
    with pytest.raises(RowError, match="all are told alike"):
        perturb(scene(BED, BED), "object", seed=0)


# ---- comparisons with a truth --------------------------------------------------------------------


def test_words_of_the_prompt_are_parts_of_the_description():
    assert prompt_match("Gray sofa", "Modern grayish Sofabed.") == 1.0
    assert prompt_match("gray sofa set", "Gray sofa") == pytest.approx(2 / 3)
    assert prompt_match(" ", "Gray sofa") == 0.0


def test_size_error_is_the_length_of_relative_errors():
    truth = thing("a b", 0, 0, (1.0, 2.0, 0.5))
    # 0.2 / 1, 0, 0.1 / 0.5: sqrt(0.04 + 0.04)
    assert size_error(thing("a b", 0, 0, (1.2, 2.0, 0.4)), truth) == pytest.approx(math.sqrt(0.08), rel=1e-5)


def test_similarity_is_a_cosine():
    # {gray, sofa, big} and {gray, chair}: 1 / sqrt(3 x 2)
    assert similarity("Gray sofa, big", "gray chair", same_words) == pytest.approx(1 / math.sqrt(6))
    assert similarity("a", "b", lambda texts: np.zeros((len(texts), 2))) == 0.0


# ---- instructions --------------------------------------------------------------------------------


def test_instructions_are_drawn_as_the_paper_says():
    rng = np.random.default_rng(0)
    drawn = [instruction(GOOD, rng) for _ in range(600)]
    for task, after in drawn[:50]:
        assert after.objects[:-1] == task.scene.objects and after.objects[-1] in GOOD.objects
        assert len(set(after.objects)) == len(after.objects)
    counts = [len(task.scene.objects) for task, _ in drawn]
    # Of three objects: none with 0.1; two with 0.1 and half of 0.8 (m = 0); one with the other half (m = 1).
    assert [counts.count(k) / 600 for k in (0, 1, 2)] == pytest.approx([0.1, 0.4, 0.5], abs=0.06)
    assert {task.edit.words for task, _ in drawn} == {"gray bed", "red desk", "oak desk"}


def test_phrases_and_length_of_instructions_are_the_callers():
    phrases = {desc: ["a thing"] for desc in ("Gray bed", "Red desk", "Oak desk")}
    task, _ = instruction(GOOD, np.random.default_rng(0), phrases=phrases)
    assert task.edit.words == "a thing"
    short, _ = instruction(GOOD, np.random.default_rng(0), fits=lambda prompt, answer: "Gray bed" not in prompt)
    assert BED not in short.scene.objects
    with pytest.raises(RowError, match="no instruction of the scene is short enough"):
        instruction(GOOD, np.random.default_rng(0), fits=lambda prompt, answer: False)
    with pytest.raises(RowError, match="scene has no objects to ask for"):
        instruction(scene(), np.random.default_rng(0))


def test_a_quarter_turn_takes_z_to_x():
    turned = quarter_turned(scene(thing("Oak desk", 0.5, 1.5)), 1)
    assert turned.objects[0].pos == (1.5, 0.0, -0.5)
    assert yaw(turned.objects[0].rot) == pytest.approx(math.pi / 2, abs=1e-4)
    assert turned.bounds_bottom[0] == (-2.0, 0.0, 2.0)
    assert quarter_turned(GOOD, 4) == GOOD


def test_augmentation_runs_and_keeps_footprints_inside():
    rng = np.random.default_rng(0)
    made = [augment(GOOD, rng) for _ in range(200)]
    assert sum(one is GOOD for one in made) / 200 == pytest.approx(0.15, abs=0.08)
    assert len({one.bounds_bottom[0] for one in made}) == 4
    for one in made:
        assert placement(one).oob_m3 == 0
        assert sorted(item.size[1] for item in one.objects) == [0.6, 1.0, 1.0]
        for item in one.objects:
            (before,) = (other for other in GOOD.objects if other.desc == item.desc)
            assert max(abs(a - b) for a, b in zip(item.size, before.size, strict=True)) <= 0.02 + 1e-9
    assert augment(GOOD, rng, probability=0) is GOOD
    with pytest.raises(ConfigError, match="probability of augmentation must lie between 0 and 1, got 2"):
        augment(GOOD, rng, probability=2)


# ---- pictures ------------------------------------------------------------------------------------


def colours(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, dtype=int)


def near(picture: Image.Image, colour, tolerance=12) -> np.ndarray:
    return np.abs(colours(picture) - np.array(colour)).max(axis=-1) <= tolerance


def test_from_above_x_runs_right_and_z_down():
    picture = paint_top(scene(thing("Blue box", 1, 1), thing("Red box", -1, -1)), (200, 200), is_numbered=False)
    for colour, corner in (("blue", (1, 1)), ("red", (-1, -1))):
        rows, columns = np.nonzero(near(picture, COLOURS[colour]))
        assert (np.sign(columns.mean() - 100), np.sign(rows.mean() - 100)) == corner
    assert not near(picture, TROUBLE).any()


def test_trouble_is_red():
    for worse in (scene(thing("Blue box", 2, 0)), scene(thing("Blue box", 0, 0), thing("Blue box", 0.5, 0))):
        assert near(paint_top(worse, (200, 200), is_numbered=False), TROUBLE, 40).sum() > 100


def test_perspective_shows_the_nearer_of_two_boxes():
    # The camera stands where x and z are large; a box in that corner hides part of the one behind it.
    front, behind = thing("Blue box", 1.2, 1.2, (1, 1.6, 1)), thing("Red box", 0, 0, (1, 1.0, 1))
    alone = near_hue(paint_perspective(scene(behind), (280, 210)))
    both = near_hue(paint_perspective(scene(front, behind), (280, 210)))
    assert 0 < both < 0.9 * alone
    assert (
        paint_perspective(scene(behind), (280, 210)).tobytes() == paint_perspective(scene(behind), (280, 210)).tobytes()
    )


def near_hue(picture: Image.Image) -> int:
    red, green, blue = (colours(picture)[..., k] for k in range(3))
    return int(((red > 1.5 * green) & (red > 1.5 * blue)).sum())


@pytest.mark.parametrize("size", [(300, 200), (200, 300)])
def test_the_whole_room_is_in_the_picture(size):
    camera = camera_for(GOOD, size)
    seen = camera.seen_at(np.array(FLOOR, dtype=float))
    assert (seen > 0).all() and (seen < np.array(size)).all()
    edge = colours(paint_perspective(GOOD, size))
    assert (np.abs(edge[0] - np.array(BACKGROUND)).max() <= 3) and (np.abs(edge[-1] - np.array(BACKGROUND)).max() <= 3)


def test_colours_are_those_of_the_description():
    assert colour_of("A modern navy blue sofa") == COLOURS["navy"]
    assert colour_of("Strange thing") == colour_of("Strange thing")


def test_a_sheet_keeps_to_its_bound_of_pixels():
    whole, small = paint_sheet(GOOD, marked=[2]), paint_sheet(GOOD, 50_000)
    assert whole.width == 860 and small.width * small.height <= 50_000
    assert paint_sheet(scene(), 400_000).width == 860  # an empty room too


# ---- answers -------------------------------------------------------------------------------------

TASK = Task(scene=GOOD.without(2), edit=Edit(verb="add", words="oak desk"))
ROW = TASK.row("a", [TASK.response(GOOD), Response.of('{"desc": "Oak desk", "size": [1, 1, 1], "pos": [0, 0, 0]}')])
LIMITS = ImageLimits(root=".")


def test_answers_that_edit_scenes_are_told_of_and_drawn():
    assert answer_kind(ROW) == "scene"
    kind = ANSWERS["scene"]
    assert kind.load(ROW, ROW.chosen) == GOOD
    facts = kind.check(ROW, ROW.chosen)
    assert (facts.objects, facts.added_loss_m3, facts.valid, facts.words_found) == (3, 0.0, "yes", "100%")
    picture = Image.open(io.BytesIO(kind.render(ROW, ROW.chosen, LIMITS, 100_000).content))
    assert picture.width * picture.height <= 200_000
    worse = kind.perturb(ROW, ROW.chosen, "wall", seed=0, strength=0.5)
    assert kind.check(ROW, worse).outside_m3 == pytest.approx(0.5, abs=0.06)


def test_answers_that_are_none_say_why():
    with pytest.raises(
        RowError, match=r"object: key is missing .got 'rot'.; needed are desc, size, pos, rot; it is 'Oak"
    ):
        ANSWERS["scene"].check(ROW, ROW.rejected)
    lacking = ANSWERS["scene"].perturb(ROW, ROW.chosen, "field", seed=1, strength=0.3)
    assert len(json.loads(lacking.text)) == 3
    with pytest.raises(RowError, match="key is missing"):
        ANSWERS["scene"].load(ROW, lacking)


def test_removals_are_drawn_and_not_made_worse():
    task = Task(scene=GOOD, edit=Edit(verb="remove", words="oak desk"))
    row = task.row("a", [task.response(GOOD.without(2))])
    assert ANSWERS["scene"].check(row, row.chosen).words_found == "nothing was added"
    assert ANSWERS["scene"].render(row, row.chosen, LIMITS, 50_000).content
    with pytest.raises(RowError, match="answer to a removal cannot be made worse"):
        ANSWERS["scene"].perturb(row, row.chosen, "wall", seed=0)
