"""Pictures of more than 8 bits a channel, by decoders that keep them: OpenCV for PNG, JPEG 2000 and Radiance HDR,
FFmpeg for OpenEXR, and the layouts of TIFF that Pillow lacks."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from stylize.errors import ImageError
from stylize.images.codestreams import by_opencv
from stylize.images.encodings import encode_srgb
from stylize.images.repair import png_essence
from stylize.images.tiff import Layout, Samples

Array = NDArray[Any]

_SIZE_MARKER = b"\xff\x4f\xff\x51"  # of a codestream of JPEG 2000: its size, components and their bits follow


def tiff_samples(file: BinaryIO, check: Callable[[int, int], None]) -> tuple[Layout, Samples] | None:
    """The samples of a TIFF that Pillow does not read, or not in full; None for all others.

    ``check`` raises for a width and height that are too large.
    """
    try:
        layout = Layout(file)
    except ValueError:
        return None  # Pillow will say what is wrong
    if layout.suits_pillow and (layout.problem() or _opens(file)):
        return None
    check(layout.width, layout.height)
    return layout, layout.read()


def _opens(file: BinaryIO) -> bool:
    file.seek(0)
    try:
        Image.open(file, formats=["TIFF"])
    except Exception:  # decoders raise nearly anything
        return False
    return True


def light(file: BinaryIO, kind: str) -> tuple[Array, bool]:
    """The picture of an OpenEXR or Radiance HDR file, (H, W, 1 to 4) float32 in sRGB, white where its linear light is 1
    or above, and whether there is more light than white."""
    file.seek(0)
    values = _exr(file.read()) if kind == "OpenEXR" else _radiance(file.read())
    if not np.isfinite(values).all():
        raise ImageError("it holds NaN or infinite values; write it anew without them")
    colours = values.shape[2] - (values.shape[2] in (2, 4))
    cut = bool((values[..., :colours] > 1.001).any())
    values[..., :colours] = encode_srgb(np.clip(values[..., :colours], 0, 1))
    return values, cut


def _exr(data: bytes) -> Array:
    import av

    try:
        with av.open(io.BytesIO(data), "r", format="exr_pipe") as container:
            frame = next(container.decode(video=0))
    except (av.FFmpegError, StopIteration) as error:
        raise ImageError("OpenEXR, damaged or of a kind that is not supported; convert it to TIFF or PNG") from error
    kind = np.dtype("<f2" if "f16" in frame.format.name else "<f4")  # halves are given as such by newer versions
    each = len(frame.format.components) // len(frame.planes)  # of grey with alpha, side by side
    planes = [
        np.frombuffer(bytes(plane), kind).reshape(plane.height, -1, each)[:, : plane.width] for plane in frame.planes
    ]
    values = np.concatenate(planes, axis=2).astype(np.float32)
    if values.shape[2] == 1:
        return values.copy()
    order = [2, 0, 1, 3][: values.shape[2]]  # FFmpeg has green, blue, red, alpha
    values = values[..., order].copy()
    if values.shape[2] == 4:  # light is stored as seen through alpha
        values[..., :3] /= np.where(values[..., 3:] > 0, values[..., 3:], 1)
    return values


def _radiance(data: bytes) -> Array:
    values = by_opencv(data)
    if values is None or values.dtype != np.float32:
        raise ImageError("truncated or damaged; get a complete copy")
    return values[..., ::-1].copy()


def bits_of(image: Image.Image, file: BinaryIO) -> int:
    """The bits of a channel of a colour picture that Pillow would cut to 8, or 0; ask before ``load``."""
    if image.format == "JPEG2000" and image.mode in ("RGB", "RGBA"):
        file.seek(0)
        head = file.read(2**16)
        at = head.find(_SIZE_MARKER)
        depth = (head[at + 42] & 0x7F) + 1 if 0 <= at < len(head) - 42 else 8
        return depth if depth > 8 else 0
    if image.mode in ("RGB", "RGBA") and isinstance(image, PngImagePlugin.PngImageFile):
        return 16 if any("16" in str(tile.args) for tile in image.tile) else 0
    return 0


def samples_of(image: Image.Image, file: BinaryIO, bits: int) -> Samples | None:
    """The samples of a picture of more than 8 bits as stored; None where OpenCV does not read them as such."""
    if image.format == "PNG":  # without texts, which libpng may complain about on the standard error
        essence, _ = png_essence(file, always=True)
        data = essence.getvalue() if essence else b""
    else:
        file.seek(0)
        data = file.read()
    pixels = by_opencv(data)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != (image.height, image.width):
        return None
    if pixels.ndim == 2:
        return None
    has_alpha = pixels.shape[2] == 4 and image.has_transparency_data
    return Samples(pixels[..., [2, 1, 0, 3] if has_alpha else [2, 1, 0]], 2.0**bits - 1, has_alpha, 1)
