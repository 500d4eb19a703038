"""The report of a folder job: what it says, that nothing leaks out of its place, and how a browser shows it."""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stylize_batch import report
from stylize_batch.report import STATES, Entry, page, thumbnail
from tests.conftest import PATIENCE, waves

VOID = {"meta", "link", "img", "input"}
ATTRIBUTES = {  # all that a page may hold, by tag
    "html": {"lang"},
    "meta": {"charset", "http-equiv", "content", "name"},
    "link": {"rel", "href"},
    "a": {"href"},
    "i": {"class", "style"},
    "img": {"class", "alt", "decoding", "src"},
    "input": {"type", "name", "id", "checked", "placeholder", "autocomplete", "aria-label"},
    "label": {"class", "hidden"},
    "output": {"id", "for"},
    "section": {"id", "aria-labelledby"},
    "h2": {"id"},
    "div": {"class", "aria-hidden"},
    **{tag: {"class"} for tag in ("dl", "ul", "fieldset", "span", "p", "bdi")},
    **{tag: set() for tag in ("head", "title", "style", "body", "header", "main", "script", "legend")},
    **{tag: set() for tag in ("h1", "h3", "li", "dt", "dd", "small")},
}
BEFORE, AFTER = (thumbnail(waves(36, 48, seed), 32) for seed in (1, 2))


class Node:
    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes, self.children = tag, attributes, list[Node | str]()

    def all(self, tag: str = "", kind: str = "") -> list[Node]:
        """Those below of one tag or class, in order."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if tag in ("", child.tag) and kind in ("", *child.attributes.get("class", "").split()):
                    found.append(child)
                found += child.all(tag, kind)
        return found

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Reader(HTMLParser):
    """A strict one: what is opened is closed, in order, and only known tags and attributes stand anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        assert set(names) <= ATTRIBUTES[tag], (tag, names)
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_decl(self, decl: str) -> None:
        assert decl == "DOCTYPE html"

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    handle_pi = unknown_decl = handle_comment


def read(document: str) -> Node:
    assert document.startswith("<!DOCTYPE html>\n")
    assert document.encode("utf-8").decode("utf-8") == document
    reader = Reader()
    reader.feed(document)
    reader.close()
    (root,) = reader.open
    ids = [node.attributes["id"] for node in root.all() if "id" in node.attributes]
    assert len(set(ids)) == len(ids)
    return root


def section(root: Node, state: str) -> Node:
    (found,) = [node for node in root.all("section") if node.attributes["id"] == state]
    return found


def figures(root: Node) -> dict[str, str]:
    (found,) = root.all("dl", "figures")
    return {box.all("dt")[0].text: box.all("dd")[0].text.replace("\xa0", " ") for box in found.all("div")}


def job() -> list[Entry]:
    return [
        Entry("a.jpg", "painted", "painted again: other settings", "wave", "out/a.png", 4.0, BEFORE, AFTER),
        Entry("notes.txt", "ignored", "not a picture"),
        Entry("day 1/b.jpg", "unchanged", style="wave", target="out/day 1/b.png"),
        Entry("c.jpg", "failed", "truncated or damaged", "wave", seconds=0.5),
        Entry("day 1/d.jpg", "painted", "", "starry night", "out/day 1/d.png", 90.0, BEFORE, AFTER),
        Entry("e.jpg", "painted", seconds=6.0),
    ]


# --- content ---------------------------------------------------------------------------------------------------------


def test_the_figures_count_and_time_the_job() -> None:
    found = figures(read(page(job(), title="Photos", summary={})))
    assert found == {
        "painted": "3",
        "unchanged": "1",
        "failed": "1",
        "ignored": "1",
        "total time": "1 min 40 s",
        "median per picture": "6.0 s",
    }


def test_failed_ones_come_first_and_every_entry_stands_in_its_section() -> None:
    root = read(page(job(), title="Photos", summary={}))
    assert [node.attributes["id"] for node in root.all("section")] == ["failed", "painted", "unchanged", "ignored"]
    for state in ("failed", "painted", "unchanged", "ignored"):
        names = [name.text for name in section(root, state).all(kind="name")]
        assert names == [entry.name for entry in job() if entry.state == state]
    (failed,) = section(root, "failed").all("li")
    assert "truncated or damaged" in failed.text
    (ignored,) = section(root, "ignored").all("li")
    assert "not a picture" in ignored.text


