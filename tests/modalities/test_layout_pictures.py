"""Layouts drawn, made worse, scored, and told of as answers."""

import io

import numpy as np
import pytest
from pictures import encoded, halves
from PIL import Image

from mmalign.errors import ConfigError, RowError
from mmalign.formats import boxes as geometry
from mmalign.formats.layout import Box, Brief, Element, Layout
from mmalign.formats.layout_task import Task
from mmalign.formats.layout_text import Grid
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.modalities import layout as verbs
from mmalign.modalities import layout_fonts, layout_render, layout_scores
from mmalign.modalities.answers import ANSWERS, answer_kind
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.layout_perturb import PERTURBATIONS, perturb
from mmalign.modalities.layout_render import paint, size_of
from mmalign.modalities.layout_type import set_text

LIMITS = ImageLimits()
RED, BLUE, WHITE = (200, 0, 0), (0, 0, 200), (255, 255, 255)
WHOLE = (0, 0, 1, 1)


def box(left, top, right, bottom) -> Box:
    return Box(x=left, y=top, width=right - left, height=bottom - top)


def layout(*placed, width=100, height=100) -> Layout:
    """`placed`: pairs of edges and facts of an element."""
    elements = tuple(Element(**facts) for _, facts in placed)
    brief = Brief(id="a", width_px=width, height_px=height, elements=elements)
    return Layout(brief=brief, boxes=tuple(box(*edges) for edges, _ in placed))


def shape(colour=RED, **facts):
    return {"kind": "shape", "colour": colour, **facts}


def pixel(picture, x, y):
    return picture.getpixel((round(x * picture.width), round(y * picture.height)))


# ---- pictures ------------------------------------------------------------------------------------


def test_shapes_lie_where_their_boxes_are():
    picture = paint(layout(((0.25, 0.5, 0.75, 0.75), shape())), LIMITS, 100 * 100)
    assert picture.size == (100, 100)
    red = np.all(np.asarray(picture) == RED, axis=-1)
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (50, 74, 25, 74)
    assert red.sum() == 25 * 50


def test_the_picture_has_the_area_that_is_asked_for_and_the_shape_of_the_canvas():
    assert size_of(layout((WHOLE, shape()), width=1080, height=1920), 90_000) == (225, 400)
    long = layout((WHOLE, shape()), width=100_000, height=1)
    width, height = size_of(long, 10_000)
    assert width <= 10_000 and height >= 1


def test_later_elements_and_larger_z_lie_above():
    first, second = ((0, 0, 1, 1), shape(RED)), ((0, 0, 1, 1), shape(BLUE))
    assert pixel(paint(layout(first, second), LIMITS, 400), 0.5, 0.5) == BLUE
    raised = ((0, 0, 1, 1), shape(RED, z=1))
    assert pixel(paint(layout(raised, second), LIMITS, 400), 0.5, 0.5) == RED


def test_opacity_mixes_with_what_is_beneath():
    picture = paint(layout((WHOLE, shape((0, 0, 0), opacity=0.5))), LIMITS, 400)
    assert pixel(picture, 0.5, 0.5) == pytest.approx((127, 127, 127), abs=1)
    assert pixel(paint(layout((WHOLE, shape(opacity=0.0))), LIMITS, 400), 0.5, 0.5) == WHITE


def test_angles_turn_clockwise_around_the_middle():
    lying = (0.2, 0.45, 0.8, 0.55)
    upright = paint(layout((lying, shape(angle_deg=90))), LIMITS, 10_000)
    assert pixel(upright, 0.5, 0.25) == RED and pixel(upright, 0.25, 0.5) == WHITE
    slanted = paint(layout((lying, shape(angle_deg=45))), LIMITS, 10_000)
    assert pixel(slanted, 0.65, 0.65) == RED and pixel(slanted, 0.65, 0.35) == WHITE


def test_pictures_are_stretched_and_stay_see_through():
    left_red = np.zeros((8, 8, 4), dtype=np.uint8)
    left_red[:, :4] = (*RED, 255)
    buffer = io.BytesIO()
    Image.fromarray(left_red).save(buffer, format="PNG")
    asset = MediaRef(kind="image", content=buffer.getvalue())
    picture = paint(
        layout(
            (WHOLE, {"kind": "background", "colour": BLUE}), ((0.2, 0.4, 0.8, 0.6), {"kind": "image", "asset": asset})
        ),
        LIMITS,
        10_000,
    )
    assert pixel(picture, 0.3, 0.5) == RED and pixel(picture, 0.7, 0.5) == BLUE and pixel(picture, 0.3, 0.3) == BLUE


