"""The report of a clip: what it says, that its curves tell the truth, and how a browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylize_video.charts import BINS, axis, clock, number
from stylize_video.report import Row, page, picks
from tests import test_batch_report as batch
from tests.test_batch_report import HOSTILE, Node, Show, anything, browser, show, shown

__all__ = ["show"]  # a fixture


class Reader(batch.Reader):
    """What is opened is closed, in order, and nothing runs."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        assert len(node.attributes) == len(attrs)
        assert not [name for name in node.attributes if name.startswith("on")]
        self.open[-1].children.append(node)
        if tag not in batch.VOID:
            self.open.append(node)


def read(document: str) -> Node:
    assert document.startswith("<!DOCTYPE html>\n")
    assert document.encode("utf-8").decode("utf-8") == document
    reader = Reader()
    reader.feed(document)
    reader.close()
    (root,) = reader.open
    return root


def jpeg(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 20), color).save(buffer, "JPEG")
    return buffer.getvalue()


def row(number: int, shot: int = 1, **values: object) -> Row:
    plain = Row(number, number / 10, shot, 10, 0.5, 0.002, 0.001, 0.3, 0.5, 0.4)
    return dataclasses.replace(plain, **values)  # type: ignore[arg-type]


def clip(count: int, shot: int = 10**9) -> list[Row]:
    """Rows of shots of ``shot`` frames."""
    begins = {"steps": 150, "seconds": 8.0, "warp": None, "source_warp": None}
    rows = [row(number, 1 + number // shot, **(begins if number % shot == 0 else {})) for number in range(count)]
    return [dataclasses.replace(each, style=0.3 + math.sin(each.number) / 50) for each in rows]


def charts(root: Node) -> dict[str, Node]:
    found = [node for node in root.all("figure") if node.all("svg")]
    return {node.all("h3")[0].text: node for node in found}


def points(path: Node) -> list[list[tuple[float, float]]]:
    """The runs of a line."""
    runs = [run.removesuffix("h0").split("L") for run in path.attributes["d"].split("M")[1:]]
    return [[(float(x), float(y)) for x, y in (point.split() for point in run)] for run in runs]


def line(figure: Node, kind: str = "painted") -> list[list[tuple[float, float]]]:
    (path,) = [node for node in figure.all("path", "line") if kind in node.attributes["class"]]
    return points(path)


def titles(figure: Node) -> list[str]:
    return [node.text for node in figure.all("rect")]


# --- the filmstrip ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 30))
def test_the_strip_has_the_first_frame_of_every_shot_and_more_between(lengths: list[int], most: int) -> None:
    shots = [shot for shot, length in enumerate(lengths, 1) for _ in range(length)]
    found = picks([row(100 + place, shot) for place, shot in enumerate(shots)], most)
    assert found == sorted(set(found))
    assert len(found) == min(most, len(shots))
    begins = {100 + sum(lengths[:place]) for place in range(len(lengths))}
    if len(begins) <= most:
        assert begins <= set(found)
    else:
        assert set(found) <= begins


def test_the_frames_of_the_strip_are_evenly_spaced() -> None:
    assert picks(clip(100), 4) == [0, 25, 50, 75]
    rows = clip(20) + [row(place, 2) for place in range(20, 80)]
    assert picks(rows, 4) == [0, 20, 40, 60]
    assert picks(clip(1000, 10), 5) == [0, 200, 400, 600, 800]
    assert picks([]) == []


def test_the_strip_shows_source_and_painting_with_their_place() -> None:
    root = read(page("Clip", [], clip(20, 8), [(0, jpeg("red"), jpeg("blue")), (9, jpeg("lime"), jpeg("gray"))]))
    first, second = root.all("ul", "strip")[0].all("li")
    assert [base64.b64decode(node.attributes["src"].partition(",")[2]) for node in second.all("img")] == [
        jpeg("lime"),
        jpeg("gray"),
    ]
    assert [node.attributes["alt"] for node in second.all("img")] == [
        "frame 9 at 0:00.90, source",
        "frame 9 at 0:00.90, painted",
    ]
    assert "shot 1" in first.text
    assert "shot" not in second.text


# --- the figures and the table ---------------------------------------------------------------------------------------


def test_the_figures_sum_up() -> None:
    rows = [row(0, warp=None, source_warp=None, seconds=9.0), row(1, steps=0, seconds=None), row(2, 2, seconds=1.0)]
    assert batch.figures(read(page("Clip", [], rows, []))) == {
        "frames": "3",
        "shots": "2",
        "unchanged": "1",
        "total time": "10 s",
        "median per frame": "5.0 s",
        "of the source's E_warp": "2.00\u2009\xd7",
    }


def test_the_facts_keep_their_order() -> None:
    (found,) = read(page("Clip", [("size", "96x40 px"), ("flow", "dis"), ("none", "")], clip(2), [])).all("dl", "facts")
    assert [node.text for node in found.all("dt")] == ["size", "flow", "none"]
    assert [node.text for node in found.all("dd")] == ["96x40 px", "dis", "\u2013"]


def test_the_table_has_the_ten_least_steady_frames() -> None:
    rows = [row(place, warp=None if place == 5 else (place * 7 % 40) / 1000) for place in range(40)]
    (table,) = read(page("Clip", [], rows, [])).all("table")
    cells = [[cell.text for cell in line.all("td")] for line in table.all("tbody")[0].all("tr")]
    worst = sorted((each for each in rows if each.warp is not None), key=lambda each: -(each.warp or 0))[:10]
    assert [int(each[0]) for each in cells] == [each.number for each in worst]
    assert [float(each[2]) for each in cells] == [each.warp for each in worst]
    assert cells[0][3:] == ["0.0010", "39.00", "10"]
    assert [node.text for node in table.all("th") if node.attributes["scope"] == "row"] == [
        clock(each.time) for each in worst
    ]


# --- the curves ------------------------------------------------------------------------------------------------------


def test_a_curve_goes_through_its_values() -> None:
    warps = [None, 0.001, 0.004, 0.0, None, 0.002]
    figure = charts(read(page("Clip", [], [row(n, warp=warp) for n, warp in enumerate(warps)], [])))["Flicker: E_warp"]
    assert [node.text for node in figure.all("div", "y")[0].all("span")] == [
        "0.000",
        "0.001",
        "0.002",
        "0.003",
        "0.004",
    ]
    across = [1000 * (place + 0.5) / 6 for place in range(6)]
    runs = line(figure)
    assert [[y for _, y in run] for run in runs] == [[75, 0, 100], [50]]
    assert [x for run in runs for x, _ in run] == pytest.approx([across[place] for place in (1, 2, 3, 5)], abs=0.1)
    assert [[y for _, y in run] for run in line(figure, "source")] == [[75] * 6]
    assert titles(figure)[2] == "frame 2, 0:00.20; painted 0.004; source 0.001"


def test_frames_stand_where_their_time_is() -> None:
    rows = [row(n, time=time) for n, time in enumerate((2.0, 2.1, 2.9, 3.0))]
    figure = charts(read(page("Clip", [], rows, [])))["Time"]
    length = 1 + 1 / 3  # the last is as long as the mean
    assert [x for x, _ in line(figure)[0]] == pytest.approx(
        [1000 * x / length for x in (0.05, 0.5, 0.95, 1 + 1 / 6)], abs=0.1
    )
    marks = [(node.text, node.attributes["style"]) for node in figure.all("div", "x")[0].all("span")]
    assert marks[0] == ("0:02.0", "left:0.0%")
    assert ("0:03.0", "left:75.0%") in marks


@pytest.mark.parametrize("times", [(0.0, 0.0, 0.0), (0.0, math.nan, 1.0), (2.0, 1.0, 0.0)])
def test_frames_whose_times_do_not_rise_stand_evenly(times: tuple[float, ...]) -> None:
    document = page("Clip", [], [row(n, time=time) for n, time in enumerate(times)], [])
    figure = charts(read(document))["Steps"]
    assert [x for x, _ in line(figure)[0]] == pytest.approx([166.7, 500, 833.3])
    assert not figure.all("div", "x")[0].all("span")


def test_cuts_are_marked_in_all_charts() -> None:
    found = charts(read(page("Clip", [], clip(40, 10), [])))
    assert len(found) == 5
    for figure in found.values():
        (cuts,) = figure.all("path", "cuts")
        assert cuts.attributes["d"] == "M250.0 0V100M500.0 0V100M750.0 0V100"
        assert "a shot begins" in figure.all("p", "legend")[0].text
        assert titles(figure)[10].startswith("frame 10, 0:01.00, shot 2 begins")
    for figure in charts(read(page("Clip", [], clip(40), []))).values():
        assert not figure.all("path", "cuts")


def test_a_few_large_values_do_not_flatten_the_others_and_zero_keeps_its_place() -> None:
    rows = [row(n, steps=(160, 5, 5, 0, 10)[n]) for n in range(5)]
    figure = charts(read(page("Clip", [], rows, [])))["Steps"]
    assert [node.text for node in figure.all("div", "y")[0].all("span")][:2] == ["0", "5"]
    assert "logarithmic" in figure.all("p", "legend")[0].text
    (heights,) = [[y for _, y in run] for run in line(figure)]
    assert heights[0] < heights[4] < heights[1] < heights[3] == 100
    assert heights[1] - heights[4] == pytest.approx((heights[1] - heights[0]) * math.log(2) / math.log(32), abs=0.2)


def test_a_long_clip_gives_a_bounded_page_and_hides_no_peak() -> None:
    rows = clip(10_000, 5)
    rows[1234] = dataclasses.replace(rows[1234], warp=0.5)
    document = page("Clip", [], rows, [])
    assert len(document) < 400_000
    figure = charts(read(document))["Flicker: E_warp"]
    assert len(titles(figure)) == BINS
    (title,) = [title for title in titles(figure) if "to 0.5)" in title]
    first, last = map(int, re.findall(r"frames (\d+) to (\d+)", title)[0])
    assert first <= 1234 <= last
    (band,) = [node for node in figure.all("path", "range") if "painted" in node.attributes["class"]]
    ((*outline, _),) = [run.split("L") for run in band.attributes["d"].removeprefix("M").split("M")]
    scale = axis([0.002, 0.001, 0.5], zero=True)
    assert min(float(point.split()[1]) for point in outline) == pytest.approx(100 * (1 - scale.at(0.5)), abs=0.1)
    assert len(figure.all("path", "cuts")[0].attributes["d"].split("M")) <= BINS + 1


def test_what_is_not_known_is_left_out() -> None:
    rows = [row(n, steps=None, seconds=math.nan, warp=math.inf, source_warp=None, style=None) for n in range(3)]
    document = page("Clip", [], rows, [])
    assert list(charts(read(document))) == ["Brightness"]
    body = document.partition("<body>")[2]
    assert not re.search(r"\b(nan|inf|None)\b", body)


def test_one_frame_and_none_have_a_page() -> None:
    assert len(charts(read(page("Clip", [], clip(2)[1:], [])))) == 5
    root = read(page("Clip", [], [], []))
    assert "no frame" in root.all("main")[0].text
    assert not root.all("section")


@pytest.mark.parametrize(
    ("painted", "said"),
    [
        ((0.5, 0.5, 0.5), "does not drift"),
        ((0.5, 0.53, 0.51), "0.030 lighter within a shot (at 0:00.10)"),
        ((0.5, 0.5, 0.45), "0.050 darker within a shot (at 0:00.20)"),
    ],
)
def test_drift_is_said(painted: tuple[float, ...], said: str) -> None:
    rows = [row(n, luminance=value) for n, value in enumerate(painted)]
    assert said in charts(read(page("Clip", [], rows, [])))["Brightness"].text


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.booleans())
def test_an_axis_holds_its_values_and_has_readable_ticks(values: list[float], zero: bool) -> None:
    values = [0.0 if value < 1e-9 else value for value in values]
    found = axis(values, zero=zero)
    assert found.low <= min(values) or found.log
    assert max(values) <= found.high * (1 + 1e-9)
    places = [found.at(value) for value, _ in found.ticks]
    assert places == sorted(places)
    assert (places[0], places[-1]) == pytest.approx((0, 1))
    assert 2 <= len(places) <= 8
    for one, two in zip(sorted(values), sorted(values)[1:], strict=False):
        assert found.at(one) <= found.at(two)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00123456, "0.00123"),
        (0.5, "0.5"),
        (154, "154"),
        (12345.6, "12346"),
        (1.23e-6, "0.000001"),
        (1e-9, "under 0.000001"),
        (-0.0492, "-0.0492"),
    ],
)
def test_numbers_are_readable(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.00"), (80.5, "1:20.50"), (59.999, "1:00.00"), (3723.25, "1:02:03.25"), (math.nan, "?")],
)
def test_times_are_such_as_the_command_line_takes(seconds: float, text: str) -> None:
    assert clock(seconds) == text


