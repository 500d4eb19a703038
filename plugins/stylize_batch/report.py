"""The report of a folder job: one HTML file that holds everything it shows and loads nothing.

It is complete without its script, which only filters; its content security policy allows no other script.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from stylize import StorePath, as_path
from stylize.page import NONE, document, escape, html_duration, picture, prose, terms

if TYPE_CHECKING:
    import torch

STATES = ("painted", "unchanged", "skipped", "failed", "ignored")
RATIOS = (0.75, 1.6)  # width / height of the frames: that of the middle picture, within these
QUALITY = 80  # of the thumbnails


@dataclass(frozen=True)
class Entry:
    """The result of one picture of the folder.

    ``name`` is its path relative to the folder, ``target`` that of the result relative to the report; ``before`` and
    ``after`` are small JPEGs, as :func:`thumbnail` makes them. Unknown values stay empty.
    """

    name: str
    state: str  # one of STATES
    reason: str = ""  # why it failed, was ignored or was painted again
    style: str = ""
    target: str = ""
    seconds: float | None = None
    before: bytes = b""
    after: bytes = b""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state is {self.state!r}; it must be one of {', '.join(STATES)}")


def thumbnail(rgb: torch.Tensor, longest: int = 320) -> bytes:
    """(1, 3, H, W) in [0, 1] -> a JPEG whose longest side is at most ``longest`` px."""
    from PIL import Image
    from torch.nn import functional

    height, width = rgb.shape[-2:]
    scale = min(1, longest / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = rgb.detach().float()
    if size != (height, width):  # before it leaves its device, which a large one would do slowly
        small = functional.interpolate(small, size, mode="bicubic", align_corners=False, antialias=True)
    levels = (small[0].permute(1, 2, 0).nan_to_num(0).clamp(0, 1) * 255).round().byte().cpu().numpy()  # (H, W, 3)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def page(entries: Sequence[Entry], *, title: str, summary: Mapping[str, str]) -> str:
    """The complete document, to be written as UTF-8. Entries keep their order within a state."""
    groups = {state: [entry for entry in entries if entry.state == state] for state in STATES}
    header = (*_figures(groups), terms("summary", summary.items()))
    main = (
        *(_tools(bool(groups["painted"])) if entries else ("<p>There was no picture to paint.</p>\n",)),
        *_section("failed", "rows", map(_row, groups["failed"])),
        *_section("painted", "grid", map(_card, groups["painted"]), HINT),
        *_section("unchanged", "lines", map(_line, groups["unchanged"])),
        *_section("skipped", "lines", map(_line, groups["skipped"])),
        *_section("ignored", "lines", map(_line, groups["ignored"])),
    )
    style = f"{STYLE}:root {{ --ratio: {_ratio(groups['painted']):.4g} }}\n"
    return document(title, header=header, main=main, style=style, script=SCRIPT)


def seen_from(path: Path, entries: Iterable[Entry]) -> list[Entry]:
    """Entries whose targets are seen from a report's file; none in a store, which no browser opens."""
    here = os.path.realpath(path.parent)
    return [replace(each, target=_seen_from(here, each.target) if each.target else "") for each in entries]


def _seen_from(here: str, target: str) -> str:
    return "" if isinstance(as_path(target), StorePath) else os.path.relpath(os.path.realpath(target), here)


# --- parts -----------------------------------------------------------------------------------------------------------


def _figures(groups: Mapping[str, Sequence[Entry]]) -> Iterator[str]:
    yield '<dl class="figures">\n'
    for state, group in groups.items():
        if state == "skipped" and not group:
            continue
        count = f'<a href="#{state}">{len(group)}</a>' if group else "0"
        yield f'<div class="{state}"><dt>{state}</dt><dd>{count}</dd></div>\n'
    spent = [_seconds(group) for group in groups.values()]
    total = html_duration(sum(map(sum, spent))) if any(spent) else NONE
    middle = html_duration(statistics.median(spent[0])) if spent[0] else NONE
    for term, value in (("total time", total), ("median per picture", middle)):
        yield f"<div><dt>{term}</dt><dd>{value}</dd></div>\n"
    yield "</dl>\n"
    shares = (f'<i class="{state}" style="flex-grow: {len(group)}"></i>' for state, group in groups.items() if group)
    yield f'<div class="bar" aria-hidden="true">{"".join(shares)}</div>\n'