def test_a_background_told_on_a_grid_leaves_no_rim():
    grid = Grid(bins=32)
    snapped = grid.snapped(layout((WHOLE, {"kind": "background", "colour": BLUE})))
    assert paint(snapped, LIMITS, 10_000).getcolors() == [(10_000, BLUE)]


def test_ellipses_and_rounded_shapes_leave_their_corners():
    for category in ("ellipse", "rounded"):
        picture = paint(layout((WHOLE, shape(category=category))), LIMITS, 10_000)
        assert pixel(picture, 0.5, 0.5) == RED and picture.getpixel((0, 0)) == WHITE


def test_what_has_no_picture_is_missed_by_nobody():
    picture = paint(layout((WHOLE, {"kind": "image", "category": "logo"})), LIMITS, 40_000)
    assert len(set(picture.getdata())) > 5 and WHITE not in set(picture.getdata())


def test_giant_and_distant_boxes_cost_no_more_than_the_canvas():
    huge = layout(((-5, -4, 5, 6), shape(angle_deg=30)), ((8, 8, 9, 9), shape(BLUE)))
    picture = paint(huge, LIMITS, 10_000)
    assert picture.getcolors() == [(10_000, RED)]


def test_texts_are_set_in_their_boxes():
    words = {"kind": "text", "text": "Big summer sale", "colour": RED}
    picture = np.asarray(paint(layout(((0.2, 0.4, 0.8, 0.6), words)), LIMITS, 40_000))
    rows, columns = np.nonzero((picture != 255).any(axis=-1))
    assert rows.min() >= 78 and rows.max() <= 121 and columns.min() >= 38 and columns.max() <= 161
    assert columns.max() - columns.min() > 80


def test_a_text_without_a_colour_stands_out():
    words = {"kind": "text", "text": "HHHH"}
    for ground, ink in (((0, 0, 0), 250), ((255, 255, 255), 28)):
        picture = paint(layout((WHOLE, {"kind": "background", "colour": ground}), (WHOLE, words)), LIMITS, 10_000)
        values = np.asarray(picture.convert("L")).astype(int)
        assert abs(values - ink).min() < 5


def test_texts_keep_their_alignment_their_lines_and_their_largest_size():
    def extent(**how):
        alpha = np.asarray(set_text("HH\nH", (300, 100), layout_fonts.typeface(None), RED, **how))[..., 3]
        rows, columns = np.nonzero(alpha)
        return columns.min(), columns.max(), np.ptp(rows)

    left, center, right = (extent(align=align, largest_px=20) for align in ("left", "center", "right"))
    assert left[0] < 10 and right[1] > 290 and left[0] < center[0] < right[0]
    assert left[2] < 45 < extent()[2]


@pytest.mark.parametrize("text", ["", "   ", "x" * 5_000, "日本語のとても長い文章です", "a\n" * 300, "­"])
def test_no_text_is_fatal(text):
    assert set_text(text, (40, 20), layout_fonts.typeface("Futura Bold"), RED).size == (40, 20)


def test_typefaces_fall_back_by_their_kind_and_at_last_to_pillows_own(monkeypatch):
    kinds = {"Playfair Display": "Serif", "Noto Sans": "Sans", "Sans-Serif": "Sans", "Courier New": "Mono"}
    for name, kind in kinds.items():
        if layout_fonts.typeface(name) != layout_fonts.OWN_FACE:
            assert kind in layout_fonts.typeface(name)

    original = layout_fonts.ImageFont.truetype

    def none(font, *arguments, **more):
        if isinstance(font, str):
            raise OSError("cannot open resource")
        return original(font, *arguments, **more)

    monkeypatch.setattr(layout_fonts.ImageFont, "truetype", none)
    layout_fonts._installed.cache_clear()
    try:
        assert layout_fonts.typeface("Playfair Display") == layout_fonts.OWN_FACE
        assert np.asarray(set_text("Sale", (80, 30), layout_fonts.OWN_FACE, RED))[..., 3].any()
    finally:
        layout_fonts._installed.cache_clear()


def test_a_missing_picture_is_refused_and_the_element_named():
    asset = MediaRef(kind="image", uri="gone.png")
    with pytest.raises(RowError) as error:
        paint(layout((WHOLE, shape()), (WHOLE, {"kind": "image", "asset": asset})), LIMITS, 400)
    assert (error.value.reason, error.value.field) == ("image is missing", "elements[1].asset")


