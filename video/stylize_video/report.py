"""The report of a clip: one HTML file that holds everything it shows, loads nothing and runs no script."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stylize.page import NONE, document, html_duration, picture, terms
from stylize_video.charts import Curve, Timeline, axis, clock, decimals, number, plot, timeline

WORST = 10  # frames in the table


@dataclass(frozen=True)
class Row:
    """What is known of one frame, shown ``time`` s after the first; None where it is not known.

    ``shot`` counts from 1. ``steps`` is 0 where nothing had changed and the previous frame was kept; ``seconds`` is
    the time it took. ``warp`` and ``source_warp`` are E_warp of the frame and of its source, ``style`` the value of the
    style term, ``luminance`` and ``source_luminance`` means in [0, 1].
    """

    number: int
    time: float
    shot: int
    steps: int | None
    seconds: float | None
    warp: float | None
    source_warp: float | None
    style: float | None
    luminance: float
    source_luminance: float


Strip = Sequence[tuple[int, bytes, bytes]]


def picks(rows: Sequence[Row], most: int = 24) -> list[int]:
    """The numbers of the frames for a filmstrip: the first of every shot, and, in each, more at even distances.

    With more shots than ``most`` it is the first frames of some, at even distances.
    """
    begins = _begins(rows)
    if len(begins) >= most:
        return [rows[begins[place * len(begins) // most]].number for place in range(most)]
    lengths = [end - begin for begin, end in itertools.pairwise([*begins, len(rows)])]
    shares = [1] * len(begins)
    for _ in range(min(most, len(rows)) - len(begins)):
        sparse = max(range(len(begins)), key=lambda shot: lengths[shot] / shares[shot])
        shares[sparse] += 1
    return [
        rows[begin + place * length // share].number
        for begin, length, share in zip(begins, lengths, shares, strict=True)
        for place in range(share)
    ]


def page(title: str, facts: Sequence[tuple[str, str]], rows: Sequence[Row], strip: Strip) -> str:
    """The complete document, to be written as UTF-8.

    Args:
        title: of the page.
        facts: terms and what is to be said of them: the clip, the style, settings.
        rows: all frames, in order. The page does not grow with their number beyond a few hundred.
        strip: some frames as (number, JPEG of the source, JPEG of the painted one), such as :func:`picks` names.
    """
    main = (
        [*_filmstrip(strip, rows), *_curves(rows), *_worst(rows)] if rows else ["<p>There was no frame to paint.</p>\n"]
    )
    return document(title, header=[*_figures(rows), terms("facts", facts)], main=main, style=STYLE)


# --- parts -----------------------------------------------------------------------------------------------------------


def _figures(rows: Sequence[Row]) -> Iterator[str]:
    spent = _known([row.seconds for row in rows])
    own, theirs = (_known(values) for values in ([row.warp for row in rows], [row.source_warp for row in rows]))
    ratio = statistics.fmean(own) / statistics.fmean(theirs) if own and any(theirs) else None
    shown = {
        "frame" if len(rows) == 1 else "frames": str(len(rows)),
        "shot" if len(_begins(rows)) == 1 else "shots": str(len(_begins(rows))),
        "unchanged": str(sum(row.steps == 0 for row in rows)),
        "total time": html_duration(sum(spent)) if spent else "",
        "median per frame": html_duration(statistics.median(spent)) if spent else "",
        "of the source's E_warp": "" if ratio is None else f"{ratio:.2f}&thinsp;&times;",
    }
    yield '<dl class="figures">\n'
    yield from (f"<div><dt>{term}</dt><dd>{value or NONE}</dd></div>\n" for term, value in shown.items())
    yield "</dl>\n"


def _filmstrip(strip: Strip, rows: Sequence[Row]) -> Iterator[str]:
    if not strip:
        return
    known = {row.number: row for row in rows}
    first = {rows[begin].number for begin in _begins(rows)}
    yield '<section aria-labelledby="strip">\n<h2 id="strip">Filmstrip</h2>\n'
    yield '<p class="hint">The source above, the painted frame below.</p>\n<ul class="strip">\n'
    for place, source, painted in strip:
        at, shot = "", ""
        if place in known:
            at = clock(known[place].time)
            shot = f"<b>shot {known[place].shot}</b>" if place in first else ""
        words = f"frame {place}" + (f" at {at}" if at else "")
        yield f"<li>{picture(source, f'{words}, source')}{picture(painted, f'{words}, painted')}"
        yield f"<p><span>{at}</span><small>frame {place}</small>{shot}</p></li>\n"
    yield "</ul>\n</section>\n"


def _curves(rows: Sequence[Row]) -> Iterator[str]:
    line = timeline([row.number for row in rows], [row.time for row in rows], [row.shot for row in rows])
    times = [row.time for row in rows]
    yield '<section aria-labelledby="curves">\n<h2 id="curves">Frame by frame</h2>\n<div class="charts">\n'
    yield from _chart(
        "Flicker: E_warp",
        "Mean squared difference of a frame from the previous one warped by optical flow, pixels in [0, 1]. Lower is "
        "steadier; the source is not perfectly steady either.",
        line,
        {"source": [row.source_warp for row in rows], "painted": [row.warp for row in rows]},
        times,
    )
    yield from _chart(
        "Brightness",
        f"Mean luminance, 0 black to 1 white.{_drift(rows)}",
        line,
        {"source": [row.source_luminance for row in rows], "painted": [row.luminance for row in rows]},
        times,
        zero=False,
    )
    yield from _chart(
        "Style",
        "The distance from the style: the style term of the loss. Lower is closer.",
        line,
        {"painted": [row.style for row in rows]},
        times,
        zero=False,
    )
    yield from _chart(
        "Steps",
        "Optimiser steps per frame; 0 where the frame had not changed.",
        line,
        {"painted": [row.steps for row in rows]},
        times,
    )
    yield from _chart("Time", "Seconds per frame.", line, {"painted": [row.seconds for row in rows]}, times, unit=" s")
    yield "</div>\n</section>\n"


def _chart(
    heading: str,
    about: str,
    line: Timeline,
    series: Mapping[str, Sequence[float | None]],
    times: Sequence[float],
    *,
    zero: bool = True,
    unit: str = "",
) -> Iterator[str]:
    """One figure; nothing where no value is known."""
    series = {kind: [value if _finite(value) else None for value in values] for kind, values in series.items()}
    known = [value for values in series.values() for value in values if value is not None]
    if not known:
        return
    scale = axis(known, zero=zero)
    said = [_said(kind if len(series) > 1 else "", series[kind], times, unit) for kind in [*series][::-1]]
    yield f'<figure>\n<figcaption>\n<h3>{heading}</h3>\n<p>{about}</p>\n<p class="legend">'
    yield from (f'<span class="{kind}">{kind}</span>' for kind in [*series][::-1] if len(series) > 1)
    if any(each.cut for each in line.bins):
        yield '<span class="cut">a shot begins</span>'
    if scale.log:
        yield "<span>logarithmic scale</span>"
    yield "</p>\n</figcaption>\n"
    curves = [Curve(kind, values) for kind, values in series.items()]
    yield from plot(line, curves, scale, f"{heading}, a line chart. {' '.join(said)}")
    yield f'<p class="said">{" ".join(said)}</p>\n</figure>\n'


def _said(kind: str, values: Sequence[float | None], times: Sequence[float], unit: str) -> str:
    """A curve in words."""
    known = [(value, time) for value, time in zip(values, times, strict=True) if value is not None]
    if not known:
        return ""
    middle, (least, _), (most, when) = statistics.median(value for value, _ in known), min(known), max(known)
    text = (
        f"median {number(middle)}{unit}, minimum {number(least)}{unit}, maximum {number(most)}{unit} at {clock(when)}."
    )
    return f"{kind.capitalize()}: {text}" if kind else text.capitalize()


def _drift(rows: Sequence[Row]) -> str:
    """By how much the painting became lighter within a shot, relative to the source, as a sentence."""
    furthest, when, begin = 0.0, 0.0, 0.0
    begins = set(_begins(rows))
    for place, row in enumerate(rows):
        apart = row.luminance - row.source_luminance
        begin = apart if place in begins else begin
        if abs(apart - begin) > abs(furthest):
            furthest, when = apart - begin, row.time
    if abs(furthest) < 0.0005:
        return " Within a shot it does not drift from the source."
    direction = f"{abs(furthest):.3f} {'lighter' if furthest > 0 else 'darker'}"
    return f" Relative to the source it gets {direction} within a shot (at {clock(when)})."


def _worst(rows: Sequence[Row]) -> Iterator[str]:
    known = [(row.warp, row) for row in rows if row.warp is not None and math.isfinite(row.warp)]
    found = sorted(known, key=lambda pair: -pair[0])[:WORST]
    if not found:
        return
    yield '<section aria-labelledby="worst">\n<h2 id="worst">The least steady frames</h2>\n<table>\n<thead><tr>'
    heads = ("Time", "Frame", "Shot", "E_warp", "The source&rsquo;s", "Ratio", "Steps")
    yield from (f'<th scope="col">{head}</th>' for head in heads)
    yield "</tr></thead>\n<tbody>\n"
    digits = decimals(found[-1][0])
    for warp, row in found:
        theirs = row.source_warp if _finite(row.source_warp) else None
        cells = [f"{row.number}", f"{row.shot}", f"{warp:.{digits}f}"]
        cells.append(NONE if theirs is None else f"{theirs:.{digits}f}")
        cells.append(f"{warp / theirs:.2f}" if theirs else NONE)
        cells.append(NONE if row.steps is None else f"{row.steps}")
        yield f'<tr><th scope="row">{clock(row.time)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
    yield "</tbody>\n</table>\n</section>\n"


# --- rows ------------------------------------------------------------------------------------------------------------


def _begins(rows: Sequence[Row]) -> list[int]:
    """The places of the first frames of the shots."""
    return [place for place, row in enumerate(rows) if place == 0 or row.shot != rows[place - 1].shot]


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


# --- look ------------------------------------------------------------------------------------------------------------

STYLE = """
section { margin-top: 3rem }
.strip small, figcaption p, .said { color: var(--soft); font-size: .875rem }