def _tools(painted: bool) -> Iterator[str]:
    yield '<div class="tools">\n'
    if painted:
        yield '<fieldset class="view">\n<legend>What the painted pictures show</legend>\n'
        for view, label in (("painted", "Painted"), ("both", "Side by side"), ("photos", "Photos")):
            checked = " checked" if view == "painted" else ""
            yield f'<label><input type="radio" name="view" id="view-{view}"{checked}><span>{label}</span></label>\n'
        yield "</fieldset>\n"
    yield '<label class="filter" hidden><span>Filter</span>'
    yield '<input type="search" id="filter" placeholder="Filter by name, state or reason" autocomplete="off"></label>\n'
    yield '<output id="found" for="filter"></output>\n</div>\n'


def _section(state: str, kind: str, items: Iterable[str], hint: str = "") -> Iterator[str]:
    found = list(items)
    if found:
        yield f'<section id="{state}" aria-labelledby="{state}-heading">\n'
        yield f'<h2 id="{state}-heading">{state.capitalize()} <small>{len(found)}</small></h2>\n'
        yield f'{hint}<ul class="{kind}">\n'
        yield from found
        yield "</ul>\n</section>\n"


def _row(entry: Entry) -> str:
    photo = picture(entry.before, f"{entry.name}, the photo", "before") if entry.before else ""
    text = f"<h3>{_name(entry)}</h3>{_reason(entry)}{_facts(entry)}"
    return f"<li>{photo}<div>{text}</div></li>\n"


def _card(entry: Entry) -> str:
    before, after = "", ""
    if entry.before:
        before = picture(entry.before, f"{entry.name}, the photo", "before")
    if entry.after:
        after = picture(entry.after, f"{entry.name}, painted" + (f" as {entry.style}" if entry.style else ""), "after")
    frame = f'<span class="frame">{before}{after}</span>'
    if before and after:
        turn = f'<input type="checkbox" aria-label="Show the other picture of {escape(entry.name)}">'
        frame = f"<label>{turn}{frame}</label>"
    elif not before and not after:
        frame = '<span class="frame none">no preview</span>'
    return f"<li>{frame}<h3>{_name(entry)}</h3>{_facts(entry)}{_reason(entry)}</li>\n"


def _line(entry: Entry) -> str:
    facts = ", ".join(filter(None, (prose(entry.reason), prose(entry.style))))
    return f"<li>{_name(entry)}{f' <small>{facts}</small>' if facts else ''}</li>\n"


def _name(entry: Entry) -> str:
    folder, slash, last = entry.name.rpartition("/")
    shown = f"<small>{escape(folder + slash)}</small>" if slash else ""
    shown = f'<bdi class="name">{shown}{escape(last)}</bdi>'  # a name of right-to-left letters turns nothing around it
    address = _address(entry.target)
    return f'<a href="{address}">{shown}</a>' if address else shown


def _facts(entry: Entry) -> str:
    facts = [prose(entry.style)] if entry.style else []
    facts += map(html_duration, _seconds([entry]))
    return f'<p class="facts">{" &middot; ".join(facts)}</p>' if facts else ""


def _reason(entry: Entry) -> str:
    return f'<p class="reason">{prose(entry.reason)}</p>' if entry.reason else ""


# --- text and numbers ------------------------------------------------------------------------------------------------