def test_pictures_that_are_too_large_together_are_refused(monkeypatch):
    monkeypatch.setattr(layout_render, "MOST_DECODED_PIXELS", 32 * 24 + 1)
    picture = {"kind": "image", "asset": MediaRef(kind="image", content=encoded(halves(32, 24)))}
    assert paint(layout((WHOLE, picture)), LIMITS, 400).size == (20, 20)
    with pytest.raises(RowError, match="pictures of the layout have too many pixels together .got 1536."):
        paint(layout((WHOLE, picture), (WHOLE, picture)), LIMITS, 400)


# ---- worse layouts -------------------------------------------------------------------------------

GOOD = layout(
    (WHOLE, {"kind": "background"}),
    ((0.1, 0.1, 0.5, 0.2), {"kind": "text", "text": "a"}),
    ((0.1, 0.3, 0.4, 0.5), {"kind": "text", "text": "b"}),
    ((0.1, 0.7, 0.3, 0.8), shape()),
)


@pytest.mark.parametrize("how", PERTURBATIONS)
def test_a_worse_layout_is_seeded_and_keeps_the_background(how):
    worse = perturb(GOOD, how, seed=3, strength=0.5)
    assert worse == perturb(GOOD, how, seed=3, strength=0.5)
    assert worse != GOOD
    assert worse.boxes[0] == GOOD.boxes[0] and worse.brief == GOOD.brief


def distance(worse: Layout) -> float:
    return float(np.abs(geometry.as_edges(worse.boxes) - geometry.as_edges(GOOD.boxes)).sum())


@pytest.mark.parametrize("how", [how for how in PERTURBATIONS if how != "swap"])
def test_a_larger_strength_changes_more(how):
    by_strength = [
        np.mean([distance(perturb(GOOD, how, seed=seed, strength=s)) for seed in range(8)]) for s in (0.2, 0.6, 1)
    ]
    assert by_strength == sorted(by_strength) and by_strength[0] < by_strength[2]


def shared(worse: Layout) -> float:
    """The largest share of a smaller element that another covers."""
    edges = geometry.as_edges(worse.boxes)[1:]
    shares = geometry.intersections(edges, edges) / np.minimum.outer(geometry.areas(edges), geometry.areas(edges))
    return float(shares[np.triu_indices(3, 1)].max())


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.75])
def test_overlap_covers_the_share_that_is_asked_for(strength):
    for seed in range(4):
        assert shared(perturb(GOOD, "overlap", seed=seed, strength=strength)) == pytest.approx(strength, abs=1e-6)


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_out_puts_the_share_that_is_asked_for_beyond_the_canvas(strength):
    for seed in range(4):
        worse = perturb(GOOD, "out", seed=seed, strength=strength)
        edges = geometry.as_edges(worse.boxes)[1:]
        inside = geometry.intersections(edges, np.array([WHOLE]))[:, 0] / geometry.areas(edges)
        assert min(inside) == pytest.approx(1 - strength, abs=1e-6)
        assert len(worse.overflowing()) == 1


def test_misalign_leaves_no_common_line():
    assert geometry.nearest_line(geometry.as_edges(GOOD.boxes)[1:]).max() == 0.0
    for seed in range(6):
        worse = perturb(GOOD, "misalign", seed=seed, strength=1.0)
        left = sorted(b.x for b in worse.boxes[1:])
        assert min(np.diff(left)) > 0.005


def test_swap_exchanges_middles_and_keeps_sizes():
    worse = perturb(GOOD, "swap", seed=0, strength=1.0)
    middles = [np.array(sorted(b.centre for b in one.boxes)) for one in (worse, GOOD)]
    assert middles[0] == pytest.approx(middles[1])
    assert [(b.width, b.height) for b in worse.boxes] == [(b.width, b.height) for b in GOOD.boxes]


def test_scale_keeps_the_middle():
    worse = perturb(GOOD, "scale", seed=1, strength=1.0)
    changed = [k for k in range(4) if worse.boxes[k] != GOOD.boxes[k]]
    assert len(changed) == 1
    assert worse.boxes[changed[0]].centre == pytest.approx(GOOD.boxes[changed[0]].centre)
    assert worse.boxes[changed[0]].width / GOOD.boxes[changed[0]].width in (pytest.approx(2.5), pytest.approx(0.4))