def test_a_card_holds_both_pictures_the_style_the_time_and_the_link() -> None:
    card, *_ = section(read(page(job(), title="Photos", summary={})), "painted").all("li")
    before, after = card.all("img")
    assert base64.b64decode(before.attributes["src"].removeprefix("data:image/jpeg;base64,")) == BEFORE
    assert base64.b64decode(after.attributes["src"].removeprefix("data:image/jpeg;base64,")) == AFTER
    assert before.attributes["alt"] == "a.jpg, the photo"
    assert after.attributes["alt"] == "a.jpg, painted as wave"
    (link,) = card.all("a")
    assert (link.attributes["href"], link.text) == ("out/a.png", "a.jpg")
    assert [fact.text for fact in card.all("p")] == ["wave \xb7 4.0\xa0s", "painted again: other settings"]
    assert card.all("label")[0].all("input")[0].attributes["type"] == "checkbox"


@pytest.mark.parametrize(("before", "after", "shown"), [(BEFORE, b"", 1), (b"", AFTER, 1), (b"", b"", 0)])
def test_a_card_without_both_pictures_has_nothing_to_turn(before: bytes, after: bytes, shown: int) -> None:
    (card,) = section(
        read(page([Entry("a.jpg", "painted", before=before, after=after)], title="", summary={})), "painted"
    ).all("li")
    assert len(card.all("img")) == shown
    assert not card.all("input")
    assert ("no preview" in card.text) == (not shown)


def test_the_summary_keeps_its_order() -> None:
    summary = {"size": "1024 px", "encoder": "vgg19", "version": ""}
    (found,) = read(page(job(), title="Photos", summary=summary)).all("dl", "summary")
    assert [node.text for node in found.all("dt")] == list(summary)
    assert [node.text for node in found.all("dd")] == ["1024 px", "vgg19", "\u2013"]


def test_an_empty_job_says_so() -> None:
    root = read(page([], title="Photos", summary={}))
    assert not root.all("section")
    assert not root.all("input")
    assert "no picture" in root.all("main")[0].text
    assert figures(root) == {
        **dict.fromkeys([state for state in STATES if state != "skipped"], "0"),
        "total time": "\u2013",
        "median per picture": "\u2013",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.6, "1 h 00 min"),
        (90061, "25 h 01 min"),
    ],
)
def test_times_are_said_in_two_units_at_most(seconds: float, text: str) -> None:
    assert figures(read(page([Entry("a", "painted", seconds=seconds)], title="", summary={})))["total time"] == text


def test_a_time_that_is_no_number_is_left_out() -> None:
    root = read(page([Entry("a", "painted", seconds=float("nan"))], title="", summary={}))
    assert figures(root)["total time"] == "\u2013"


@pytest.mark.parametrize(("size", "ratio"), [((40, 32), "1.25"), ((40, 4), "1.6"), ((4, 40), "0.75")])
def test_the_frames_have_the_shape_of_the_middle_picture(size: tuple[int, int], ratio: str) -> None:
    jpeg = thumbnail(waves(size[1], size[0]))
    document = page([Entry("a", "painted", after=jpeg), Entry("b", "painted", after=b"no JPEG")], title="", summary={})
    assert f":root {{ --ratio: {ratio} }}" in read(document).all("style")[0].text


def test_an_unknown_state_is_an_error() -> None:
    with pytest.raises(ValueError, match="one of painted, unchanged, skipped, failed, ignored"):
        Entry("a.jpg", "done")


def test_importing_it_does_not_import_torch_or_pillow() -> None:
    tree = ast.parse(Path(report.__file__).read_text(encoding="utf-8"))
    top = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not [line for line in top if "torch" in line or "PIL" in line]


# --- nothing leaks ---------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</title>",
    "</style>",
    "<!--",
    "-->",
    "]]>",
    '"',
    "'",
    " onerror='x'",
    '">',
    "&lt;",
]
HOSTILE += [
    "&",
    "<img src=x>",
    "</li></ul>",
    "\udcff",
    "\ud800",
    "\0",
    "\x85",
    "\n",
    "\r\n",
    "\ufffe",
    "\u202e",
    "/",
    "a",
]
anything = st.lists(st.sampled_from(HOSTILE) | st.characters(exclude_categories=())).map("".join)
entry = st.builds(
    Entry,
    anything,
    st.sampled_from(STATES),
    reason=anything,
    style=anything,
    target=anything,
    seconds=st.none() | st.floats(0, 1e9) | st.sampled_from([float("nan"), float("inf"), -1.0]),
    before=st.sampled_from([b"", BEFORE]),
    after=st.sampled_from([b"", AFTER]),
)