def _address(target: str) -> str:
    """A relative address with the bytes of a path, or nothing where no file can have it.

    Every colon is encoded and one slash at most stands in front, so that nothing reads as a scheme or a host.
    """
    try:
        path = os.fsencode(target.replace(os.sep, "/"))
    except UnicodeEncodeError:
        return ""
    return quote(b"/" + path.lstrip(b"/") if path.startswith(b"/") else path)


def _seconds(entries: Iterable[Entry]) -> list[float]:
    return [entry.seconds for entry in entries if entry.seconds is not None and 0 <= entry.seconds < math.inf]


def _ratio(painted: Iterable[Entry]) -> float:
    """Width / height of the frames: pictures of another shape stand in them with a margin."""
    from PIL import Image

    ratios = []
    for jpeg in filter(None, (entry.after or entry.before for entry in painted)):
        with contextlib.suppress(OSError), Image.open(io.BytesIO(jpeg)) as image:  # reads the header only
            ratios.append(image.width / image.height)
    low, high = RATIOS
    return min(high, max(low, statistics.median(ratios))) if ratios else 4 / 3


# --- look and behaviour ----------------------------------------------------------------------------------------------

HINT = """<p class="hint"><span>Point at a picture to see its photo, click to open the result.</span>
<span>Tap a picture to see its photo.</span></p>
"""

