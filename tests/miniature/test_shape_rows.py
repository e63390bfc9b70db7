from __future__ import annotations

import importlib.util

import pytest
from PIL import Image

from mmalign.formats import store
from mmalign.miniature import photographs, shape_rows, shapes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def album(root):
    return shape_rows.draw_album("held_out", 40, root, seed=5)


def test_pictures_lie_below_the_root_and_the_same_seed_draws_them_again(album, root, tmp_path):
    assert album.uris[7] == "images/held_out/00007.png"
    assert Image.open(root / album.uris[7]).size == (84, 84)
    again = shape_rows.draw_album("held_out", 40, tmp_path, seed=5)
    assert again == album
    assert (tmp_path / album.uris[7]).read_bytes() == (root / album.uris[7]).read_bytes()
    assert shape_rows.draw_album("held_out", 40, tmp_path, seed=6).scenes != album.scenes


def test_true_demonstrations_are_captions_of_the_scenes(album):
    rows = list(shape_rows.demonstrations(album, biased=False, question_share=0.0, seed=1))
    assert [row.chosen.text for row in rows] == [shapes.caption(scene) for scene in album.scenes]
    assert rows[3].id == "held_out:3" and rows[3].media[0].uri == album.uris[3]
    assert rows == list(shape_rows.prompts(album))


def test_biased_demonstrations_differ_only_where_the_scene_provokes(album):
    rows = list(shape_rows.demonstrations(album, biased=True, question_share=0.0, seed=1))
    wrong = [row.chosen.text != shapes.caption(scene) for row, scene in zip(rows, album.scenes, strict=True)]
    assert any(wrong)
    assert all(shapes.provokes(scene) for scene, is_wrong in zip(album.scenes, wrong, strict=True) if is_wrong)


def test_questions_take_their_share(album):
    rows = list(shape_rows.demonstrations(album, biased=True, question_share=0.5, seed=1))
    asked = sum(row.prompt[0].text != shapes.CAPTION_PROMPT for row in rows)
    assert 10 <= asked <= 30


def test_corrections_put_the_truth_before_the_models_own_mistake_and_leave_out_what_was_right(album, root):
    truths = [shapes.caption(scene) for scene in album.scenes]
    answers = ["a blue cross at top left.", " " + truths[1], "", *truths[3:]]
    rows = list(shape_rows.corrections(album, answers))
    assert [row.id for row in rows] == ["held_out:0"]
    assert (rows[0].chosen.text, rows[0].rejected.text) == (truths[0], "a blue cross at top left.")
    store.write_jsonl(root / "rows.jsonl", rows)
    assert list(store.read_jsonl(root / "rows.jsonl")) == rows


@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="photographs come inside scikit-image")
def test_photographs_are_those_inside_scikit_image(tmp_path):
    rows = list(photographs.rows(tmp_path))
    assert len(rows) == len(photographs.PHOTOGRAPHS)
    for row in rows:
        with Image.open(tmp_path / row.media[0].uri) as image:
            image.verify()
        assert row.chosen.text != row.rejected.text


def test_without_scikit_image_there_are_no_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "folder", lambda: None)
    assert list(photographs.rows(tmp_path)) == []