def test_what_cannot_be_made_worse_is_named():
    with pytest.raises(ConfigError, match="layout perturbation 'blur' is unknown; use one of jitter, swap, overlap"):
        perturb(GOOD, "blur", seed=0)
    with pytest.raises(ConfigError, match="strength of 'swap' must satisfy 0 < strength <= 1, got 0"):
        perturb(GOOD, "swap", seed=0, strength=0)
    lone = layout((WHOLE, {"kind": "background"}), ((0, 0, 0.5, 0.5), shape()))
    with pytest.raises(RowError, match="too few elements to be made worse .got 1.; overlap needs 2 elements"):
        perturb(lone, "overlap", seed=0)


# ---- rules of thumb ------------------------------------------------------------------------------


def test_scores_worked_by_hand():
    scores = layout_scores.score(GOOD)
    assert scores["alignment"] == scores["overlap"] == 1.0
    two = layout(((0, 0, 0.5, 0.5), shape()), ((0.25, 0.1, 0.75, 0.6), shape()))
    # 0.25 x 0.4 of 0.25 is covered; the nearest lines, from top to top, are 0.1 apart.
    assert layout_scores.score(two) == pytest.approx(
        {"overlap": 0.6, "alignment": 0.9, "balance": layout_scores.score(two)["balance"]}
    )
    assert layout_scores.quality({"alignment": 0.9, "overlap": 0.6}) == pytest.approx(0.75)


def test_balance_is_of_the_middle_of_what_is_covered():
    middle = layout(((0.25, 0.25, 0.75, 0.75), shape()))
    corner = layout(((0, 0, 0.5, 0.5), shape()))
    assert layout_scores.score(middle)["balance"] == pytest.approx(1.0)
    assert layout_scores.score(corner)["balance"] == pytest.approx(0.5)
    assert layout_scores.score(layout(((2, 2, 3, 3), shape())))["balance"] == 0.0


def test_readability_falls_with_contrast_and_with_a_busy_ground():
    def readability(ground, ink):
        words = {"kind": "text", "text": "Summer", "colour": ink}
        return layout_scores.score(layout((WHOLE, ground), ((0.1, 0.3, 0.9, 0.7), words)), LIMITS)["readability"]

    plain = {"kind": "background", "colour": (250, 250, 250)}
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::4] = 255
    busy = {"kind": "background", "asset": MediaRef(kind="image", content=encoded(Image.fromarray(stripes)))}
    assert readability(plain, (20, 20, 20)) > 0.95
    assert readability(plain, (200, 200, 200)) < 0.5
    assert readability(busy, (20, 20, 20)) < 0.5
    assert readability(plain, (250, 250, 250)) < 0.05


# ---- answers -------------------------------------------------------------------------------------

TASK = Task(brief=GOOD.brief, grid=Grid(bins=100), form="json")
ROW = TASK.row("a", [TASK.response(GOOD), Response.of("[]")])


def test_answers_that_are_layouts_are_told_of_and_drawn():
    assert answer_kind(ROW) == "layout"
    facts = ANSWERS["layout"].check(ROW, ROW.chosen)
    assert (facts.elements, facts.beyond_canvas, facts.overlap) == (4, 0, 1.0)
    picture = ANSWERS["layout"].render(ROW, ROW.chosen, LIMITS, 2_500)
    assert Image.open(io.BytesIO(picture.content)).size == (50, 50)
    worse = ANSWERS["layout"].perturb(ROW, ROW.chosen, "swap", seed=0, strength=1.0)
    assert ANSWERS["layout"].load(ROW, worse) == TASK.grid.snapped(
        perturb(TASK.grid.snapped(GOOD), "swap", seed=0, strength=1.0)
    )


def test_answers_that_are_none_say_why():
    with pytest.raises(RowError, match="element is missing .got 0.; it is background"):
        ANSWERS["layout"].check(ROW, ROW.rejected)


def test_plain_answers_are_of_no_kind():
    row = Preference(id="a", prompt=(Message.of("user", "What is it?"),), responses=(Response.of("x"),))
    assert answer_kind(row) is None


def test_pictures_of_elements_are_cut_out_of_a_screenshot():
    page = halves(100, 80)
    placed = layout(((0, 0, 0.5, 1), {"kind": "image"}), ((0.5, 0, 1.2, 1), {"kind": "image"}), ((2, 2, 3, 3), shape()))
    assets = [element.asset for element in verbs.cut_out(placed, page).brief.elements]
    sizes = [Image.open(io.BytesIO(asset.content)).size for asset in assets[:2]]
    assert sizes == [(50, 80), (50, 80)]
    assert assets[2] is None
