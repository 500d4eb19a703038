"""The frames of a clip as arrays: an ffmpeg process, which knows every codec and container, writes them to a pipe."""

from __future__ import annotations

import logging
import math
import re
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from stylize import StylizeError
from stylize.text import one_line
from stylize_video import pictures
from stylize_video.colors import converter
from stylize_video.ffmpeg import FLAGS, LOCAL, ffmpeg_process, file_url, in_seconds, last_lines
from stylize_video.probe import Clip
from stylize_video.timing import Timing, timing, told

LEAD = 10  # seconds before the first frame wanted from which everything is decoded: seeking lands late in some files

# Where the clock of a file jumps, ffmpeg corrects it by the streams that it reads: the sound must be among them, as it
# is when the clip is written.
SAME_CLOCK_AS_SOUND = ("-map", "0:a?", "-c:a", "copy", "-f", "null", "-")

# An error that is not of the pipe, which complains about frames that are shown faster than the rate of the clip.
_FAULT = re.compile(rb"(?!\[[^\]]*rawvideo).*\[(error|fatal)\]")

log = logging.getLogger("stylize.video")

Array = NDArray[Any]


def decode_arguments(
    clip: Clip,
    height: int,
    width: int,
    *,
    start: Fraction | None = None,
    end: Fraction | None = None,
    timed: bool = False,
) -> list[str]:
    """Arguments for ffmpeg: every frame once, upright, deinterlaced, with square pixels, ``height`` x ``width``, as raw
    video on stdout; if ``timed``, it tells in its messages when each of them is shown."""
    import ffmpeg

    begin, stop = clip.window(start, end)
    given: dict[str, Any] = {"protocol_whitelist": LOCAL}
    if clip.alpha and clip.codec in ("vp8", "vp9"):
        given["c:v"] = {"vp8": "libvpx", "vp9": "libvpx-vp9"}[clip.codec]  # ffmpeg's own decoders drop the alpha
    seek = _seek(begin)
    if seek:
        given["ss"] = seek
    picture = ffmpeg.input(file_url(clip.path), **given)["V:0"]
    if clip.interlaced:  # before trimming: it needs the neighbouring frames
        picture = picture.filter("bwdif", mode="send_frame", deint="interlaced")
    edges = {"start": begin, "end": stop}
    if trimmed := {name: in_seconds(time - seek) for name, time in edges.items() if time is not None}:
        picture = picture.filter("trim", **trimmed)
    if timed:
        picture = picture.filter("showinfo", checksum=0)
    picture = picture.filter("scale", w=width, h=height, flags=FLAGS, **_input_colors(clip)).filter("setsar", 1)
    output = {"format": "rawvideo", "pix_fmt": _raw_format(clip)[0], "fps_mode": "passthrough"}
    return [*picture.output("pipe:1", **output).get_args(), *(SAME_CLOCK_AS_SOUND if clip.jumps else ())]


def _seek(begin: Fraction | None) -> int:
    """Where reading begins, in whole seconds."""
    return 0 if begin is None else max(0, math.floor(begin) - LEAD)


