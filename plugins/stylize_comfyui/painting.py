"""Batches of ComfyUI painted by stylize, with its progress bar, previews and interruption."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import comfy.model_management as management
import numpy as np
import torch
from comfy.utils import ProgressBar
from PIL import Image
from torch import Tensor

import stylize
from stylize import (
    TEXTURE,
    Chain,
    Frame,
    Host,
    Job,
    Mask,
    Painted,
    Picture,
    Settings,
    Step,
    Stylizer,
    fit,
    paint_frames,
    plugin_manager,
    resize,
    run,
)
from stylize.arrays import Array, as_array

KEPT = 2  # styles whose statistics are kept, with their encoder
LARGE = 1024 * 1024  # px, from which on ComfyUI's own models make room
UNITS = 1000  # of the progress bar, for each picture
PREVIEW = 512  # px, longest side
PAUSE = 0.04  # s between two previews, at least
SHARE = 4  # and so many times what the last one took: looking on must not be most of the work

log = logging.getLogger("stylize.comfyui")
_stylizers: OrderedDict[tuple[str, str], Stylizer] = OrderedDict()


@contextmanager
def gradients() -> Iterator[None]:
    """ComfyUI runs its nodes in inference mode, in which nothing can be optimised."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def picture(image: Tensor, name: str = "") -> Picture:
    """One picture of a batch, (H, W, 1, 3 or 4): grey, colour, or colour with alpha. Values beyond [0, 1], as VAEs
    give them, are clipped, and NaN becomes 0."""
    channels = torch.nan_to_num(image.detach().float().cpu(), nan=0.0).clamp(0, 1).movedim(-1, 0)[None].clone()
    rgb = channels[:, :3] if channels.shape[1] >= 3 else channels[:, :1].expand(-1, 3, -1, -1)
    alpha = channels[:, 3:4] if channels.shape[1] == 4 else None
    return Picture(rgb.contiguous(), None if alpha is None else alpha.contiguous(), name=name)


def pictures(batch: Tensor) -> list[Picture]:
    """The pictures of a batch (B, H, W, C), or of a single one (H, W, C)."""
    batch = batch if batch.dim() == 4 else batch[None]
    return [picture(image, f"picture {number}") for number, image in enumerate(batch, 1)]


def batch(made: Sequence[Picture]) -> Tensor:
    """Pictures of one size as a batch (B, H, W, 3), or with 4 channels where one of them has alpha."""
    with_alpha = any(each.alpha is not None for each in made)

    def channels(each: Picture) -> Tensor:
        alpha = torch.ones_like(each.rgb[:, :1]) if each.alpha is None else each.alpha
        return torch.cat([each.rgb, alpha], 1) if with_alpha else each.rgb

    return torch.cat([channels(each) for each in made]).movedim(1, -1).clamp(0, 1).contiguous()


def masks(mask: Tensor, count: int, height: int, width: int) -> Tensor:
    """A mask (H, W) or (B, H, W) as weights (count, 1, height, width) in [0, 1]; its last picture serves the rest."""
    mask = mask.detach().float().cpu().clone()
    mask = torch.nan_to_num(mask.reshape(-1, 1, *mask.shape[-2:]), nan=0.0).clamp(0, 1)
    last = torch.arange(count).clamp(max=len(mask) - 1)
    return torch.cat([resize(mask[number][None], height, width) for number in last]).clamp(0, 1)


