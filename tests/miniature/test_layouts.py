"""The world of posters: its truths are good layouts, its annotator's are not, and rows say what they should."""

from itertools import product

import numpy as np
import pytest

from mmalign.evaluate import layout as metrics
from mmalign.formats.layout_task import task_of
from mmalign.formats.media import MediaRef
from mmalign.miniature import layout_rows, layouts
from mmalign.miniature.layouts import Poster
from mmalign.modalities.answers import answer_kind

PICTURE = MediaRef(kind="image", uri="picture.png")
POSTERS = [Poster(*values) for values in product(layouts.SIDES, layouts.TITLES, layouts.ALIGNMENTS, (False, True))]


def test_there_are_72_posters_and_as_many_truths():
    truths = {(poster.side, layouts.truth(poster, layouts.task(poster, PICTURE)).boxes) for poster in POSTERS}
    assert len(POSTERS) == len(truths) == 72


@pytest.mark.parametrize("poster", POSTERS, ids=str)
def test_a_truth_is_aligned_apart_inside_and_off_the_subject(poster):
    task = layouts.task(poster, PICTURE)
    truth = layouts.truth(poster, task)
    edges = metrics.boxes_of(truth)
    assert metrics.alignment(edges)["layout_gan_pp"] == pytest.approx(0, abs=1e-9)
    assert metrics.overlap(edges)["layout_gan"] == 0
    assert layout_rows.occlusion(poster, truth) == 0
    assert truth.overflowing() == ()
    assert task.layout(task.response(truth).text) == truth


def test_the_annotator_is_in_a_hurry_in_two_thirds_of_the_cases():
    rng = np.random.default_rng(0)
    poster = Poster("left", "Sale", "left", True)
    task = layouts.task(poster, PICTURE)
    truth = layouts.truth(poster, task)
    drawn = [layouts.hurried(poster, task, rng) for _ in range(400)]
    hurried = [layout for layout in drawn if layout != truth]
    assert len(hurried) / len(drawn) == pytest.approx(0.65, abs=0.07)
    edges = metrics.boxes_of(hurried[0])
    assert metrics.overlap(edges)["layout_gan_pp"] > 0.1
    assert hurried[0].boxes[1].x == truth.boxes[1].x + 3 / 32


def test_rows_are_of_the_task_and_the_truth_comes_first():
    wall = layout_rows.draw_inline_wall("posters", 12, seed=3)
    rows = list(layout_rows.comparisons(wall, seed=4))
    assert len(rows) >= 10
    for row in rows:
        number = int(row.id.partition(":")[2])
        task = task_of(row)
        assert answer_kind(row) == "layout"
        assert task.layout(row.chosen.text).boxes == wall.truths()[number].boxes
        assert task.layout(row.rejected.text).boxes != wall.truths()[number].boxes
        assert 0 <= row.difficulty <= 0.75 and row.tags["mistake"] in layout_rows.MISTAKES
    assert rows == list(layout_rows.comparisons(layout_rows.draw_inline_wall("posters", 12, seed=3), seed=4))


def test_the_judge_prefers_what_is_better_and_reads_no_truth():
    wall = layout_rows.draw_inline_wall("posters", 3, seed=5)
    truths = [task.response(truth).text for task, truth in zip(wall.tasks, wall.truths(), strict=True)]
    bad = [text.replace("<pos_0><pos_0><pos_31><pos_31>", "", 1) for text in truths]
    rows = list(layout_rows.judged(wall, [(b, t, b) for b, t in zip(bad, truths, strict=True)]))
    assert [(row.chosen.text, row.rejected.text) for row in rows] == list(zip(truths, bad, strict=True))
    assert all(row.chosen.score == pytest.approx(1.0) and row.rejected.score == -1.0 for row in rows)
    assert list(layout_rows.judged(wall, [(t, t) for t in truths])) == []


def test_exchanged_pictures_show_another_side():
    wall = layout_rows.draw_inline_wall("posters", 20, seed=6)
    other = layout_rows.with_pictures_exchanged(wall)
    grounds = [task.brief.elements[0].asset for task in wall.tasks]
    for poster, task in zip(wall.posters, other.tasks, strict=True):
        assert wall.posters[grounds.index(task.brief.elements[0].asset)].side != poster.side
    assert other.truths() != wall.truths()  # their briefs hold other pictures
    assert [truth.boxes for truth in other.truths()] == [truth.boxes for truth in wall.truths()]


def test_words_are_whole_pieces_of_prompts():
    words = layout_rows.words()
    assert {"Summer", "sale", "background", "elements", "tokens"} <= set(words)
    assert len(words) < 80 and all(len(word) > 1 and word == word.strip(" ") for word in words)
