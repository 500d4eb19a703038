"""Plain margins of style pictures: the mat around a drawing, the white of a scan, black bars, a frame of one colour.

Statistics count a margin as a part of the painting, and features tell what is near an edge: it would be painted along
the edges of the photo. A margin is found by its straight inner edge. Paper on which a drawing stands free has none, and
belongs to the drawing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from stylize.images import Picture, fit, resize

log = logging.getLogger(__name__)

SEEN_AT = 512  # px: longest side of the copy in which margins are looked for
OUTERMOST = 0.006  # share of the longest side: a margin is that wide at least, and has its colour there
ALIKE = 0.07  # most that a channel of a margin differs from its colour, in [0, 1]: grain of paper, noise of JPEG
SHADED = 0.3  # most that this colour changes around the picture, by light and shadow on a sheet that was photographed
EVEN = 0.05  # most that it changes in bars at two sides alone, which come from no camera
STRAIGHT = 0.012  # of the longest side: an inner edge is that straight, such as of a sheet turned by half a degree
OF_ONE_PIECE = 0.9  # share of an inner edge that is
LABELLED = 0.5  # share of one of the four of a margin all around: a label or a signature may stand in the rest
CORNER = 0.12  # of the longest side: how far the ends of an inner edge may be from where the next one lies
DEEPEST = 0.35  # of a side of the picture: all that one margin takes
BARS = 0.04  # of the longest side: most that two bars differ in depth
DEEPEST_BAR = 0.25  # of a side of the picture: that of a film in a frame of 4:3
GREY = 0.15  # most that the channels of a bar differ from 0, or from 1: bars are black or white
BEYOND = 0.006  # of the longest side: cut beyond the edge, where there is often a shadow
SMALLEST = 32  # px: no margins are looked for in less
NESTED = 3  # margins within each other that are looked for, such as of a frame with a mat


@dataclass(frozen=True)
class Margins:
    """How many px of a picture's sides are margin."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def __bool__(self) -> bool:
        return any((self.top, self.bottom, self.left, self.right))

    def cut(self, image: Tensor) -> Tensor:
        """A picture (1, C, H, W) without them."""
        return image[..., self.top : image.shape[2] - self.bottom, self.left : image.shape[3] - self.right]


@dataclass(frozen=True)
class _Edge:
    """The inner edge of a margin: its depth in px of ``height``; the columns from ``begin`` to ``end`` of ``width``
    along which it is found, and in which share of them; and the least and most of the margin's colour, (2, 3)."""

    depth: int
    height: int
    begin: int
    end: int
    width: int
    share: float
    colors: Tensor


def without_margins(picture: Picture) -> Picture:
    """The picture without plain margins, which a line of the log tells; the very same where there are none, or where
    parts of it are transparent."""
    found = margins(picture.rgb) if picture.alpha is None else Margins()
    if not found:
        return picture
    cut = replace(picture, rgb=found.cut(picture.rgb))
    (height, width), (rows, columns) = picture.size, cut.size
    log.info(
        "the plain margin of %s is left out of the style, which is %dx%d px of %dx%d; --style-margins keep includes it",
        picture.name or "a style",
        *(columns, rows, width, height),
    )
    return cut


def margins(image: Tensor) -> Margins:
    """The plain margins of a picture (1, 3, H, W).

    They are of one colour, apart from light and shadow, on all four sides, or on two opposite sides alike; and at their
    inner edge, which is straight, the picture begins.
    """
    size = image.shape[2:]
    seen = resize(image.cpu(), *fit(image.shape[2], image.shape[3], SEEN_AT))
    found = 0, 0, 0, 0
    for _ in range(NESTED):
        own = Margins(*found).cut(seen)
        if min(own.shape[2:]) < SMALLEST:
            break
        further = _around(own)
        if not any(further):
            break
        found = found[0] + further[0], found[1] + further[1], found[2] + further[2], found[3] + further[3]
    height, width = (side / own for side, own in zip(size, seen.shape[2:], strict=True))
    return Margins(*(round(px * side) for px, side in zip(found, (height, height, width, width), strict=True)))


