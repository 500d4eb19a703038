"""Pictures from and to what Python programs hold: paths, bytes, file objects, Pillow images, NumPy arrays, tensors."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable
from typing import Any, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stylize.errors import ImageError, SettingsError
from stylize.images.picture import SPARE, Picture
from stylize.images.profiles import check_profile, srgb_profile
from stylize.images.read import File, load

Array = NDArray[Any]
Source = Picture | File | Image.Image | Array | Tensor  # what can be given as a picture; see as_picture()

TAKEN = (
    "a picture can be given as a path, bytes, a file object, a PIL image, a NumPy array (H, W) or (H, W, 1, 3 or 4), "
    "or a torch tensor (1, 3 or 4, H, W), of uint8, uint16 or floats in [0, 1]"
)
PREVIEW = 1024  # px: the longest side of what a notebook shows
ROUNDING = 1e-4  # by how much floats may leave [0, 1]
_KINDS = {("u", 1), ("u", 2), ("f", 2), ("f", 4), ("f", 8)}  # of NumPy's numbers, with their bytes
_LEVELS = {torch.uint8: 255.0, torch.uint16: 65535.0}


def as_picture(source: Source, size: int | None = None, *, profile: str = "srgb") -> Picture:
    """A picture from whatever holds one.

    Args:
        source: a Picture; a path, the bytes of a file, a file object opened as ``"rb"`` or a Pillow image; a NumPy
            array (H, W) or (H, W, C); or a torch tensor (C, H, W) or (1, C, H, W) on any device. C is 1 for grey, 3 for
            sRGB, or 4 with alpha; numbers are uint8, uint16, or floats in [0, 1].
        size: the longest side in px that is needed: a larger file is shrunk to a few times that as it is read.
        profile: "keep" leaves the colours of a file in its own ICC profile, see :func:`load`; "srgb" converts them, and
            those of a Picture, too.

    Raises:
        SettingsError: it is none of these, or has other numbers or another shape.
        ImageError: a file that cannot be read.
    """
    check_profile(profile)
    if isinstance(source, Picture):
        return _usable(source if profile == "keep" else source.in_profile())
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if _is_file(source):
        return load(source, longest=size and size * SPARE, profile=profile)
    raise SettingsError(f"{TAKEN}; not as {type(source).__name__}")


def as_pictures(sources: Source | Iterable[Source], size: int | None = None) -> tuple[Picture, ...]:
    """One picture, or several, each as :func:`as_picture` takes it."""
    if isinstance(sources, (Picture, Tensor, np.ndarray)) or _is_file(sources):
        return (as_picture(cast(Source, sources), size),)
    if not isinstance(sources, Iterable):
        raise SettingsError(f"{TAKEN}; not as {type(sources).__name__}")
    return tuple(as_picture(source, size) for source in cast("Iterable[Source]", sources))


def _is_file(source: object) -> TypeGuard[File | Image.Image]:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return isinstance(source, kinds) or callable(getattr(source, "read", None))


def _usable(picture: Picture) -> Picture:
    """The picture, in tensors that gradients can flow past: not those made in ``torch.inference_mode()``."""
    if not any(each is not None and each.is_inference() for each in (picture.rgb, picture.alpha)):
        return picture
    alpha = None if picture.alpha is None else picture.alpha.clone()
    return dataclasses.replace(picture, rgb=picture.rgb.clone(), alpha=alpha)


def _from_array(array: Array) -> Picture:
    shape = array.shape
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        turned = len(shape) == 3 and shape[0] in (1, 3, 4)
        advice = "; put its channels last, with array.transpose(1, 2, 0)" if turned else ""
        raise SettingsError(f"a NumPy array of a picture is (H, W) or (H, W, 1, 3 or 4), not {shape}{advice}")
    if (array.dtype.kind, array.dtype.itemsize) not in _KINDS:
        raise SettingsError(f"a NumPy array of a picture holds uint8, uint16 or floats in [0, 1], not {array.dtype}")
    copied = array.astype(array.dtype.newbyteorder("="), order="C")
    return _from_channels(torch.from_numpy(copied).permute(2, 0, 1), "NumPy array")


def _from_tensor(tensor: Tensor) -> Picture:
    shape = tuple(tensor.shape)
    if tensor.dim() == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.dim() != 3 or len(tensor) not in (1, 3, 4) or not tensor.numel():
        turned = tensor.dim() == 3 and tensor.shape[2] in (1, 3, 4)
        advice = "; put its channels first, with tensor.permute(2, 0, 1)" if turned else ""
        if len(shape) == 4 and shape[0] > 1:
            advice = "; give one picture at a time"
        wanted = "a tensor of a picture is (C, H, W) or (1, C, H, W) with C = 1, 3 or 4"
        raise SettingsError(f"{wanted}, such as (1, 3, H, W), not {shape}{advice}")
    if tensor.is_meta:
        raise SettingsError("a tensor on the device meta holds no picture; give one with values")
    if tensor.dtype not in _LEVELS and not tensor.is_floating_point():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise SettingsError(f"a tensor of a picture holds uint8, uint16 or floats in [0, 1], not {kind}")
    return _from_channels(tensor.detach().to("cpu", copy=True), "tensor")


def _from_channels(channels: Tensor, kind: str) -> Picture:
    """A picture of (C, H, W), of any of the types of numbers; a copy."""
    unit = channels.to(torch.float32)
    if channels.dtype in _LEVELS:
        unit = unit / _LEVELS[channels.dtype]
    elif not bool(torch.isfinite(unit).all()):
        raise SettingsError(f"a picture holds NaN or infinity; it was given as a {kind} of floats")
    else:
        low, high = float(unit.min()), float(unit.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            advice = "divide by 255 or give uint8" if 1 < high <= 255 and low >= 0 else "scale it to that range"
            raise SettingsError(
                f"a {kind} of floats must be in [0, 1]; this one goes from {low:g} to {high:g}: {advice}"
            )
        unit = unit.clamp(0, 1)
    rgb, alpha = unit[None, :3], unit[None, 3:]
    shown = alpha.contiguous() if bool((alpha < 1).any()) else None
    return Picture(rgb.expand(-1, 3, -1, -1).contiguous(), shown)


def to_numpy(picture: Picture, dtype: np.dtype[Any]) -> Array:
    """See :meth:`Picture.numpy`."""
    if dtype.kind not in "uf":
        raise SettingsError(f"a picture becomes an array of unsigned integers or floats, not of {dtype}")
    channels = picture.rgb if picture.alpha is None else torch.cat([picture.rgb, picture.alpha.to(picture.rgb)], 1)
    unit = channels.detach().cpu().float()
    if not bool(torch.isfinite(unit).all()):
        raise ImageError("the picture holds NaN or infinite values")
    array: Array = unit[0].permute(1, 2, 0).clamp(0, 1).numpy()
    if dtype.kind == "u":
        array = (array * np.float64(np.iinfo(dtype).max)).round()
    return np.ascontiguousarray(array.astype(dtype))


def to_pillow(picture: Picture) -> Image.Image:
    """See :meth:`Picture.pil`."""
    image = Image.fromarray(to_numpy(picture, np.dtype(np.uint8)))
    image.info["icc_profile"] = picture.profile or srgb_profile()
    if picture.exif is not None:
        image.info["exif"] = picture.exif
    return image


def preview(picture: Picture) -> bytes:
    """A PNG of at most :data:`PREVIEW` px."""
    image = to_pillow(picture)
    image.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