def shown(text: str) -> str:
    """What a page can show of it."""

    def fit(letter: str) -> bool:
        noncharacter = 0xFDD0 <= ord(letter) <= 0xFDEF or ord(letter) & 0xFFFE == 0xFFFE
        return unicodedata.category(letter) not in ("Cc", "Cs") and not noncharacter

    return "".join(letter if fit(letter) else "\ufffd" for letter in text)


@pytest.mark.slow
@given(st.lists(entry, max_size=6), anything, st.dictionaries(anything, anything, max_size=3))
def test_no_text_leaves_its_place(entries: list[Entry], title: str, summary: dict[str, str]) -> None:
    root = read(page(entries, title=title, summary=summary))
    (script,) = root.all("script")
    assert script.text == report.SCRIPT
    assert len(root.all("style")) == 1
    assert len(root.all("li")) == len(entries)
    heading = shown(" ".join(title.split())) or "Report"
    assert [node.text for node in root.all("title") + root.all("h1")] == [heading, heading]
    for state in STATES:
        those = [entry for entry in entries if entry.state == state]
        if not those:
            continue
        items = section(root, state).all("li")
        for item, entry in zip(items, those, strict=True):
            (name,) = item.all(kind="name")
            assert name.text == shown(entry.name)
            for said in (entry.reason, entry.style):
                assert shown(" ".join(said.split())) in item.text
            for picture in item.all("img"):
                assert picture.attributes["alt"].startswith(shown(entry.name))
    boxes = [box for found in root.all("dl", "summary") for box in found.all("div")]
    assert [box.all("dt")[0].text for box in boxes] == [shown(" ".join(term.split())) for term in summary]


@pytest.mark.slow
@given(st.lists(entry, max_size=3))
def test_nothing_is_loaded(entries: list[Entry]) -> None:
    root = read(page(entries, title="Photos", summary={}))
    for node in root.all():
        if node.tag == "a":
            assert urljoin("file:///here/report.html", node.attributes["href"]).startswith("file:///")
        else:
            assert node.attributes.get("href", "data:").startswith("data:")
        assert node.attributes.get("src", "data:").startswith("data:")
    for code in (root.all("style")[0].text, report.SCRIPT):
        assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch|import\(|XMLHttp|eval|innerHTML", code)


def test_the_policy_allows_its_own_pictures_styles_and_script_only() -> None:
    root = read(page(job(), title="Photos", summary={}))
    (policy,) = [node for node in root.all("meta") if "http-equiv" in node.attributes]
    assert policy.attributes["http-equiv"] == "Content-Security-Policy"
    digest = base64.b64encode(hashlib.sha256(root.all("script")[0].text.encode()).digest()).decode()
    assert policy.attributes["content"].split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    head = [node.tag for node in root.all("head")[0].all()]
    assert head.index("meta") < head.index("style")


def address(target: str) -> str:
    (link,) = section(read(page([Entry("a", "painted", target=target)], title="", summary={})), "painted").all("a")
    return link.attributes["href"]


@given(st.binary(min_size=1).filter(lambda path: not path.startswith(b"/")))
def test_a_link_decodes_to_the_bytes_of_the_path(path: bytes) -> None:
    found = address(os.fsdecode(path))
    parts = urlsplit(found)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert unquote_to_bytes(parts.path) == path
    assert found.isascii()


@pytest.mark.parametrize("target", ["javascript:alert(1)", "data:text/html,x", "c:/x.png", "a?b#c%41.png", "..", "a b"])
def test_a_link_is_never_read_as_anything_but_a_path(target: str) -> None:
    assert unquote_to_bytes(address(target)) == target.encode()
    assert urlsplit(urljoin("file:///here/report.html", address(target))).scheme == "file"


@pytest.mark.parametrize("target", ["/out/a.png", "//out/a.png", "///out/a.png"])
def test_an_absolute_path_names_no_host(target: str) -> None:
    assert address(target) == "/out/a.png"


def test_a_path_that_no_file_can_have_is_not_linked() -> None:
    assert not read(page([Entry("a", "unchanged", target="\ud800.png")], title="", summary={})).all("main")[0].all("a")


# --- thumbnails ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "longest", "size"),
    [(60, 80, 32, (32, 24)), (80, 60, 32, (24, 32)), (20, 30, 320, (30, 20)), (2, 900, 90, (90, 1)), (1, 1, 8, (1, 1))],
)
def test_a_thumbnail_is_a_small_jpeg_in_proportion(
    height: int, width: int, longest: int, size: tuple[int, int]
) -> None:
    with Image.open(io.BytesIO(thumbnail(waves(height, width), longest))) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", size)


