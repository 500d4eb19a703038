"""The frames of a clip as arrays: an ffmpeg process, which knows every codec and container, writes them to a pipe."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from typing import IO, Any

import av
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from stylize import StylizeError
from stylize.text import one_line
from stylize_video.ffmpeg import FLAGS, LOCAL, ffmpeg_process, file_url, in_seconds, last_lines
from stylize_video.probe import Clip

LEAD = 10  # seconds before the first frame wanted from which everything is decoded: seeking lands late in some files

log = logging.getLogger("stylize.video")

Array = NDArray[Any]


def decode_arguments(
    clip: Clip, height: int, width: int, *, start: Fraction | None = None, end: Fraction | None = None
) -> list[str]:
    """Arguments for ffmpeg: every frame once, upright, deinterlaced, with square pixels, ``height`` x ``width``, as raw
    video on stdout."""
    first, stop = clip.frame_range(start, end)
    given: dict[str, Any] = {"protocol_whitelist": LOCAL}
    if clip.alpha and clip.codec in ("vp8", "vp9"):
        given["c:v"] = {"vp8": "libvpx", "vp9": "libvpx-vp9"}[clip.codec]  # ffmpeg's own decoders drop the alpha
    begin = Fraction(0)
    if first:  # halfway between two frames, so that rounding picks the right one
        begin = clip.start + (clip.frame_time(first - 1) + clip.frame_time(first)) / 2
    seek = max(Fraction(0), begin - LEAD)
    if seek:
        given["ss"] = in_seconds(seek)
    picture = ffmpeg.input(file_url(clip.path), **given)["V:0"]
    if clip.interlaced:  # before trimming: it needs the neighbouring frames
        picture = picture.filter("bwdif", mode="send_frame")
    if first:
        picture = picture.filter("trim", start=in_seconds(begin - seek))
    picture = picture.filter("scale", w=width, h=height, flags=FLAGS, **_input_colors(clip)).filter("setsar", 1)
    output: dict[str, Any] = {"format": "rawvideo", "pix_fmt": _raw_format(clip)[0], "fps_mode": "passthrough"}
    if (start is not None or end is not None) and stop is not None:
        output["frames:v"] = stop - first
    return list(picture.output("pipe:1", **output).get_args())


def decode(
    clip: Clip, height: int, width: int, *, start: Fraction | None = None, end: Fraction | None = None
) -> Iterator[Array]:
    """Frame after frame as (height, width, 3), or 4 channels with alpha: uint8, or uint16 above 8 bits.

    Where the file is truncated, the frames there are, and a warning.

    Raises:
        StylizeError: ffmpeg is missing or was killed, or no frame can be decoded.
    """
    first, stop = clip.frame_range(start, end)
    _, channels, kind = _raw_format(clip)
    if clip.transfer in ("smpte2084", "arib-std-b67"):
        log.warning("%s is HDR; its colours are not tone-mapped and may look pale", clip.path)
    arguments = decode_arguments(clip, height, width, start=start, end=end)
    count = 0
    with ffmpeg_process(arguments, subprocess.PIPE) as (process, messages):
        assert process.stdout is not None
        while True:
            frame = np.empty((height, width, channels), kind)
            if not _read_into(process.stdout, frame.data.cast("B")):
                break
            count += 1
            yield frame
        code = process.wait()
        lines = last_lines(messages)
    if not count or code < 0:
        raise StylizeError(one_line(f"{clip.path}: ffmpeg stopped after {count} frames ({lines or f'code {code}'})"))
    wanted = None if stop is None else stop - first
    if wanted is not None and count < wanted:
        log.warning("%s: only %d of %d frames can be read%s", clip.path, count, wanted, f" ({lines})" if lines else "")
    elif code:
        log.warning("%s: %s", clip.path, lines or f"ffmpeg ended with code {code}")


def _raw_format(clip: Clip) -> tuple[str, int, type[np.unsignedinteger[Any]]]:
    deep = clip.bits > 8
    if clip.alpha:
        return "rgba64le" if deep else "rgba", 4, np.uint16 if deep else np.uint8
    return "rgb48le" if deep else "rgb24", 3, np.uint16 if deep else np.uint8


def _input_colors(clip: Clip) -> dict[str, str]:
    """How the scale filter interprets the stored colours; where the file is silent, as players do."""
    form = av.VideoFormat(clip.pixel_format)
    if form.is_rgb or form.has_palette:
        return {}
    known = {"bt470bg": "bt601", "smpte170m": "bt601", "bt2020nc": "bt2020", "bt2020c": "bt2020"}
    large = max(clip.width, clip.height) >= 1280 or min(clip.width, clip.height) >= 720
    matrix = known.get(clip.matrix, clip.matrix) or ("bt709" if large else "bt601")
    limited = "" if clip.pixel_format.startswith("gray") else "tv"
    colors = {"in_color_matrix": matrix, "in_range": clip.color_range or limited}
    return {key: value for key, value in colors.items() if value} | {"out_range": "pc"}


def _read_into(stream: IO[bytes], buffer: memoryview) -> bool:
    """Fill the buffer from the stream; False where the stream ends before."""
    position = 0
    while position < len(buffer):
        count = stream.readinto(buffer[position:])  # type: ignore[attr-defined]
        if not count:
            return False
        position += count
    return True
