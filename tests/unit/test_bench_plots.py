"""The page of figures: a place for each table, and charts that show what they were given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from bench import chart, plots


def test_the_page_has_a_place_for_every_table_and_every_chart_that_it_shows() -> None:
    page = plots.PAGE.read_text()
    for name in plots.TABLES:
        assert f"| {name} |" in plots.fill(page, name, f"| {name} |")
    shown = set(re.findall(r"performance/(\S+\.svg)", page))
    assert shown == {file.name for file in plots.CHARTS.glob("*.svg")}
    with pytest.raises(ValueError, match="has no"):
        plots.fill(page, "nothing", "")


def test_charts_are_svg_and_show_every_value_within_their_frame() -> None:
    drawn = chart.dots(
        "a < b", [("one", [chart.Dot(0.3), chart.Dot(70_000.0, 1)]), ("two", [chart.Dot(1.0)])], ["x", "y"]
    )
    drawn_lines = chart.lines("c & d", [("one", [(1, 5.0), (1000, 7.0)]), ("two", [(10, 0.5)])], x="devices")
    for text, count in ((drawn, 5), (drawn_lines, 5)):
        root = ET.fromstring(text)
        circles = root.findall("{http://www.w3.org/2000/svg}circle")
        assert len(circles) == count  # two of them in the legend
        assert all(0 <= float(circle.attrib["cx"]) <= chart.WIDTH for circle in circles)


@pytest.mark.parametrize(
    ("value", "text"), [(140_199.0, "140,000"), (0.0512, "0.0512"), (12.0, "12"), (999.6, "1,000")]
)
def test_numbers_of_charts_have_three_digits(value: float, text: str) -> None:
    assert chart.number(value) == text
