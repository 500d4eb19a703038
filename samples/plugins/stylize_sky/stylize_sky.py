"""The sky of a photo, found by place, colour and smoothness, in a style of its own."""

import functools
from pathlib import Path

import click
import cv2
import numpy as np

from stylize import Mask, Region, as_mask, hookimpl, load

SIDE = 512  # px: the longest side of what is looked at
HUE, DARKER = 40, 20  # how far from the colour of the upper edge the sky may be, and how much darker, in CIELAB
EDGE = 8  # differences of lightness between neighbours from which on they are an edge


@hookimpl
def stylize_options(command):
    option = click.Option(["--sky"], type=Path, metavar="STYLE", help="Paint the sky in the style of this picture.")
    command.params.append(option)


@hookimpl
def stylize_regions(frame, options):
    if options["sky"] is None:
        return []
    mask = sky(frame.image.numpy()[..., :3])
    return [Region(mask, style(options["sky"]))] if mask.weights.any() else []


@functools.lru_cache(maxsize=2)
def style(path):
    return load(path)  # the same picture for every photo of a folder: it is measured once


def sky(photo) -> Mask:
    """The sky of a photo (H, W, 3) in uint8, as a mask of the same proportions."""
    height, width = photo.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.bilateralFilter(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), 7, 30, 7)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    top = np.median(lab[: max(1, len(lab) // 20)].reshape(-1, 3), axis=0)
    near = np.linalg.norm((lab - top)[..., 1:], axis=2) < HUE
    near &= lab[..., 0] > top[0] - DARKER
    steps = np.maximum(*(np.abs(cv2.Sobel(lab[..., 0], cv2.CV_32F, *axis)) / 4 for axis in ((1, 0), (0, 1))))
    found = (near & (steps < EDGE)).astype(np.uint8)
    found[len(found) * 5 // 6 :] = 0  # water and roads are like skies, too
    _, labels = cv2.connectedComponents(found)
    at_the_top = set(labels[0][found[0] > 0]) - {0}
    inside = np.isin(labels, [*at_the_top]).astype(np.uint8)
    inside = cv2.morphologyEx(inside, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))  # stars and birds
    if inside.mean() < 0.02:
        inside[:] = 0
    return as_mask(cv2.GaussianBlur(inside * np.uint8(255), (5, 5), 0))