def _around(image: Tensor) -> tuple[int, int, int, int]:
    """The outermost margin of a picture (1, 3, H, W): px of its top, bottom, left and right."""
    rgb = F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    longest = max(rgb.shape[1:])
    top, bottom = _edge(rgb), _edge(rgb.flip(1))
    left, right = _edge(rgb.transpose(1, 2)), _edge(rgb.flip(2).transpose(1, 2))
    beyond, corner = max(1, round(BEYOND * longest)), CORNER * longest
    if (
        top is not None
        and bottom is not None
        and left is not None
        and right is not None
        and all(_between(edge, left.depth, right.depth, corner) for edge in (top, bottom))
        and all(_between(edge, top.depth, bottom.depth, corner) for edge in (left, right))
        and _spread([top, bottom, left, right]) <= SHADED
        and sum(edge.share >= OF_ONE_PIECE for edge in (top, bottom, left, right)) >= 3
    ):
        kept: tuple[_Edge | None, ...] = top, bottom, left, right
    elif _bars(top, bottom, longest):
        kept = top, bottom, None, None
    elif _bars(left, right, longest):
        kept = None, None, left, right
    else:
        return 0, 0, 0, 0
    first, second, third, fourth = (0 if edge is None else edge.depth + beyond for edge in kept)
    return first, second, third, fourth


def _between(edge: _Edge, before: int, after: int, tolerance: float) -> bool:
    """Whether an edge reaches from the margin before it to that after it."""
    return abs(edge.begin - before) <= tolerance and abs(edge.width - edge.end - after) <= tolerance


def _bars(one: _Edge | None, other: _Edge | None, longest: int) -> bool:
    """Whether two margins are bars at opposite sides, without any at the others."""
    if one is None or other is None or abs(one.depth - other.depth) > BARS * longest:
        return False
    colors = torch.cat([one.colors, other.colors])
    return (
        all(edge.share >= OF_ONE_PIECE and _between(edge, 0, 0, CORNER * longest) for edge in (one, other))
        and max(one.depth, other.depth) <= DEEPEST_BAR * one.height
        and _spread([one, other]) <= EVEN
        and bool(colors.max() <= GREY or colors.min() >= 1 - GREY)
    )


def _spread(edges: list[_Edge]) -> float:
    """How much the colours of margins differ, along each and among them."""
    colors = torch.cat([edge.colors for edge in edges])
    return float((colors.amax(0) - colors.amin(0)).max())


def _edge(rgb: Tensor) -> _Edge | None:
    """The inner edge of the margin at the top of (3, H, W), if there is one: most columns of a part of the picture
    first differ from the margin's colour in nearly the same row."""
    height, width = rgb.shape[1:]
    longest = max(height, width)
    outermost, straight = (max(1, round(share * longest)) for share in (OUTERMOST, STRAIGHT))
    along = rgb[:, :outermost].mean(1)
    color = F.pad(along[None], (2, 2), mode="replicate").unfold(2, 5, 1).median(3).values[0]
    differs = (rgb - color[:, None]).abs().amax(0) > ALIKE
    first = torch.where(differs.any(0), differs.int().argmax(0), height)
    rows = torch.arange(outermost, max(outermost + 1, round(DEEPEST * height)))
    apart = (rows // 4).clamp(1, straight)
    sums = F.pad(torch.bincount(first, minlength=height + straight + 1).cumsum(0), (1, 0))
    best = int((sums[rows + apart + 1] - sums[rows - apart]).argmax())
    row, tolerance = int(rows[best]), int(apart[best])
    found = (first - row).abs() <= tolerance
    columns = found.nonzero().flatten()
    if len(columns) < width * (1 - 2 * DEEPEST) * LABELLED:
        return None
    begin, end = (int(columns[round(share * (len(columns) - 1))]) for share in (0.02, 0.98))
    share = float(found[begin : end + 1].float().mean())
    if share < LABELLED:
        return None
    own = color[:, begin : end + 1].quantile(torch.tensor((0.05, 0.95), dtype=torch.float32), dim=1)
    return _Edge(int(first[columns].float().quantile(0.95)), height, begin, end + 1, width, share, own)