class Reading:
    """An iterable over the frames of a clip as arrays: (height, width, 3), or 4 channels with alpha: uint8, or uint16
    above 8 bits.

    Args:
        clip: what is read.
        height, width: of the frames, in px.
        start, end: in seconds after the first frame.
        timed: whether to note when the frames are shown.
        convert: whether colours that BT.709 cannot hold (HDR, wide gamuts) are brought into it.

    Raises:
        StylizeError: while it is iterated over, if ffmpeg is missing or was killed, or no frame can be decoded.
    """

    def __init__(
        self,
        clip: Clip,
        height: int,
        width: int,
        *,
        start: Fraction | None = None,
        end: Fraction | None = None,
        timed: bool = False,
        convert: bool = True,
    ) -> None:
        self._convert = converter(clip) if convert else None
        self._clip, self._shape, self._timed = clip, (height, width, _raw_format(clip)[1]), timed
        self._window, self._range = clip.window(start, end), clip.frame_range(start, end)
        self._arguments = decode_arguments(clip, height, width, start=start, end=end, timed=timed)
        self._count = 0
        self._times: list[Fraction] = []
        self.sizes: set[tuple[int, int]] = set()  # of the frames as they are stored, (width, height), if timed
        self.errors = 0  # that ffmpeg told of, if timed

    def __iter__(self) -> Iterator[Array]:
        return self._pictures() if self._clip.pictures else self._decoded()

    def _pictures(self) -> Iterator[Array]:
        height, width, _ = self._shape
        first, stop = self._range
        self._count, self._times = 0, []
        for frame in pictures.read(self._clip, height, width, first, stop):
            self._times.append(self._clip.frame_time(first + self._count))
            self._count += 1
            yield frame

    def _decoded(self) -> Iterator[Array]:
        path, kind = self._clip.path, _raw_format(self._clip)[2]
        level, self._count = "info" if self._timed else "error", 0
        with ffmpeg_process(self._arguments, subprocess.PIPE, level=level) as (process, messages):
            assert process.stdout is not None
            try:
                while _read_into(process.stdout, (frame := np.empty(self._shape, kind)).data.cast("B")):
                    self._count += 1
                    yield frame if self._convert is None else self._convert(frame)
            except GeneratorExit:  # the caller has seen enough
                process.kill()
                raise
            finally:
                code, lines = process.wait(), last_lines(messages)
                if self._timed:
                    self._note_times(messages)
        if not self._count or code < 0:
            raise StylizeError(
                one_line(f"{path}: ffmpeg stopped after {self._count} frames ({lines or f'code {code}'})")
            )
        if code:
            log.warning("%s: %s", path, lines or f"ffmpeg ended with code {code}")

    def _note_times(self, messages: IO[bytes]) -> None:
        messages.seek(0)
        found = list(told(messages, Fraction(_seek(self._window[0]))))[: self._count]
        self.sizes = {size for _, size in found}
        messages.seek(0)
        self.errors = sum(bool(_FAULT.match(line)) for line in messages)
        step, last = 1 / self._clip.rate, self._clip.start - 1 / self._clip.rate
        self._times = [last := last + step if time is None else time for time, _ in found]

    def timing(self) -> Timing:
        """When the frames that were read are shown.

        Raises:
            StylizeError: ffmpeg has not told of all of them.
        """
        clip, (_, stop) = self._clip, self._window
        if len(self._times) != self._count or not self._times:
            raise StylizeError(f"{clip.path}: the times of {self._count - len(self._times)} frames are unknown")
        ends = sorted(time for time in (*clip.marks(), stop) if time is not None)
        return timing(self._times, clip.tick, (clip.rate, *clip.rates), ends)


def decode(
    clip: Clip,
    height: int,
    width: int,
    *,
    start: Fraction | None = None,
    end: Fraction | None = None,
    convert: bool = True,
) -> Iterator[Array]:
    """Frame after frame, as :class:`Reading` gives them, from ``start`` to ``end``, in seconds after the first."""
    return iter(Reading(clip, height, width, start=start, end=end, convert=convert))


class InOrder:
    """Frames by their numbers: those that are asked for in order are read in one pass."""

    def __init__(self, read: Callable[[], Iterator[Array]]) -> None:
        self._read = read
        self._frames: Iterator[Array] | None = None
        self._last: Array | None = None
        self.count = 0  # of frames read in this pass

    def at(self, number: int) -> Array | None:
        """A frame, counted from 0; None if there are not so many."""
        if self._last is not None and number == self.count - 1:
            return self._last
        if self._frames is None or number < self.count:
            self._frames, self.count = self._read(), 0
        for frame in self._frames:
            self._last, self.count = frame, self.count + 1
            if self.count > number:
                return frame
        return None


def _raw_format(clip: Clip) -> tuple[str, int, type[np.unsignedinteger[Any]]]:
    deep = clip.bits > 8
    if clip.alpha:
        return "rgba64le" if deep else "rgba", 4, np.uint16 if deep else np.uint8
    return "rgb48le" if deep else "rgb24", 3, np.uint16 if deep else np.uint8


def _input_colors(clip: Clip) -> dict[str, str]:
    """How the scale filter interprets the stored colours; where the file is silent, as players do."""
    import av

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