# Side by side is what a browser without :has() shows, and paper; elsewhere the photo lies on the painting, unseen
# until it is pointed at (a click opens the result), tapped, or turned with the space bar.
STYLE = """
html { scroll-padding-top: 5rem }
[hidden] { display: none !important }
h2 small { margin-left: .35em; color: var(--soft); font: .85rem system-ui, sans-serif }
h3 { line-height: 1.35 }
li { display: block } /* as list items they are numbered anew when one is hidden: seconds for thousands */
a { color: inherit; text-decoration: underline var(--rest) 1px; text-underline-offset: .2em }
a:hover { color: var(--accent); text-decoration-color: currentcolor }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
.facts, .reason, .lines small { color: var(--soft); font-size: .875rem }
.lines .name small, .name small { color: var(--soft); font-size: 1em; font-weight: 400 }

.figures dd a { text-decoration: none }
.figures .failed a { color: var(--bad) }
.bar { display: flex; gap: 2px; height: 4px; margin: 1.5rem 0 0 }
.bar i { min-width: 4px; border-radius: 2px; background: var(--line) }
.bar .painted { background: var(--accent) }
.bar .unchanged { background: var(--rest) }
.bar .failed { background: var(--bad) }
.summary {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 10rem), 1fr)); gap: 1rem 2rem;
  margin-top: 2rem;
}
.summary dd { line-height: 1.4 }

.tools {
  position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; align-items: center; gap: .6rem 1rem;
  margin: 2.25rem 0 0; padding: .75rem 0; background: var(--paper); border-bottom: 1px solid var(--line);
}
.view { display: flex; margin: 0; padding: 3px; border: 0; border-radius: .6rem; background: var(--mat) }
.view legend, .filter span, main label > input[type="checkbox"], .view input {
  position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
.view span {
  display: block; padding: .3rem .8rem; border-radius: .45rem; color: var(--soft); font-size: .9rem; cursor: pointer;
}
.view :checked + span { background: var(--raised); color: var(--ink); box-shadow: 0 1px 2px rgb(0 0 0 / .18) }
.view :focus-visible + span { outline: 2px solid var(--accent) }
.filter { flex: 1 1 13rem; max-width: 26rem }
.filter input {
  width: 100%; padding: .4rem .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--raised);
  color: inherit; font: inherit; font-size: 1rem;
}
.filter input::placeholder { color: var(--soft); opacity: 1 }
output { color: var(--soft); font-size: .875rem }
output:empty { position: absolute }
section { margin-top: 2.5rem }
.hint span:first-child { display: none }

.rows { display: grid; gap: .75rem }
.rows li {
  display: flex; gap: 1rem; padding: .9rem 1.1rem; border-left: 3px solid var(--bad); border-radius: 0 .5rem .5rem 0;
  background: var(--raised);
}
.rows div { min-width: 0 }
.rows img { flex: none; align-self: center; width: 5rem; height: 4rem; object-fit: cover; border-radius: .25rem }
.rows .reason { color: var(--bad) }

.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 2.25rem 1.75rem }
.grid li { position: relative }
.grid li:nth-child(n + 100) { content-visibility: auto; contain-intrinsic-height: auto 18rem }
.grid label { display: block; -webkit-tap-highlight-color: transparent }
.frame {
  position: relative; display: grid; grid-template-columns: 1fr 1fr; gap: 3px; margin-bottom: .7rem; overflow: hidden;
  border-radius: .3rem; background: var(--mat);
}
.frame img { display: block; width: 100%; aspect-ratio: var(--ratio); object-fit: contain; background: var(--mat) }
.frame img:only-child { grid-column: 1 / -1; aspect-ratio: calc(2 * var(--ratio)) }
.none { place-items: center; grid-template-columns: 1fr; aspect-ratio: calc(2 * var(--ratio)); color: var(--soft) }
.grid h3 a::after { aspect-ratio: calc(2 * var(--ratio)) }
.grid :focus-visible + .frame { outline: 3px solid var(--accent); outline-offset: -3px }
@media screen {
  main { --photo: 0; --turned: 1 }
  main:has(#view-photos:checked) { --photo: 1; --turned: 0 }
  main:has(#view-painted:checked, #view-photos:checked) {
    & .grid { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15.5rem), 1fr)) }
    & .frame { grid-template-columns: 1fr }
    & .frame img { grid-area: 1 / 1; aspect-ratio: var(--ratio) }
    & .none, & .grid h3 a::after { aspect-ratio: var(--ratio) }
    & .frame { --shown: var(--photo) }
    & .frame .before:not(:only-child) { z-index: 1; opacity: var(--shown); transition: opacity .25s }
    & :checked + .frame { --shown: var(--turned) }
    @media (hover: hover) { & li:hover .frame { --shown: var(--turned) } }
  }
  main:has(#view-both:checked) :is(.grid input, .hint) { display: none }
}
@media (max-width: 36rem) { html { scroll-padding-top: 8rem } }
@media (hover: hover) {
  .grid h3 a::after { content: ""; position: absolute; inset: 0 0 auto; z-index: 1 }
  .hint span { display: inline !important }
  .hint span + span { display: none !important }
}
@media (prefers-reduced-motion) { .frame .before { transition: none !important } }

.lines { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .35rem 2rem }
.lines li { line-height: 1.4 }
.lines li > small { margin-left: .5em }

@media print {
  .tools, .hint { display: none }
  .grid { grid-template-columns: 1fr 1fr; gap: 6mm }
  .grid li:nth-child(n) { content-visibility: visible }
  li { break-inside: avoid }
  .bar, .bar i { print-color-adjust: exact }
}
"""

SCRIPT = """
(() => {
  const box = document.getElementById("filter");
  if (!box) return;
  const found = document.getElementById("found");
  const plain = (text) => text.normalize("NFC").toLowerCase();
  const sections = Array.from(document.querySelectorAll("section"), (section) => {
    const row = (item) => ({ item, text: plain(`${section.id} ${item.textContent}`) });
    return { section, rows: Array.from(section.querySelectorAll("li"), row) };
  });
  const filter = () => {
    const words = plain(box.value).split(/\\s+/).filter(Boolean);
    let shown = 0, all = 0;
    for (const { section, rows } of sections) {
      const before = shown;
      for (const { item, text } of rows) {
        item.hidden = !words.every((word) => text.includes(word));
        if (!item.hidden) shown++;
      }
      all += rows.length;
      section.hidden = shown === before;
    }
    found.textContent = words.length ? `${shown} of ${all}` : "";
  };
  box.addEventListener("input", filter);
  box.parentElement.hidden = false;
  filter();  // some browsers keep the words when a page is loaded again
})();
"""
