"""Pages: what is shared by all reports."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from stylize.page import document, escape, html_duration, picture, prose, terms


def test_a_document_holds_its_parts_in_order_and_its_title_twice() -> None:
    text = document("A & B", header=["<p>one</p>"], main=["<p>two</p>", "<p>three</p>"], style="i { color: red }")
    assert text.count("A &amp; B") == 2
    places = [text.index(part) for part in ("i { color: red }", "<h1>", "<p>one</p>", "<main>", "<p>two</p>")]
    assert places == sorted(places)
    assert text.index("<p>two</p>") < text.index("<p>three</p>") < text.index("</main>")
    assert "<script" not in text
    assert "<h1>Report</h1>" in document(" \n", header=[], main=[])


@pytest.mark.parametrize("script", ["", "alert(1)", "const ä = 1 < 2"])
def test_the_policy_allows_the_page_s_own_script_alone(script: str) -> None:
    text = document("x", header=[], main=[], script=script)
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert found is not None
    allowed = dict(part.split(" ", 1) for part in found[1].split("; "))
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert allowed.get("script-src") == (f"'sha256-{digest}'" if script else None)
    assert (f"<script>{script}</script>" in text) == bool(script)


def test_plain_text_cannot_leave_its_place() -> None:
    assert escape("<a href='x'>&\"") == "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;"
    assert escape("a\0b\ud800c\ufffed") == "a\ufffdb\ufffdc\ufffdd"
    assert prose("  two\n words\t") == "two words"
    assert terms("facts", [("<i>", ""), ("b", "2 & 3")]) == (
        '<dl class="facts">\n<div><dt>&lt;i&gt;</dt><dd>&ndash;</dd></div>\n'
        "<div><dt>b</dt><dd>2 &amp; 3</dd></div>\n</dl>\n"
    )
    assert terms("facts", []) == ""


def test_a_picture_is_embedded_with_its_alternative_text() -> None:
    assert picture(b"\xff\xd8", 'a "b"') == (
        '<img alt="a &quot;b&quot;" decoding="async" src="data:image/jpeg;base64,/9g=">'
    )
    assert 'class="after"' in picture(b"", "", "after")


def test_durations_are_not_broken_across_lines() -> None:
    assert html_duration(75) == "1&nbsp;min&nbsp;15&nbsp;s"
