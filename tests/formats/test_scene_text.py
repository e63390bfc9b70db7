"""Scenes as records and as text, edits as prompts, and plans; what cannot be is named."""

import copy
import json
import math

import numpy as np
import pytest

from mmalign.errors import RowError
from mmalign.formats import scene_json
from mmalign.formats.scene import rounded
from mmalign.formats.scene_commands import carry_out, full_room, plan_prompt, read_plan
from mmalign.formats.scene_geometry import footprint_corners, turn, turned, yaw
from mmalign.formats.scene_task import SYSTEM, Edit, Task, asks_for_scene, task_of
from mmalign.formats.scene_words import short_phrase

SOFA = {"desc": "Gray sofa", "size": [2.0, 0.8, 1], "pos": [0.0, 0.0, -1.0], "rot": [0, 0, 0, 1]}
LAMP = {"desc": "Brass lamp", "size": [0.3, 1.5, 0.3], "pos": [1.5, 0.0, 1.5], "rot": [0, -0.70711, 0, 0.70711]}
RAW = {
    "room_type": "livingroom",
    "bounds_top": [[-2.0, 2.6, 2.0], [2.0, 2.6, 2.0], [2.0, 2.6, -2.0], [-2.0, 2.6, -2.0]],
    "bounds_bottom": [[-2.0, 0.0, 2.0], [2.0, 0.0, 2.0], [2.0, 0.0, -2.0], [-2.0, 0.0, -2.0]],
    "objects": [SOFA, LAMP],
}
SCENE = scene_json.from_json(RAW)


def changed(edit) -> dict:
    raw = copy.deepcopy(RAW)
    edit(raw)
    return raw


def refused(raw) -> str:
    with pytest.raises(RowError) as error:
        scene_json.from_json(raw)
    return str(error.value)


def test_text_is_what_json_dumps_writes_in_the_order_of_keys_of_the_paper():
    assert scene_json.write(SCENE) == json.dumps(RAW)
    assert scene_json.read(json.dumps(RAW)) == SCENE
    official = scene_json.write_object(SCENE.objects[0], "official")
    assert list(json.loads(official)) == ["desc", "pos", "rot", "size"]
    assert scene_json.read_object(official) == SCENE.objects[0]


def test_whole_numbers_stay_whole_and_ids_of_assets_come_back():
    with_id = changed(lambda raw: raw["objects"][0].update(jid="a-1"))
    assert '"size": [2.0, 0.8, 1]' in scene_json.write(SCENE)
    assert scene_json.write(scene_json.from_json(with_id)) == json.dumps(with_id)
    assert scene_json.from_json(with_id).bare() == SCENE