class BatchJob(Job):
    """The pictures of a batch, one after the other.

    ``mask`` (B, 1, H, W) in [0, 1] says where to paint, and how much. The results then have the content's own size, and
    its very pixels where the mask is 0. ``init`` holds the pictures to start from.
    """

    def __init__(self, content: Sequence[Picture], mask: Tensor | None = None, init: Sequence[Picture] = ()) -> None:
        self.content, self._mask, self._init = content, mask, init
        self.results: list[Picture | None] = [None] * len(content)
        self.records: list[dict[str, Any] | None] = [None] * len(content)

    def frames(self, chain: Chain) -> Iterator[Frame]:
        for number, content in enumerate(self.content):
            if self._mask is not None and not bool(self._mask[number].any()):
                self.results[number] = content
                continue
            init = self._init[min(number, len(self._init) - 1)].opaque().rgb if self._init else None
            mask, data = None if self._mask is None else Mask(self._mask[number][None]), {"number": number}
            yield Frame(content.name, content, init, mask=mask, number=number + 1, total=len(self.content), data=data)

    def write(self, frame: Frame, painted: Painted) -> None:
        number = frame.data["number"]
        self.results[number] = self.shown(number, painted.picture)
        self.records[number] = dict(painted.picture.record or {})

    def shown(self, number: int, painted: Picture) -> Picture:
        """A painted picture within its mask."""
        return painted if self._mask is None else composited(self.content[number], painted, self._mask[number])


def composited(content: Picture, painted: Picture, mask: Tensor) -> Picture:
    """``painted`` at the content's size where a mask (1, H, W) is 1, the content where it is 0."""
    return replace(painted, rgb=Mask(mask[None]).over(content.rgb, painted.rgb), alpha=content.alpha)


def paint(job: BatchJob, styles: Sequence[Picture], settings: Settings) -> None:
    """Paint the pictures of a job in a style, or in a blend of several.

    Raises:
        StylizeError: what is wrong with pictures, settings, weights or the device.
        InterruptProcessingException: ComfyUI was told to stop.
    """
    host, progress = plugin_manager(), Progress(len(job.content))
    settings = on_comfy_device(settings)
    make_room(*fit(*job.content[0].size, settings.size, upscale=settings.upscale))
    stylizer = stylizer_for(styles, settings, host, progress)

    def on_step(frame: Frame, step: Step) -> None:
        number = frame.data["number"]
        progress.step(number, step, lambda: job.shown(number, Picture(step.image())).rgb)

    options = host.default_options()
    run(job, stylizer, host=host, options=options, on_step=on_step, stop=management.processing_interrupted)
    management.throw_exception_if_processing_interrupted()
    progress.done()


def clip(
    content: Sequence[Picture],
    styles: Sequence[Picture],
    settings: Settings,
    mask: Tensor | None,
    options: Mapping[str, Any],
) -> list[Picture]:
    """Pictures of one size painted as the frames of a clip; ``mask`` as for a :class:`BatchJob`.

    Raises:
        StylizeError: what is wrong with pictures, settings, options, weights or the device.
        InterruptProcessingException: ComfyUI was told to stop.
    """
    host, progress = plugin_manager(), Progress(len(content))
    settings = on_comfy_device(settings)
    make_room(*fit(*content[0].size, settings.size, upscale=settings.upscale))
    stylizer = stylizer_for(styles, settings, host, progress)
    opaque = all(each.alpha is None for each in content)

    def frame(picture: Picture) -> Array:
        alpha = None if opaque or picture.alpha is not None else torch.ones_like(picture.rgb[:, :1])
        return as_array(picture if alpha is None else replace(picture, alpha=alpha), np.dtype(np.uint8))

    made = paint_frames(
        map(frame, content),
        stylizer,
        host,
        options=options,
        masks=None if mask is None else (each[0].numpy() for each in mask),
        on_step=lambda frame, step: progress.step(frame.number - 1, step, step.image),
        stop=management.processing_interrupted,
    )
    painted = list(made)
    management.throw_exception_if_processing_interrupted()
    progress.done()
    if mask is None:
        return painted
    return [composited(*each) for each in zip(content, painted, mask, strict=True)]