.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 12rem), 1fr)); gap: 1rem 2rem;
  margin-top: 2rem; padding-top: 1.5rem; border-top: 1px solid var(--line);
}
.facts dd { line-height: 1.4 }

.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(45%, 11.5rem), 1fr)); gap: 1.5rem 1rem }
.strip img { display: block; width: 100%; background: var(--mat) }
.strip img:first-child { margin-bottom: 2px; border-radius: .3rem .3rem 0 0 }
.strip img + img { border-radius: 0 0 .3rem .3rem }
.strip p {
  display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .5em; margin-top: .4rem; line-height: 1.3;
  font-variant-numeric: tabular-nums;
}
.strip b { padding-left: .5em; border-left: 2px solid var(--accent); font-weight: 500; white-space: nowrap }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 0 3rem }
.charts figure { display: grid; grid-template-rows: subgrid; grid-row: span 3; margin-bottom: 2.5rem }
.charts figure:first-child { grid-column: 1 / -1 }
.plot { margin: 1rem 0 2rem 4rem; position: relative; height: 10rem }
.charts figure:first-child .plot { height: 15rem }
.plot svg { display: block; width: 100%; height: 100%; overflow: visible }
.plot path { fill: none; stroke-width: 1px; vector-effect: non-scaling-stroke }
.plot .rules { stroke: var(--line) }
.plot .cuts { stroke: var(--soft); stroke-dasharray: 3 3; opacity: .55 }
.plot .line { stroke-width: 1.75px; stroke-linejoin: round; stroke-linecap: round }
.plot .painted { stroke: var(--accent) }
.plot .source { stroke: var(--second) }
.plot .range { stroke: none; opacity: .25 }
.plot .range.painted { fill: var(--accent) }
.plot .range.source { fill: var(--second) }
.plot rect { fill: transparent }
.plot rect:hover { fill: var(--soft); opacity: .2 }
.y span, .x span { position: absolute; color: var(--soft); font-size: .8rem; line-height: 1; white-space: nowrap }
.y span, .x span, td, th { font-variant-numeric: tabular-nums lining-nums }
.y span { right: calc(100% + .6rem); transform: translateY(50%) }
.x span { top: calc(100% + .5rem); transform: translateX(-50%) }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.25rem }
.legend [class]::before {
  content: ""; display: inline-block; width: 1.1em; margin-right: .45em; vertical-align: .25em;
  border-top: 2.5px solid var(--accent);
}
.legend .source::before { border-color: var(--second) }
.legend .cut::before { width: 0; height: 1em; border: 0; border-left: 1.5px dashed var(--soft); vertical-align: -.15em }

table { border-collapse: collapse; font-size: .9375rem }
th, td { padding: .45rem .6rem; border-bottom: 1px solid var(--line); text-align: right; font-weight: 400 }
thead th { color: var(--soft); font-size: .875rem; line-height: 1.2; vertical-align: bottom }
tbody th { font-weight: 500 }
th:first-child { padding-left: 0; text-align: left }
@media (max-width: 36rem) {
  table { width: 100%; font-size: .75rem }
  thead th { font-size: .7rem }
  th, td { padding: .4rem .15rem; overflow-wrap: normal }
  .plot { margin-left: 3.25rem }
}

@media print {
  .strip { grid-template-columns: repeat(6, 1fr) }
  .charts { grid-template-columns: 1fr 1fr }
  li, figure, tr { break-inside: avoid }
  .plot svg, .legend { print-color-adjust: exact }
}
"""
