"""Charts: round ticks, readable figures, and pictures that hold for any curve."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from mmalign.report.svg import HEIGHT, WIDTH, Series, figure, interval_bar, is_noisy, legend, line_chart, thinned, ticks
from mmalign.train.curves import Curve


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.74, [0.4, 0.5, 0.6, 0.7]),
        (-2.0, 9.0, [-0.0, 2.5, 5.0, 7.5]),
        (1, 160, [50, 100, 150]),
        (3.0, 3.0, [3.0]),
    ],
)
def test_ticks_are_round_numbers_inside_the_axis(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (0.38412, "0.384"), (-1.5, "−1.5"), (160, "160"), (1234.5, "1234"), (12000, "12k"),
     (2.5e6, "2.5M"), (1e300, "1e300"), (-2.5e15, "−2.5e15"), (1e-4, "1e−4"), (-2.5e-5, "−2.5e−5")],
)  # fmt: skip
def test_figures_read_as_people_write_them(value, text):
    assert figure(value) == text


def test_a_long_curve_is_drawn_as_means_of_neighbours():
    curve = thinned(Curve(tuple(range(1, 11)), tuple(map(float, range(10)))), most=5)
    assert curve == Curve((2, 4, 6, 8, 10), (0.5, 2.5, 4.5, 6.5, 8.5))


def test_a_schedule_is_not_noisy_and_a_zigzag_is():
    assert not is_noisy([0, 5, 4, 3, 2, 1, 0])
    assert not is_noisy([2.0, 2.0, 2.0])
    assert is_noisy([0, 1] * 20)


CURVES = {
    "one point": Curve((7,), (0.3,)),
    "constant": Curve(tuple(range(50)), (2.0,) * 50),
    "zero": Curve((1, 2, 3), (0.0, 0.0, 0.0)),
    "tiny": Curve((1, 2, 3), (1e-12, 2e-12, 3e-12)),
    "huge": Curve((1, 2, 3), (-1e12, 1e12, 3e12)),
    "long and noisy": Curve(tuple(range(5000)), tuple(float(k % 7) for k in range(5000))),
}


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", CURVES)
def test_any_curve_gives_a_well_formed_picture_inside_its_frame(name, log):
    svg = ElementTree.fromstring(line_chart([Series("loss", CURVES[name])], label="loss", log=log))
    for circle in svg.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= WIDTH
        assert 0 <= float(circle.get("cy")) <= HEIGHT
    assert "nan" not in ElementTree.tostring(svg, encoding="unicode")


def test_labels_are_escaped():
    series = [Series("<script>&", Curve((1, 2), (0.0, 1.0)))]
    assert "<script>" not in line_chart(series, label='"><script>') + legend(series)


def test_a_hovered_point_tells_its_exact_value():
    assert "loss, step 2: 0.25" in line_chart([Series("loss", Curve((1, 2), (0.5, 0.25)))], label="loss")


def test_an_interval_beyond_the_axis_is_cut_at_its_end():
    bar = ElementTree.fromstring(interval_bar(1.0, 0.9, 1.3, tone="a"))
    reach = next(line for line in bar if line.get("class") == "reach")
    assert float(reach.get("x2")) == 96.0
    assert float(reach.get("x1")) == pytest.approx(4 + 92 * 0.9, abs=0.01)


def _labels(svg):
    return re.findall(r'class="axis" x="[^"]*" y="[^"]*">([^<]*)<', svg)


def test_a_logarithmic_axis_has_powers_of_ten_or_round_numbers_between():
    wide = line_chart([Series("norm", Curve((1, 2), (0.02, 30.0)))], label="norm", log=True)
    narrow = line_chart([Series("norm", Curve((1, 2), (0.6, 2.1)))], label="norm", log=True)
    assert _labels(wide) == ["0.1", "1", "10"]
    assert _labels(narrow) == ["1", "1.5", "2"]


def test_labels_of_a_small_axis_are_all_written_alike():
    svg = line_chart([Series("rate", Curve((1, 2), (0.0, 1e-3)))], label="rate")
    assert _labels(svg) == ["0", "2.5e−4", "5e−4", "7.5e−4", "1e−3"]