def texture(styles: Sequence[Picture], settings: Settings | None, size: int, seed: int) -> Tensor:
    """The style alone, as a batch of one picture; ``size`` 0: as the settings say.

    Raises:
        StylizeError: what is wrong with pictures, settings, weights or the device.
        InterruptProcessingException: ComfyUI was told to stop.
    """
    chosen = (settings or TEXTURE).replace(seed=seed)
    chosen = on_comfy_device(chosen.replace(size=size) if size else chosen)
    make_room(chosen.size, chosen.size)
    progress = Progress(1)
    made = stylize.texture(
        styles,
        chosen,
        encoders=plugin_manager().encoders(),
        progress=progress.download,
        on_step=lambda step: progress.step(0, step, step.image),
        stop=management.processing_interrupted,
    )
    management.throw_exception_if_processing_interrupted()
    progress.done()
    return batch([made])


def stylizer_for(styles: Sequence[Picture], settings: Settings, host: Host, progress: Progress) -> Stylizer:
    """The stylizer of a style, or the one that was made for it before."""
    key = ("".join(map(_digest, styles)), settings.to_toml())
    if key not in _stylizers:
        made = Stylizer(
            styles,
            settings,
            encoders=host.encoders(),
            color_modes=host.color_modes(),
            progress=progress.download,
        )
        for problem in host.problems:
            log.warning("%s", problem)
        if settings.encoder == "auto" and made.engine.spec.name == "mini":
            log.warning("painting with mini, the small encoder that comes along: VGG-19's weights were not to be had")
        _stylizers[key] = made
    _stylizers.move_to_end(key)
    while len(_stylizers) > KEPT:
        _stylizers.popitem(last=False)
    return _stylizers[key]


def on_comfy_device(settings: Settings) -> Settings:
    """The settings, on the device that ComfyUI uses unless they name another."""
    if settings.device != "auto":
        return settings
    device = management.get_torch_device()
    return settings.replace(device=str(device) if device.type in ("cpu", "cuda", "mps") else "cpu")


def make_room(height: int, width: int) -> None:
    """Unload ComfyUI's models before a large picture, which would otherwise be painted in many small tiles."""
    if height * width >= LARGE:
        management.unload_all_models()
        management.soft_empty_cache()


class Progress:
    """ComfyUI's progress bar over ``total`` pictures, with a preview a few times a second."""

    def __init__(self, total: int) -> None:
        self._whole = UNITS * max(1, total)
        self._bar = ProgressBar(self._whole)
        self._at, self._due = 0, 0.0

    def step(self, number: int, step: Step, image: Callable[[], Tensor]) -> None:
        """Show a step of a picture, counted from 0, whose ``image`` (1, 3, H, W) is computed only for a preview."""
        preview, now = None, time.monotonic()
        if now >= self._due:
            preview = ("JPEG", _thumbnail(image()), PREVIEW)
            self._due = time.monotonic() + max(PAUSE, SHARE * (time.monotonic() - now))
        self._at = round(UNITS * (number + step.fraction))
        self._bar.update_absolute(self._at, self._whole, preview)

    def done(self) -> None:
        """Fill the bar: scales may have ended before their last step, and unchanged frames have none."""
        if self._at < self._whole:
            self._bar.update_absolute(self._whole, self._whole)

    def download(self, done: int, total: int | None) -> None:
        """Show how far the download of weights is, and stop it when ComfyUI is told to."""
        management.throw_exception_if_processing_interrupted()
        if total:
            self._bar.update_absolute(done, total)


def as_text(records: Sequence[dict[str, Any] | None]) -> str:
    """Records as JSON: of a single picture, or a list."""
    return json.dumps(records[0] if len(records) == 1 else list(records), indent=2)


def _thumbnail(rgb: Tensor) -> Image.Image:
    height, width = rgb.shape[-2:]
    factor = min(1.0, PREVIEW / max(height, width))
    small = resize(rgb, max(1, round(height * factor)), max(1, round(width * factor)))
    return Image.fromarray((small[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy())


def _digest(style: Picture) -> str:
    digest = hashlib.sha256(style.rgb.numpy().tobytes())
    if style.alpha is not None:
        digest.update(style.alpha.numpy().tobytes())
    return f"{tuple(style.rgb.shape)} {digest.hexdigest()} "