def test_a_real_scene_comes_back_to_the_byte(shared_data):
    path = shared_data / "scene" / "respace_example.json"
    if not path.is_file():
        pytest.skip("no scene/respace_example.json in ../shared/data")
    raw = json.loads(path.read_text(encoding="utf-8"))
    order = ("desc", "size", "pos", "rot", "jid")
    objects = [{key: entry[key] for key in order} for entry in raw["objects"]]
    text = json.dumps({**{key: raw[key] for key in ("room_type", "bounds_top", "bounds_bottom")}, "objects": objects})
    scene = scene_json.from_json(raw)
    assert scene_json.write(scene) == text
    assert scene_json.write(scene_json.read(text)) == text
    assert len(scene.objects) == 7
    assert json.loads(scene_json.write(scene)) == raw
    bare = [{key: entry[key] for key in order[:-1]} for entry in objects]
    assert scene_json.write(scene.bare()) == json.dumps({**json.loads(text), "objects": bare})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda raw: raw["objects"][1].pop("rot"), r"objects[1]: key is missing (got 'rot')"),
        (lambda raw: raw["objects"][1].update(colour=1), r"objects[1]: key is not read (got 'colour')"),
        (lambda raw: raw["objects"][0].update(desc=" "), r"objects[0].desc: object has no description"),
        (lambda raw: raw["objects"][0].update(size=[1, -1, 1]), "objects[0].size: size of an object must be larger"),
        (lambda raw: raw["objects"][0].update(size=[1, 1, 25]), "objects[0].size: object is far too large"),
        (lambda raw: raw["objects"][0].update(size=[1, 1]), "objects[0].size: must be 3 numbers"),
        (lambda raw: raw["objects"][0].update(pos=[0, math.nan, 0]), "objects[0].pos: number is not finite"),
        (lambda raw: raw["objects"][0].update(pos=[0, 0, 5000]), "objects[0].pos: object is far away"),
        (lambda raw: raw["objects"][0].update(rot=[0, 0, 0, 2]), "objects[0].rot: quaternion is not of length 1"),
        (lambda raw: raw["objects"][1].update(rot=[1, 0, 0, 0]), "the object is 'Brass lamp'"),
        (lambda raw: raw["objects"][1].update(rot=[1, 0, 0, 0]), "objects[1].rot: object is tilted"),
        (lambda raw: raw.update(room_type="attic"), "room_type: type of room is unknown (got 'attic'); use one of bed"),
        (lambda raw: raw.pop("bounds_top"), "scene: key is missing (got 'bounds_top')"),
        (lambda raw: raw.update(objects={}), "objects: objects must be a list"),
        (lambda raw: raw["bounds_top"].pop(), "bounds_top: ceiling has not as many corners as the floor (got 3)"),
        (lambda raw: raw["bounds_top"].reverse(), "bounds_top[0]: ceiling is not above the floor"),
        (lambda raw: raw["bounds_top"][2].__setitem__(1, -1), "bounds_top[2]: height of the room is out of bounds"),
        (lambda raw: raw["bounds_bottom"][0].__setitem__(1, 1), "bounds_bottom: floor is not level"),
        (lambda raw: raw.update(bounds_bottom=RAW["bounds_bottom"][:2]), "bounds_bottom: floor is open"),
        (
            lambda raw: raw["bounds_bottom"].append(RAW["bounds_bottom"][0]),
            "bounds_bottom[4]: corner of the floor stands twice",
        ),
        (
            lambda raw: raw["bounds_bottom"].insert(0, raw["bounds_bottom"].pop(1)),
            "bounds_bottom: floor crosses itself",
        ),
        (
            lambda raw: raw.update(bounds_bottom=[[0, 0, 0], [1, 0, 0], [2, 0, 0]]),
            "bounds_bottom: floor",
        ),
        (lambda raw: raw["bounds_bottom"][0].__setitem__(0, -200.0), "bounds_bottom: room is far too large"),
    ],
)
def test_what_cannot_be_a_scene_is_named(edit, message):
    assert message in refused(changed(edit))


def test_an_answer_that_is_no_json_is_named():
    for text in ("a sofa", "[" * 100_000, '{"desc": '):
        with pytest.raises(RowError, match="answer: answer is not JSON"):
            scene_json.read_object(text)
    with pytest.raises(RowError, match="object: object is none"):
        scene_json.read_object("[1]")


def test_turns_follow_the_quaternion():
    # A quarter turn about y takes +z to +x.
    assert turned(np.array([0.0, 1.0]), math.pi / 2) == pytest.approx([1.0, 0.0])
    assert yaw((0, 0.70711, 0, 0.70711)) == pytest.approx(math.pi / 2, abs=1e-5)
    assert yaw(turn(-0.3)) == pytest.approx(-0.3)
    # 30 degrees: (1, 0.5) goes to (cos 30 + 0.5 sin 30, -sin 30 + 0.5 cos 30).
    item = scene_json.object_from_json({**SOFA, "pos": [0, 0, 0], "rot": list(turn(math.pi / 6))}, "object")
    assert footprint_corners(item)[2] == pytest.approx([1.1160254, -0.0669873])
    assert footprint_corners(item, "official")[2] == pytest.approx([0.6160254, 0.9330127])


def test_an_object_is_rounded_as_the_data_set_is():
    item = scene_json.object_from_json({**SOFA, "pos": [0.126, 0, 1 / 3], "rot": list(turn(1.0))}, "object")
    assert rounded(item).pos == (0.13, 0, 0.33)
    assert rounded(item).rot == (0.0, 0.47943, 0.0, 0.87758)


# ---- edits ---------------------------------------------------------------------------------------

ADD = Task(scene=SCENE.without(1), edit=Edit(verb="add", words="brass lamp"))
REMOVE = Task(scene=SCENE, edit=Edit(verb="remove", words="gray sofa"))


def test_a_prompt_holds_the_instruction_and_the_scene_and_is_read_back():
    row = ADD.row("a", [ADD.response(SCENE)])
    assert [message.role for message in row.prompt] == ["system", "user"]
    assert row.prompt[0].text == SYSTEM["add"]
    before = json.dumps({**RAW, "objects": [SOFA]})
    expected = f"<instruction>\n\t<add>brass lamp</add>\n</instruction>\n<scenegraph>\n\t{before}\n</scenegraph>"
    assert row.prompt[1].text == expected
    assert row.chosen.text == json.dumps(LAMP)
    assert asks_for_scene(row) and task_of(row) == ADD
    assert task_of(row).after(row.chosen.text) == SCENE