# --- nothing leaks, nothing is loaded --------------------------------------------------------------------------------


@settings(max_examples=50)
@given(anything, st.lists(st.tuples(anything, anything), max_size=3))
@pytest.mark.slow
def test_no_text_leaves_its_place(title: str, facts: list[tuple[str, str]]) -> None:
    root = read(page(title, facts, clip(3), []))
    heading = shown(" ".join(title.split())) or "Report"
    assert [node.text for node in root.all("h1")] == [heading]
    assert [node.text for node in root.all("head")[0].all("title")] == [heading]
    assert [node.text for found in root.all("dl", "facts") for node in found.all("dt")] == [
        shown(" ".join(term.split())) for term, _ in facts
    ]
    assert len(root.all("style")) == 1


def test_it_loads_nothing_runs_nothing_and_forbids_both() -> None:
    root = read(page("".join(HOSTILE), [("a", "".join(HOSTILE))], clip(30, 8), [(0, jpeg("red"), jpeg("blue"))]))
    assert not root.all("script")
    for node in root.all():
        assert node.attributes.get("href", "data:").startswith("data:")
        assert node.attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"https?:|url\(|@import", root.all("style")[0].text)
    (policy,) = [node for node in root.all("meta") if "http-equiv" in node.attributes]
    assert policy.attributes["content"].split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_figures_have_words_for_those_who_do_not_see_them() -> None:
    root = read(page("Clip", [], clip(30, 8), [(0, jpeg("red"), jpeg("blue"))]))
    for figure in charts(root).values():
        (svg,) = figure.all("svg")
        assert svg.attributes["role"] == "img"
        assert re.search(r"a line chart. .*[Mm]edian [\d.]+.*maximum [\d.]+.* at \d:\d\d", svg.attributes["aria-label"])
    assert all(node.attributes["alt"] for node in root.all("img"))
    assert all("scope" in node.attributes for node in root.all("th"))


