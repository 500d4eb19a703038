"""Three pictures painted from nothing but numbers: swirls, waves and a mosaic.

Each painter takes a seed and returns a picture; the same seed and the same versions of numpy and opencv give the
same pixels. They paint twice as large as SIZE and scale down, which is all the smoothing there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Float = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]
SIZE = (640, 480)


def grid() -> tuple[Float, Float]:
    rows, columns = np.mgrid[0 : SIZE[1] * 2, 0 : SIZE[0] * 2].astype(np.float64)
    return columns, rows


def noise(rng: np.random.Generator, cells: int) -> Float:
    """Smooth noise of unit deviation over the canvas, `cells` bumps across."""
    width, height = SIZE[0] * 2, SIZE[1] * 2
    coarse = rng.standard_normal((cells * height // width + 3, cells + 3))
    fine = np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float64)
    return fine / float(fine.std())


def ramp(t: Float, palette: Sequence[Rgb]) -> Float:
    """Colours for t in [0, 1] along the palette."""
    table = np.asarray(palette, dtype=np.float64)
    at = np.linspace(0, 1, len(table))
    return np.stack([np.interp(t, at, table[:, c]) for c in range(3)], axis=-1)


def relief(thickness: Bytes, blur: float, strength: float) -> Float:
    """How bright a surface of this thickness is when lit from the upper left; 1 where it is flat."""
    height = cv2.GaussianBlur(thickness.astype(np.float64), (0, 0), blur)
    dx, dy = cv2.Sobel(height, cv2.CV_64F, 1, 0), cv2.Sobel(height, cv2.CV_64F, 0, 1)
    return np.asarray(1 + np.clip(strength * (dx + dy), -0.4, 0.5), dtype=np.float64)


def finish(canvas: Float) -> Image.Image:
    small = cv2.resize(np.clip(canvas, 0, 255).astype(np.uint8), SIZE, interpolation=cv2.INTER_AREA)
    return Image.fromarray(np.asarray(small, dtype=np.uint8))


def curve(points: Float) -> npt.NDArray[np.int32]:
    """Points as opencv's drawing functions take them with shift=3: in eighths of a pixel."""
    return np.round(points * 8).astype(np.int32)


# --- swirls: oil, thick strokes along a flow -----------------------------------------------------------------


