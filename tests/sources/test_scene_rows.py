"""Rows of furnished rooms: what each kind becomes, and what is refused with which words."""

import copy
import json

import pytest

from mmalign.errors import RowError
from mmalign.formats.scene_task import task_of
from mmalign.sources import scene
from mmalign.sources.detect import parse
from mmalign.sources.read import RawRow

WHOLE, ADDED, REMOVED = scene.EXAMPLES.values()
STAND = ADDED["chosen"]


def preference(row):
    return parse(RawRow("rows.jsonl", 1, row), None)


def changed(row, **changes):
    return {**copy.deepcopy(row), **changes}


def refused(row) -> str:
    with pytest.raises(RowError) as error:
        preference(row)
    return str(error.value)


def test_a_whole_scene_asks_for_its_last_object():
    made = preference(WHOLE)
    assert made.id == "room-1" and made.provenance["source"] == "scene"
    assert [response.text for response in made.responses] == [json.dumps(STAND)]
    assert task_of(made).edit.text() == "<add>oak nightstand</add>"
    assert len(task_of(made).scene.objects) == 1
    named = preference(changed(WHOLE, instruction="<add>bedside table</add>"))
    assert task_of(named).edit.words == "bedside table"


def test_a_row_of_the_data_set_holds_its_scene():
    inner = {key: value for key, value in WHOLE.items() if key != "id"} | {"room_id": "Bedroom-17"}
    inner["objects"] = [{**entry, "jid": "a-1"} for entry in inner["objects"]]
    made = preference({"room_type": "bedroom", "n_objects": 2, "split": "test", "scene": inner})
    assert made.id == "Bedroom-17"
    assert "jid" not in made.chosen.text and "jid" not in made.prompt[-1].text


def test_answers_are_compared_best_first():
    made = preference(ADDED)
    assert [json.loads(response.text)["pos"][0] for response in made.responses] == [1.1, 1.9]
    listed = {"answers": [{"answer": STAND, "score": "2"}, {"answer": ADDED["rejected"], "score": 1}, "a stand"]}
    row = {**{key: value for key, value in ADDED.items() if key not in ("chosen", "rejected")}, **listed}
    ranked = preference(row)
    assert [response.score for response in ranked.responses] == [2, 1, None]
    assert ranked.responses[2].text == "a stand"


def test_a_removal_is_answered_with_the_rest():
    made = preference(REMOVED)
    assert made.chosen.score == 1.0
    assert len(task_of(made).after(made.chosen.text).objects) == 1


def test_a_worse_answer_that_cannot_be_read_stands_as_it_is_written():
    lacking = {key: value for key, value in STAND.items() if key != "rot"}
    made = preference(changed(ADDED, rejected=lacking))
    assert json.loads(made.rejected.text) == lacking


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(WHOLE, objects=[]), "objects: scene has no object to ask for"),
        (
            changed(WHOLE, objects=[{**STAND, "rot": [0, 0, 0, 3]}]),
            "objects[0].rot: quaternion is not of length 1 (got [0, 0, 0, 3])",
        ),
        (changed(WHOLE, objects=[{**STAND, "size": [-1, 1, 1]}]), "objects[0].size: size of an object must be larger"),
        (changed(ADDED, chosen={"desc": "Oak nightstand"}), "chosen.object: key is missing (got 'size')"),
        (changed(ADDED, chosen="a stand"), "chosen.answer: answer is not JSON"),
        (changed(ADDED, instruction="add a stand"), "instruction: command is unknown (got 'add a stand')"),
        (changed(ADDED, instruction=None), "instruction: answers stand without an instruction"),
        (changed(WHOLE, instruction="<remove>bed</remove>"), "instruction: removal has no answer"),
        (changed(REMOVED, answers=[{"answer": REMOVED["scene"]}]), "answers[0].objects: answer removes nothing"),
        (changed(REMOVED, answers=[]), "answers: answers must be a list, best first"),
        (
            changed(ADDED, scene={**ADDED["scene"], "bounds_bottom": ADDED["scene"]["bounds_bottom"][:2]}),
            "scene.bounds_bottom: floor is open",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_named(row, message):
    assert message in refused(row)
