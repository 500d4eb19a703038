"""How steady a clip is along motion that is known exactly, how near its frames are to stills, and what they cost.

    python -m tests.bench.steady CONTENT STYLE [--scene pan] [--frames 13] [--size 256] [--weights FILE] [--out FOLDER]

A scene is the content seen by a camera that moves, with two cut-outs of it that move over it; nothing is estimated.
``pan``: the camera pans, zooms and turns, 1.9 px a frame; ``walk``: it sways, and one passes through at 4 px; ``fast``:
it pans by 16 px; ``locked``: it stands still, and the noise is twice as strong. A row is printed for each of
``--draft``, the default and ``--best``, or those of ``--only``, among which ``every-1`` (with
``--draft``), ``every-2`` and ``every-4`` may be, too:

- E: the mean squared difference between each frame and the last along the motion, where both show the same, over the
  source's own;
- style, held, content: the scores of ``tests.bench.score`` over those of stills of the same frames, which are the last
  one and that in the middle, or so many as ``--stills`` says, from the middle on: painted frames and those between;
- sharp: the least over the most of the mean squared Laplacian of the frames from the middle on;
- weave: the power of diagonal lines less than 2.8 px apart, relative to the same stills; frames of a long shot show
  whether it grows;
- steps: of a frame that follows another; cost: its CPU time over that of a still.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stylize import Frame, Picture, Settings, Step, Stylizer, load, paint_frames, plugin_manager
from stylize_video.flow import warp
from tests.bench.score import encoder, scores

Array = NDArray[Any]

FINER = 3  # a frame is rendered so many times larger, and averaged
MARGIN = 3  # px from the edge of a layer, within which pixels are mixed
SCORES = ("style", "held", "content")
EFFORTS: dict[str, dict[str, bool | int]] = {
    "draft": {"draft": True},
    "default": {},
    "best": {"best": True},
    "every-1": {"draft": True, "every": 1},
    "every-2": {"every": 2},
    "every-4": {"every": 4},
}


@dataclass(frozen=True)
class Motion:
    """Of a layer, about the middle of the frame: where it begins, and by how many px it moves, by what factor it grows
    and by what angle it turns each frame; ``sway`` px are added to and fro."""

    begin: tuple[float, float] = (0.0, 0.0)
    move: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    grow: float = 1.0
    turn: float = 0.0
    sway: float = 0.0

    def pose(self, number: int, texture: Array, height: int, width: int) -> Array:
        """The map (3, 3) from px of frame ``number`` to px of the texture."""
        x, y = (begin + each * number for begin, each in zip(self.begin, self.move, strict=True))
        x, y = x + self.sway * np.sin(number / 5), y + self.sway * np.sin(number / 3)
        size, angle = self.scale * self.grow**number, self.turn * number
        c, s = size * np.cos(angle), size * np.sin(angle)
        middle = np.array([[1, 0, (texture.shape[1] - 1) / 2], [0, 1, (texture.shape[0] - 1) / 2], [0, 0, 1]])
        offset = np.array([[1, 0, -(width - 1) / 2 - x], [0, 1, -(height - 1) / 2 - y], [0, 0, 1]])
        return np.asarray(middle @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ offset)


SCENES = {  # the background, and the cut-outs over it, at 256 px
    "pan": (
        Motion((20, 8), (-1.7, -0.4), 2.4, 0.9965, 0.0026),
        Motion((-70, 20), (2.4, -0.3), 2.6, 0.998, -0.012),
        Motion((50, -20), (-1.9, 0.7), 3.0, 1.004, 0.017),
    ),
    "walk": (Motion(scale=2.6, sway=1.5), Motion((-95, 12), (4.3, 0.2), 2.6, turn=0.004)),
    "fast": (
        Motion((150, 4), (-16.3, 0.7), 1.6, turn=0.001),
        Motion((100, 14), (-9.7, -0.9), 2.6, turn=0.02),
        Motion((-80, -20), (7.3, 1.3), 2.6, 0.995, -0.03),
    ),
    "locked": (Motion(scale=2.6),),
}
NOISE = {"locked": 3.0}  # levels, standard deviation; others 1.5


class Scene:
    """A clip (T, H, W, 3) in uint8, which layer is seen where (T, H, W), and the poses of the layers."""

    def __init__(self, name: str, content: Array, frames: int, height: int, width: int, seed: int = 0) -> None:
        ground = cv2.resize(content, (4 * width, 4 * height), interpolation=cv2.INTER_AREA).astype(np.float32)
        rng, noise = np.random.default_rng(seed), NOISE.get(name, 1.5)
        layers = [(ground, np.ones((4 * height, 4 * width), np.float32))]
        layers += [_cut_out(ground, number) for number in range(1, len(SCENES[name]))]
        self.poses = [
            [motion.pose(number, texture, height, width) for number in range(frames)]
            for motion, (texture, _) in zip(SCENES[name], layers, strict=True)
        ]
        clip, labels = [], []
        for number in range(frames):
            picture, label = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.uint8)
            for layer, (texture, mask) in enumerate(layers):
                pose = self.poses[layer][number]
                cover = _seen(mask, pose, height, width, cv2.BORDER_CONSTANT if layer else cv2.BORDER_REFLECT)
                shown = _seen(texture, pose, height, width, cv2.BORDER_REFLECT)
                picture += cover[..., None] * (shown - picture)
                label[cover > 0.5] = layer
            noisy = picture + rng.normal(0, noise, picture.shape)
            clip.append(noisy.round().clip(0, 255).astype(np.uint8))
            labels.append(label)
        self.frames, self.labels = clip, labels

    def error(self, clip: Sequence[Array]) -> float:
        """The mean squared difference of each frame (H, W, 3) of a clip and the last, along the motion."""
        found = []
        for number in range(1, len(clip)):
            back, same = self.motion(number)
            apart = np.square(clip[number].astype(np.float32) - warp(clip[number - 1], back)).mean(2)
            found.append(apart[same].mean())
        return float(np.mean(found))

    def motion(self, number: int) -> tuple[Array, Array]:
        """The flow (H, W, 2) from a frame to the last, and where both show the same (H, W)."""
        label, before = self.labels[number], self.labels[number - 1]
        height, width = label.shape
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        here = np.stack([x, y, np.ones_like(x)]).reshape(3, -1).astype(np.float64)
        back, same = np.zeros((height, width, 2), np.float32), np.zeros((height, width), bool)
        for layer, poses in enumerate(self.poses):
            there = (np.linalg.inv(poses[number - 1]) @ poses[number] @ here)[:2].reshape(2, height, width)
            flow = (there - here[:2].reshape(2, height, width)).transpose(1, 2, 0).astype(np.float32)
            inner = _inside(before == layer)
            own = label == layer
            back[own] = flow[own]
            same |= (_inside(own) > 0) & (warp(inner[..., None], flow)[..., 0] > 0.99) & _lies_within(there)
        return back, same


def _cut_out(ground: Array, number: int) -> tuple[Array, Array]:
    """A part of the ground, mirrored, and its mask with a soft edge."""
    height, width = ground.shape[0] // 3, ground.shape[1] // 3
    texture = ground[height:, (number % 3) * width :][:height, :width][:, ::-1].copy()
    mask = np.zeros((height, width), np.float32)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 2 - 6, height // 2 - 6), 0, 0, 360, 1.0, -1)
    return texture, cv2.GaussianBlur(mask, (0, 0), 1.0)


def _seen(texture: Array, pose: Array, height: int, width: int, border: int) -> Array:
    offset = (1 / FINER - 1) / 2  # of the middle of the first fine pixel from that of the pixel it is in
    fine = pose @ np.array([[1 / FINER, 0, offset], [0, 1 / FINER, offset], [0, 0, 1]])
    size, how = (FINER * width, FINER * height), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(texture, fine[:2], size, flags=how, borderMode=border)
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA))


def _inside(mask: Array) -> Array:
    side = 2 * MARGIN + 1
    padded = cv2.copyMakeBorder(mask.astype(np.float32), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return np.asarray(cv2.erode(padded, np.ones((side, side), np.uint8))[1:-1, 1:-1])


def _lies_within(places: Array) -> Array:
    """Which places (2, H, W) lie within the frame, away from its edge."""
    _, height, width = places.shape
    most = np.array([width - 1 - MARGIN, height - 1 - MARGIN])[:, None, None]
    return np.asarray(((places >= MARGIN) & (places <= most)).all(0))


def diagonals(picture: Array) -> float:
    """The power in a picture (H, W, 3) of lines of more than a quarter of a cycle a pixel along both axes."""
    grey = picture.astype(np.float32).mean(2)
    window = np.outer(*(np.hanning(side) for side in grey.shape))
    power = np.square(np.abs(np.fft.fft2((grey - grey.mean()) * window)))
    high, wide = (np.abs(np.fft.fftfreq(side)) > 0.25 for side in grey.shape)
    return float(power[np.ix_(high, wide)].mean())


def as_array(picture: Picture) -> Array:
    return np.asarray((picture.rgb[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def as_tensor(frame: Array) -> Tensor:
    return torch.from_numpy(frame.astype(np.float32) / 255).permute(2, 0, 1)[None]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("content", "style"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--scene", choices=SCENES, default="pan")
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=EFFORTS, nargs="+", default=["draft", "default", "best"])
    parser.add_argument("--stills", type=int, help="how many frames are compared with stills; default: two")
    parser.add_argument("--weights", type=Path, help="of VGG-19; default: as stylize finds them")
    parser.add_argument("--out", type=Path, help="a folder for the frames")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    height, width = options.size * 9 // 16 // 2 * 2, options.size
    scene = Scene(options.scene, as_array(load(options.content)), options.frames, height, width, options.seed)
    settings, style = Settings(size=options.size, encoder="vgg19", seed=options.seed), load(options.style)
    stylizer, encode = Stylizer(style, settings, weights=options.weights), encoder("vgg19", options.weights)
    looked_at, of_stills, woven, still = [options.frames // 2, options.frames - 1], {}, {}, 0.0
    if options.stills is not None:
        looked_at = [*range(options.frames // 2, options.frames)][: options.stills]
    for number in looked_at:
        frame, begun = as_tensor(scene.frames[number]), time.process_time()
        painted = stylizer(Picture(frame))
        still = time.process_time() - begun  # the first has the style measured, too
        of_stills[number] = scores(painted.rgb, frame, style.rgb, encode)
        woven[number] = diagonals(as_array(painted))
    print(f"{options.scene}, {options.frames} frames of {width}x{height}; a still takes {still:.1f} CPU s")
    print("| | E | style | held | content | steps | cost | sharp | weave |\n|---|---|---|---|---|---|---|---|---|")
    for effort in options.only:
        frames, steps, seconds = paint(scene, stylizer, effort)
        made = {n: scores(frames[n].rgb, as_tensor(scene.frames[n]), style.rgb, encode) for n in looked_at}
        clip = [as_array(each) for each in frames]
        more = [np.mean([made[n][key] / of_stills[n][key] - 1 for n in looked_at]) for key in SCORES]
        row = [
            effort,
            f"{scene.error(clip) / scene.error(scene.frames):.2f}",
            *(f"{100 * each:+.1f} %" for each in more),
        ]
        fine = [float(np.square(cv2.Laplacian(each.astype(np.float32), cv2.CV_32F)).mean()) for each in clip]
        sharp = min(fine[options.frames // 2 :]) / max(fine[options.frames // 2 :])
        weave = np.mean([diagonals(clip[n]) / woven[n] for n in looked_at])
        row += [f"{steps:.1f}", f"{seconds / still:.3f}", f"{sharp:.2f}", f"{weave:.2f}"]
        print("|", " | ".join(row), "|", flush=True)
        if options.out is not None:
            for number, each in enumerate(frames):
                each.save(options.out / f"{options.scene}-{effort}-{number:05}.png")


def paint(scene: Scene, stylizer: Stylizer, effort: str) -> tuple[list[Picture], float, float]:
    """The painted frames, and of those that follow another the average steps and CPU seconds."""
    counts, first_done = Counter[int](), 0.0

    def count(frame: Frame, step: Step) -> None:
        nonlocal first_done
        counts[frame.number] += 1
        if frame.number == 1:
            first_done = time.process_time()

    options = {**EFFORTS[effort], "given": {}}
    frames = list(paint_frames(scene.frames, stylizer, plugin_manager(), options=options, on_step=count))
    seconds = (time.process_time() - first_done) / (len(frames) - 1)
    return frames, (counts.total() - counts[1]) / (len(frames) - 1), seconds


if __name__ == "__main__":
    main()