def strokes(rng: np.random.Generator, canvas: Bytes, colour: Float, angle: Float, width: float, share: float) -> None:
    """Lay one layer of curved strokes. The canvas has four channels: red, green, blue and paint thickness."""
    high, wide = angle.shape
    step, count = width * 0.55, 14
    ys, xs = np.mgrid[0 : high : width * 0.62, 0 : wide : width * 1.5]
    start = np.stack([xs.ravel(), ys.ravel()], 1) + rng.normal(0, width * 0.45, (xs.size, 2))
    start = rng.permutation(start)[: int(len(start) * share)]
    path = np.empty((len(start), count, 2))
    here = start.copy()
    for k in range(count):
        path[:, k] = here
        turn = angle[np.clip(here[:, 1], 0, high - 1).astype(int), np.clip(here[:, 0], 0, wide - 1).astype(int)]
        here = here + step * np.stack([np.cos(turn), np.sin(turn)], 1)
    hairs = max(4, int(width / 3))
    for points in path:
        points = points[: int(rng.integers(5, count + 1))]
        middle = points[len(points) // 2]
        base = colour[int(np.clip(middle[1], 0, high - 1)), int(np.clip(middle[0], 0, wide - 1))]
        base = base * rng.normal(1.0, 0.10) + rng.normal(0, 9, 3)
        second = base * rng.uniform(0.72, 1.25) + rng.normal(0, 10, 3)  # the colour left in the brush
        along = np.gradient(points, axis=0)
        normal = np.stack([-along[:, 1], along[:, 0]], 1) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
        side = rng.choice([-1, 1])
        for across in rng.permutation(np.linspace(-0.5, 0.5, hairs)):
            slack = rng.uniform(0, 0.6) * step * (1 + 3 * abs(across))
            line = points + normal * across * width * rng.uniform(0.9, 1.05)
            line[0] += along[0] / step * slack
            line[-1] -= along[-1] / step * slack
            blend = np.clip(0.5 + side * across + rng.normal(0, 0.25), 0, 1)
            paint = np.clip(base * (1 - blend) + second * blend, 0, 255)
            thick = np.clip(90 + 220 * across**2 + rng.normal(0, 45), 0, 255)
            thickness = max(1, round(width / hairs * rng.uniform(1.0, 1.9)))
            cv2.polylines(canvas, [curve(line)], False, (*paint.tolist(), float(thick)), thickness, cv2.LINE_AA, 3)


def swirls(seed: int = 5) -> Image.Image:
    """A burning evening sky in whirls above dark hills."""
    rng = np.random.default_rng(seed)
    x, y = grid()
    stream = 0.42 * y + 16 * noise(rng, 3)
    glow = np.zeros_like(x)
    whirls = ((350, 270, 150, 230), (830, 170, 110, -150), (1110, 430, 88, 130), (640, 480, 70, -90), (80, 520, 70, 95))
    for cx, cy, radius, spin in whirls:
        r2 = ((x - cx) ** 2 + (y - cy) ** 2) / radius**2
        stream += spin * np.exp(-r2 / 2)
    for cx, cy, radius, spin in whirls:  # a lamp in the eye of each whirl, which the others have pushed aside
        near = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        row, column = np.unravel_index(np.argmax(np.where(near, stream * np.sign(spin), -np.inf)), x.shape)
        glow = np.maximum(glow, np.exp(-2.6 * ((x - column) ** 2 + (y - row) ** 2) / radius**2))
    angle = np.arctan2(-np.gradient(stream, axis=1), np.gradient(stream, axis=0))
    sky = ((18, 28, 84), (24, 70, 148), (40, 140, 170), (150, 206, 176), (250, 220, 116), (246, 158, 44), (226, 82, 38),
           (128, 40, 86))  # fmt: skip
    band = 0.5 + 0.5 * np.sin(stream / 19 + 0.5 * noise(rng, 5))
    colour = ramp(np.clip(0.04 + band * (0.30 + y / 1000) + 0.07 * noise(rng, 6), 0, 1), sky)
    warm = ramp(glow, ((246, 150, 40), (250, 190, 60), (255, 226, 120), (255, 250, 220)))
    colour += np.clip(glow * 2.2 - 0.5, 0, 1)[..., None] * (warm - colour)
    hills = (
        (600, ((26, 44, 96), (44, 96, 130), (90, 150, 140))),
        (700, ((20, 60, 70), (40, 110, 84), (150, 170, 70))),
        (800, ((34, 30, 70), (120, 48, 70), (226, 120, 50), (250, 200, 90))),
    )
    for k, (top, palette) in enumerate(hills):
        ridge = top + 46 * np.sin(x / (190 + 60 * k) + 1.9 * k) + 20 * np.sin(x / 77 + k)
        inside = y > ridge
        slope = np.arctan(np.gradient(ridge, axis=1)) + 0.35 * np.sin((y - ridge) / 40 + x / 130)
        furrow = 0.5 + 0.5 * np.sin((y - ridge) / 17 + x / (60 + 30 * k) + 0.8 * noise(rng, 7))
        angle = np.where(inside, slope, angle)
        colour = np.where(inside[..., None], ramp(np.clip(furrow + 0.1 * noise(rng, 9), 0, 1), palette), colour)
    canvas = np.zeros((*x.shape, 4), np.uint8)
    canvas[..., :3] = np.clip(colour * 0.7, 0, 255)
    for width, share in ((46, 1.0), (30, 1.0), (19, 0.75), (11, 0.35)):
        strokes(rng, canvas, colour, angle, width, share)
    return finish(canvas[..., :3] * relief(canvas[..., 3], 1.1, 0.0022)[..., None])


# --- waves: a woodblock print, flat colours and ink lines ----------------------------------------------------


def breaker(wave: Float, shrink: float, drop: float) -> Float:
    """The outline of one wave (left, base, length, rise, lean): up a long back, over the crest, into the hollow."""
    left, base, length, rise, lean = wave
    t = np.linspace(0, 1, 90)
    up = np.sin(np.pi * t**1.5) ** 2
    return np.stack([left + length * t + shrink * lean * up**2, base + drop - shrink * rise * up], 1)


def foam(rng: np.random.Generator, canvas: Bytes, line: Float, size: float) -> None:
    """Foam along a crest: discs of cream with an ink rim, and spray above it."""
    fade = 0.45 + 0.55 * np.sin(np.linspace(0.15, np.pi, len(line)))
    blots = [(point + rng.normal(0, size * 0.4 * f, 2), size * f * float(rng.uniform(0.4, 0.85)), int(rng.integers(4)))
             for point, f in zip(line, fade, strict=True) for _ in range(2)]  # fmt: skip
    for rim in (2.4, 0.0):
        for at, r, kind in blots:
            tone = (22, 28, 52) if rim else (190, 214, 218) if kind == 0 else (250, 244, 226)
            cv2.circle(canvas, curve(at).tolist(), int((r + rim) * 8), tone, -1, cv2.LINE_AA, 3)
    for point in line[::4]:
        at = point + rng.normal(0, size * 1.6, 2) - (0, size * 2)
        cv2.circle(canvas, curve(at).tolist(), int(rng.uniform(1.5, 4) * 8), (250, 244, 226), -1, cv2.LINE_AA, 3)


def waves(seed: int = 11) -> Image.Image:
    """Rows of breakers under a red sun, as a woodblock print would have them."""
    rng = np.random.default_rng(seed)
    x, y = grid()
    dusk = ((58, 84, 120), (196, 176, 132), (240, 214, 160), (246, 226, 184), (232, 178, 110))
    sky = ramp(np.clip(y / 620, 0, 1), dusk)
    canvas = np.ascontiguousarray(np.clip(sky, 0, 255).astype(np.uint8))
    cv2.circle(canvas, (905, 250), 118, (204, 62, 40), -1, cv2.LINE_AA)
    for k in range(7):  # bars of cloud
        cy, cx, half = 90 + 55 * k + rng.normal(0, 8), rng.uniform(100, 1200), rng.uniform(120, 260)
        ends, thickness = curve(np.array([[cx - half, cy], [cx + half, cy]])), int(rng.integers(10, 22))
        cv2.polylines(canvas, [ends], False, (246, 232, 200), thickness, cv2.LINE_AA, 3)
    tones = ((24, 44, 98), (44, 84, 140), (238, 232, 208), (88, 140, 172), (30, 60, 116), (150, 190, 196))
    for row in range(6):
        row_waves, left = [], -rng.uniform(150, 500)
        while left < 1400:
            length = (250 + 75 * row) * rng.uniform(0.8, 1.2)
            rise = (150 + 30 * row) * rng.uniform(0.7, 1.25)
            row_waves.append(np.array((left, 430 + 104 * row, length, rise, length * rng.uniform(0.42, 0.62))))
            left += length
        for k in range(8):  # stripes that follow the backs of the waves
            line = np.vstack([breaker(wave, 1 - k / 9, (11 + 3 * row) * k) for wave in row_waves])
            body = np.vstack([line, [[1700, 1700], [-600, 1700]]])
            cv2.fillPoly(canvas, [curve(body)], tones[(k + 2 * (row % 2)) % len(tones)], cv2.LINE_AA, 3)
            cv2.polylines(canvas, [curve(line)], False, (22, 28, 52), 3 if k else 6, cv2.LINE_AA, 3)
        for wave in row_waves:
            foam(rng, canvas, breaker(wave, 1, 0)[40:68], 9 + 2.5 * row)
    grain = 1 + 0.022 * noise(rng, 500) + 0.03 * np.sin(y / 3.1 + 2.2 * noise(rng, 4)) * (0.5 + 0.5 * np.sin(x / 210))
    return finish(canvas * grain[..., None] * np.array([1.0, 0.985, 0.95]))


# --- mosaic: tesserae in rows around discs -------------------------------------------------------------------


def mosaic(seed: int = 3) -> Image.Image:
    """Golden and coloured discs of stone on blue; the rows run around each disc, as in Roman floors."""
    rng = np.random.default_rng(seed)
    x, y = grid()
    discs: list[tuple[float, float, float]] = []
    for _ in range(4000):
        r = float(rng.choice([165, 120, 84, 58], p=[0.1, 0.2, 0.3, 0.4]))
        cx, cy = float(rng.uniform(-40, 1320)), float(rng.uniform(-40, 1000))
        if all(np.hypot(cx - a, cy - b) > r + c + 34 for a, b, c in discs):
            discs.append((cx, cy, r))
    gaps = np.stack([np.hypot(x - cx, y - cy) - r for cx, cy, r in discs])
    gap, owner = gaps.min(axis=0), gaps.argmin(axis=0)
    themes: tuple[tuple[Rgb, ...], ...] = (
        ((250, 226, 150), (226, 170, 52), (150, 84, 30), (226, 170, 52), (60, 30, 40)),
        ((244, 236, 214), (190, 44, 48), (120, 20, 46), (236, 150, 60), (250, 214, 120)),
        ((250, 240, 200), (40, 150, 140), (16, 84, 110), (130, 200, 170), (230, 180, 70)),
        ((240, 170, 60), (70, 60, 140), (34, 32, 90), (130, 120, 190), (244, 230, 200)),
    )
    rim: tuple[Rgb, ...] = ((246, 206, 96),)
    ground: tuple[Rgb, ...] = ((24, 60, 96), (30, 96, 120), (52, 140, 140), (22, 44, 84))
    canvas = np.full((*x.shape, 3), (52, 46, 44), np.uint8)  # grout
    shine, taken = np.zeros((2, *x.shape), np.uint8)
    tile = 15.0
    sweep = noise(rng, 4)
    for level in np.arange(tile * 9.5, -tile * 12, -tile):  # one row of stones along each of these distances
        inside = np.asarray(gap < level, dtype=np.uint8)
        rings, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        for ring in rings:
            line = ring[:, 0].astype(np.float64)
            if len(line) < 6:
                continue
            steps = np.linalg.norm(np.diff(line, axis=0, append=line[:1]), axis=1)
            run = np.concatenate([[0], np.cumsum(steps)])
            for s in np.linspace(0, run[-1], max(1, round(float(run[-1]) / (tile * 1.12))), endpoint=False):
                at = np.array([np.interp(s, run[:-1], line[:, 0]), np.interp(s, run[:-1], line[:, 1])])
                k = int(np.searchsorted(run, s)) % len(line)
                ahead = line[(k + 7) % len(line)] - line[(k - 7) % len(line)]
                turn = float(np.degrees(np.arctan2(ahead[1], ahead[0]))) + float(rng.normal(0, 4))
                box = ((float(at[0]), float(at[1])), (tile * float(rng.uniform(0.84, 1.02)), tile * 0.86), turn)
                corners = np.asarray(cv2.boxPoints(box), dtype=np.float64) + rng.normal(0, 0.7, (4, 2))
                px, py = int(np.clip(at[0], 0, x.shape[1] - 1)), int(np.clip(at[1], 0, x.shape[0] - 1))
                if taken[py, px]:
                    continue
                disc, depth = int(owner[py, px]), float(level) / tile
                theme = themes[disc % len(themes)] if depth <= 0 else rim if depth <= 1 else ground
                pick = int(disc - depth) // 2 if depth <= 0 else int(depth + 1.2 * sweep[py, px])
                tone = np.array(theme[pick % len(theme)]) * rng.normal(1, 0.13) + rng.normal(0, 8, 3)
                tone = np.clip(tone, 0, 255)
                cv2.fillConvexPoly(canvas, curve(corners), tone.tolist(), cv2.LINE_AA, 3)
                cv2.fillConvexPoly(shine, curve(corners), float(rng.uniform(120, 255)), cv2.LINE_AA, 3)
                cv2.fillConvexPoly(taken, curve((corners - at) * 0.8 + at), 1, cv2.LINE_8, 3)
    lit = relief(shine, 1.4, 0.0012)
    return finish(canvas * (lit * (1 + 0.03 * noise(rng, 400)))[..., None])


PAINTERS: dict[str, Callable[[], Image.Image]] = {"swirls": swirls, "waves": waves, "mosaic": mosaic}