# --- in a browser ----------------------------------------------------------------------------------------------------


def colours_of(shot: Path) -> dict[Any, int]:
    """How many pixels have each colour."""
    with Image.open(shot) as image:
        found = image.convert("RGB").getcolors(image.width * image.height)
    return {colour: count for count, colour in found or []}


def full() -> str:
    strip = [(place, jpeg("red"), jpeg("blue")) for place in picks(clip(300, 40))]
    return page("T" * 200, [("key" * 30, "value" * 60)], clip(300, 40), strip)


@browser
@pytest.mark.parametrize(
    ("flags", "paper"), [((), (0xF8, 0xF5, 0xEF)), (("--blink-settings=preferredColorScheme=0",), (0x17, 0x15, 0x12))]
)
@pytest.mark.slow
def test_a_browser_shows_it_light_and_dark(
    show: Show, tmp_path: Path, flags: tuple[str, ...], paper: tuple[int, ...]
) -> None:
    strip = [(place, jpeg("red"), jpeg("blue")) for place in range(3)]
    done = show(page("Clip", [], clip(30), strip), 1280, *flags, f"--screenshot={tmp_path / 'shot.png'}")
    assert "CONSOLE" not in done.stderr
    colours = colours_of(tmp_path / "shot.png")
    assert max(colours, key=lambda colour: colours[colour]) == paper
    assert colours[(254, 0, 0)] > 1000  # the pictures
    assert colours[(0, 0, 254)] > 1000