def test_a_removal_leaves_the_rest_as_it_is():
    rest = SCENE.without(0)
    assert REMOVE.after(REMOVE.response(rest).text) == rest
    for after, message in (
        (SCENE, "objects: answer removes nothing (got 2)"),
        (rest.with_objects([scene_json.object_from_json({**LAMP, "pos": [0, 0, 0]}, "o")]), "was to stay"),
    ):
        with pytest.raises(RowError) as error:
            REMOVE.after(scene_json.write(after))
        assert message in str(error.value)
    with pytest.raises(RowError, match="answer changes the room"):
        REMOVE.after(json.dumps({**RAW, "room_type": "other", "objects": []}))


def test_instructions_are_a_few_words_on_one_line():
    for words in ("", "a <b>", "two\nlines"):
        with pytest.raises(RowError, match="instruction names no furniture"):
            Edit(verb="add", words=words)
    with pytest.raises(RowError, match="instruction is unknown .got 'swap'.; use one of add, remove"):
        Edit(verb="swap", words="sofa")


def test_a_prompt_that_is_no_edit_is_named():
    row = ADD.row("a", [ADD.response(SCENE)])
    text = row.prompt[-1].text.replace("</scenegraph>", "")
    broken = ADD.row("a", row.responses).__class__(
        id="a", prompt=(type(row.prompt[-1]).of("user", text),), responses=row.responses
    )
    with pytest.raises(RowError, match="prompt is no edit of a scene"):
        task_of(broken)


# ---- plans ---------------------------------------------------------------------------------------


def test_a_plan_is_carried_out_one_by_one():
    plan = read_plan('{"reasoning": "worn", "commands": ["<remove>gray sofa</remove>", "<add>brass lamp</add>"]}')
    assert [edit.text() for edit in plan.edits] == ["<remove>gray sofa</remove>", "<add>brass lamp</add>"]
    seen = []

    def answer(task):
        seen.append(len(task.scene.objects))
        return scene_json.write(task.scene.without(0)) if task.edit.verb == "remove" else json.dumps(LAMP)

    assert carry_out(SCENE, plan.edits, answer).objects == (SCENE.objects[1],) * 2
    assert seen == [2, 1]
    with pytest.raises(RowError, match=r"commands\[1\]\.answer: answer is not JSON"):
        carry_out(SCENE, plan.edits, lambda task: answer(task) if task.edit.verb == "remove" else "no")


def test_a_whole_room_is_asked_for_in_words():
    empty = SCENE.with_objects([])
    system, user = plan_prompt(empty, full_room(empty, 5), classes=["sofa"], examples=[["gray sofa", "oak table"]])
    assert user.text.startswith("<prompt>create a living room with 5 objects</prompt>\n<scenegraph>\n\t{")
    assert "Add only: sofa." in system.text and "A similar room has: gray sofa, oak table." in system.text
    with pytest.raises(RowError, match="count: number of objects is out of bounds .got 0."):
        full_room(empty, 0)
    with pytest.raises(RowError, match="wish: wish cannot stand in a prompt"):
        plan_prompt(empty, "a <b>")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("add a lamp", "answer: answer is not JSON"),
        ('{"commands": []}', "commands: answer has no commands, or too many"),
        ('{"commands": ["lamp"]}', "commands[0]: command is unknown (got 'lamp')"),
        ('{"commands": ["<add>a very nice small brass lamp</add>"]}', "commands[0]: piece to add is told in too many"),
        ('{"commands": ["<remove>lamp</remove>"]}', "reasoning: something is removed without a reason"),
        (
            '{"reasoning": "old", "commands": ["<add>lamp</add>", "<remove>lamp</remove>"]}',
            "commands: a removal stands after an addition",
        ),
    ],
)
def test_a_plan_that_is_none_is_named(answer, message):
    with pytest.raises(RowError) as error:
        read_plan(answer)
    assert message in str(error.value)


def test_short_phrases_name_an_object():
    assert short_phrase("A modern, minimalist three-seat gray fabric sofa with square arms.") == "gray fabric sofa"
    assert short_phrase("Brass lamp") == "brass lamp"
    assert short_phrase("Lamp.") == "lamp"