def test_a_thumbnail_has_the_colours_of_the_picture() -> None:
    picture = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 600, 400)
    for rgb in (picture, picture.half(), picture.clone().requires_grad_()):
        with Image.open(io.BytesIO(thumbnail(rgb))) as image:
            assert image.size == (213, 320)
            levels = torch.tensor(image.getpixel((100, 100)))
        assert (levels - torch.tensor([51, 128, 230])).abs().max() <= 3


def test_a_thumbnail_takes_what_is_out_of_range() -> None:
    rgb = torch.full((1, 3, 40, 40), float("nan"))
    rgb[..., 20:] = 3.0
    with Image.open(io.BytesIO(thumbnail(rgb))) as image:
        assert image.getpixel((2, 20)) == (0, 0, 0)
        assert image.getpixel((38, 20)) == (255, 255, 255)


# --- in a browser ----------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "/usr/bin/chromium"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"]
browser = pytest.mark.skipif(CHROMIUM is None, reason="neither chromium nor google-chrome is installed")
MEASURE = """
const page = document.documentElement;
parent.postMessage([innerWidth, page.scrollWidth, document.querySelectorAll("li").length], "*");
"""

Show = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def show(tmp_path: Path) -> Show:
    """Open a document from a file in a window of a width, 900 px high; its console goes to stderr."""

    def run(document: str, width: int, *flags: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "report.html"
        path.write_text(document, encoding="utf-8")
        own = [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
        command = [str(CHROMIUM), *FLAGS, *own, *flags, path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return done

    return run


def long_names() -> list[Entry]:
    name = "folder/" * 20 + "x" * 200 + "<script>alert(1)</script>\udcff.jpg"
    return [
        Entry(name, state, "reason" * 40, "style" * 40, "out.png", 3.0, BEFORE, AFTER)
        for state in STATES
        for _ in range(3)
    ]


@pytest.mark.slow
@browser
@pytest.mark.parametrize("width", [400, 1280])
def test_a_browser_shows_it_and_has_nothing_to_complain_about(show: Show, tmp_path: Path, width: int) -> None:
    document = page(job(), title="Photos", summary={"encoder": "vgg19"})
    done = show(document, width, f"--screenshot={tmp_path / 'shot.png'}")
    assert "CONSOLE" not in done.stderr
    with Image.open(tmp_path / "shot.png") as image:
        assert image.size == (width, 900)
        colours = image.convert("RGB").getcolors(width * 900)
    assert colours is not None
    assert len(colours) > 100


@pytest.mark.slow
@browser
def test_the_filter_is_there_where_its_script_runs(show: Show) -> None:
    document = page(job(), title="Photos", summary={})
    assert "hidden" in read(document).all("label", "filter")[0].attributes
    done = show(document, 800, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert '<label class="filter">' in done.stdout


@pytest.mark.slow
@browser
@pytest.mark.parametrize("view", ["painted", "both"])
def test_a_phone_need_not_scroll_sideways(show: Show, tmp_path: Path, view: str) -> None:
    document = page(long_names(), title="T" * 300, summary={"key" * 40: "value" * 80})
    document = document.replace(" checked>", ">").replace(f'id="view-{view}">', f'id="view-{view}" checked>')
    document = re.sub("'sha256-[^']+'", "'unsafe-inline'", document, count=1)  # or it could not be measured
    document = document.replace("</body>", f"<script>{MEASURE}</script></body>")
    (tmp_path / "measured.html").write_text(document, encoding="utf-8")
    # A window is never narrower than 500 px, a frame is.
    frames = "".join(f'<iframe src="measured.html" width="{width}"></iframe>' for width in (320, 400))
    done = show(
        f"<script>onmessage = (e) => document.title += ` ${{e.data}}`</script>{frames}",
        800,
        "--dump-dom",
        "--virtual-time-budget=5000",
    )
    (found,) = re.findall("<title>(.*)</title>", done.stdout)
    rows = 3 * len(STATES)
    assert sorted(found.split()) == [f"320,320,{rows}", f"400,400,{rows}"]


@pytest.mark.slow
@browser
def test_the_policy_stops_what_is_not_its_own(show: Show, tmp_path: Path) -> None:
    Image.new("RGB", (3, 3)).save(tmp_path / "other.png")
    foreign = "<script>document.title = 'run'</script><img src='other.png' onerror=\"document.title = 'run'\">"
    document = page(job(), title="Photos", summary={}).replace("</body>", f"{foreign}</body>")
    done = show(document, 800, "--dump-dom")
    assert "<title>Photos</title>" in done.stdout
    assert len(re.findall("CONSOLE.*Content Security Policy", done.stderr)) >= 2