@browser
@pytest.mark.slow
def test_curves_are_drawn_in_the_colours_of_the_page(show: Show, tmp_path: Path) -> None:
    show(page("Clip", [], clip(300, 40), []), 1280, f"--screenshot={tmp_path / 'shot.png'}")
    colours = colours_of(tmp_path / "shot.png")
    assert colours[(0x2D, 0x5B, 0x88)] > 500
    assert colours[(0xB0, 0x80, 0x2F)] > 500


@browser
@pytest.mark.slow
def test_a_phone_need_not_scroll_sideways(show: Show, tmp_path: Path) -> None:
    document = full().replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'", 1)
    document = document.replace("</body>", f"<script>{batch.MEASURE}</script></body>")
    (tmp_path / "measured.html").write_text(document, encoding="utf-8")
    frames = "".join(f'<iframe src="measured.html" width="{width}"></iframe>' for width in (320, 400))
    listening = f"<script>onmessage = (e) => document.title += ` ${{e.data}}`</script>{frames}"
    done = show(listening, 800, "--dump-dom", "--virtual-time-budget=5000")
    (found,) = re.findall("<title>(.*)</title>", done.stdout)
    assert sorted(found.split()) == ["320,320,24", "400,400,24"]


@browser
@pytest.mark.slow
def test_it_prints_on_a_few_pages(show: Show, tmp_path: Path) -> None:
    document = full().replace("T" * 200, "Clip")
    done = show(document, 1280, f"--print-to-pdf={tmp_path / 'out.pdf'}", "--no-pdf-header-footer")
    assert "CONSOLE" not in done.stderr
    assert 2 <= len(re.findall(rb"/Type /Page\b", (tmp_path / "out.pdf").read_bytes())) <= 4
