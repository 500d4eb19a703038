"""Pages: HTML reports in one file that hold everything they show, load nothing and run no script but their own.

Pages are put together from strings of HTML; plain text becomes HTML by :func:`escape` or :func:`prose`.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable

from stylize.text import duration

_LAST_OF_PLANES = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
# What HTML or UTF-8 cannot hold: controls, surrogates, noncharacters.
_UNFIT = re.compile(rf"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")

NONE = "&ndash;"  # stands for a value that is not known


def document(title: str, *, header: Iterable[str], main: Iterable[str], style: str = "", script: str = "") -> str:
    """The complete document, to be written as UTF-8.

    Args:
        title: of the page, plain text, which is also its first heading; "Report" if empty.
        header: HTML below the heading.
        main: HTML of the body.
        style: CSS, after :data:`STYLE`.
        script: JavaScript, the only one the page's policy allows to run.
    """
    heading = prose(title) or "Report"
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n',
            f"<title>{heading}</title>\n",
            '<link rel="icon" href="data:,">\n',  # otherwise a browser asks the server for /favicon.ico
            f"<style>{STYLE}{style}</style>\n</head>\n<body>\n<header>\n<h1>{heading}</h1>\n",
            *header,
            "</header>\n<main>\n",
            *main,
            "</main>\n",
            f"<script>{script}</script>\n" if script else "",
            "</body>\n</html>\n",
        )
    )


def _policy(script: str) -> str:
    """A content security policy under which nothing is fetched and only this script runs."""
    allowed = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed.append(f"script-src 'sha256-{digest}'")
    return "; ".join([*allowed, "base-uri 'none'", "form-action 'none'"])


def escape(text: str) -> str:
    """Plain text as HTML, for elements and quoted attributes; what HTML cannot hold becomes U+FFFD."""
    return html.escape(_UNFIT.sub("\ufffd", text))


def prose(text: str) -> str:
    """Plain text as HTML, its white space collapsed."""
    return escape(" ".join(text.split()))


def picture(jpeg: bytes, alt: str, kind: str = "") -> str:
    """An embedded JPEG with an alternative text (plain), of the class ``kind``."""
    data = base64.b64encode(jpeg).decode()
    named = f' class="{kind}"' if kind else ""
    return f'<img{named} alt="{escape(alt)}" decoding="async" src="data:image/jpeg;base64,{data}">'


def terms(kind: str, items: Iterable[tuple[str, str]]) -> str:
    """A list of terms and what is said of them, plain text both, of the class ``kind``; nothing without items."""
    rows = "".join(f"<div><dt>{prose(term)}</dt><dd>{prose(value) or NONE}</dd></div>\n" for term, value in items)
    return f'<dl class="{kind}">\n{rows}</dl>\n' if rows else ""


def html_duration(seconds: float) -> str:
    """A duration as HTML that is not broken across lines."""
    return duration(seconds).replace(" ", "&nbsp;")


STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f8f5ef; --raised: #fffdf9; --mat: #ece6da; --line: #e0d9cb; --ink: #26221d; --soft: #6d6558;
  --accent: #2d5b88; --second: #b0802f; --bad: #a63a2b; --rest: #c4b9a4;
  --serif: ui-serif, "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #171512; --raised: #221f1b; --mat: #100e0c; --line: #38332c; --ink: #ece6db; --soft: #a69c8e;
    --accent: #8fb9e3; --second: #c99a4e; --bad: #f0907f; --rest: #5d554a;
  }
}
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body {
  margin: 0 auto; max-width: 84rem; padding: clamp(1.25rem, 4vw, 3.5rem) clamp(1rem, 4vw, 3rem) 5rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1, h2, .figures dd { font-family: var(--serif); font-weight: 400; line-height: 1.15 }
h1 { margin: 0 0 2rem; font-size: clamp(1.9rem, 5vw, 3rem); letter-spacing: -.01em; text-wrap: balance }
h2 { margin: 0 0 1.25rem; font-size: 1.6rem }
h3 { margin: 0; font: inherit; font-weight: 500 }
p, dl, dd, figure { margin: 0 }
ul { margin: 0; padding: 0; list-style: none }
dt, .hint { color: var(--soft); font-size: .875rem }
.hint { margin: -.9rem 0 1.25rem }
.figures { display: flex; flex-wrap: wrap; gap: 1.25rem clamp(1.5rem, 4vw, 3.5rem) }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end }
.figures dd { font-size: 2.1rem; font-variant-numeric: lining-nums }
@media print {
  @page { margin: 14mm }
  :root { color-scheme: light; --paper: #fff; --mat: #fff; --raised: #fff; font-size: 9.5pt }
  body { max-width: none; padding: 0 }
  h2 { break-inside: avoid; break-after: avoid }
}
"""
