"""Painted frames with the sound, subtitles, chapters and metadata of their source, encoded as a clip by ffmpeg."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg

from stylize import StylizeError
from stylize_video.codecs import Codec, check_codec, default_codec
from stylize_video.ffmpeg import FLAGS, LOCAL, as_ratio, file_url, in_seconds
from stylize_video.probe import Clip
from stylize_video.streams import Track, timecode_at, tracks
from stylize_video.timing import SHORTEST

FRAME_NAME = "%08d.png"  # of the painted frames in their folder, from 0
RANDOM = ("matroska", "webm")  # muxers that number segments and tracks at random, unless told not to
TIME_BASE = 90_000  # ticks per second: the frame times of cameras and containers are whole numbers of them
SAME_CLOCK_AS_PICTURES = ("-map", "1:V:0", "-c:v", "copy", "-f", "null", "-")  # see decode.py

Options = dict[str, Any]  # of ffmpeg


@dataclass(frozen=True)
class Encoding:
    """A clip to write.

    ``clip`` is the source, ``frames`` the folder of painted frames, named :data:`FRAME_NAME`, ``target`` the file.
    ``rate`` is in frames per second; ``durations`` says how long each frame is shown, in s, where that varies.
    ``codec`` is by default the one :func:`~stylize_video.codecs.default_codec` names, ``crf`` the codec's own.
    ``begin`` is when the first frame is shown, in s from the beginning of the source, by default as the source says.
    What comes along is cut at ``start`` and ``end``, in s from the beginning of the source; None: it is not.
    ``audio`` is one of :data:`~stylize_video.codecs.AUDIO`: "copy" (where the container can hold the codec), "aac" or
    "none". ``along`` is what comes along and by which of its ways; None: all that can, by the first.
    ``hdr`` says that the frames are HDR as the source is, and stay so.
    """

    clip: Clip
    frames: Path
    target: Path
    rate: Fraction
    durations: Sequence[Fraction] | None = None
    codec: str | None = None
    crf: int | None = None
    begin: Fraction | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    audio: str = "copy"
    along: tuple[tuple[Track, str], ...] | None = None
    hdr: bool = False

    @property
    def codec_name(self) -> str:
        return self.codec or default_codec(self.target)

    @property
    def delay(self) -> Fraction:
        """How much later than what comes along, cut at its start, the first frame comes, in s."""
        first = self.start or Fraction(0)
        begin = self.begin if self.begin is not None else self.clip.start if self.start is None else first
        return max(Fraction(0), begin - first)

    @property
    def timecode(self) -> str:
        """The timecode of the first frame, "" where there is none or the rate has none."""
        clip, begin = self.clip, self.clip.start if self.begin is None else self.begin
        if not clip.timecode or self.durations is not None:
            return ""
        return timecode_at(clip.timecode, self.rate, round((begin - clip.start) * self.rate))


def encode_arguments(
    encoding: Encoding, list_file: Path | None = None, covers: Mapping[int, Path] | None = None
) -> list[str]:
    """Arguments for ffmpeg, of which the last is the target.

    Args:
        encoding: what to write.
        list_file: where :func:`concat_list` is written; needed where the frames have durations.
        covers: files of the cover pictures, by their numbers, for Matroska, which takes them for attachments.

    Raises:
        StylizeError: codec, target or audio do not go together.
    """
    codec, muxer = check_codec(encoding.codec_name, encoding.target, encoding.audio, encoding.crf)
    options: Options = {"c:v": codec.encoder, "format": muxer, "fps_mode": "passthrough", **dict(codec.options)}
    if muxer == "gif":
        return _gif_arguments(encoding, options, list_file)
    picture, colors = _convert_colors(_frames(encoding, list_file), codec, encoding)
    options |= colors | _quality(encoding, codec, muxer)
    picture, delay = _delayed(picture, encoding.delay)
    options |= delay | _durations(encoding, codec, muxer) | _cuts(encoding, muxer) | _tags(encoding, muxer)
    streams = list[Any]()
    if not encoding.clip.pictures:
        streams, kept = _along(encoding, muxer, covers or {})
        options |= kept | {"map_metadata": 1, "map_chapters": 1}
    options |= {"max_muxing_queue_size": 4096, "max_error_rate": 1}
    options |= {"fflags": "+bitexact"} if muxer in RANDOM else {}  # the same clip in the same bytes
    if "c:v:1" in options:  # a cover picture, which is none of the encoder's business
        options = {f"{key}:0" if key.endswith(":v") else key: value for key, value in options.items()}
    lists = [key for key, value in options.items() if isinstance(value, list)]
    repeated = [word for key in lists for word in _all_of(key, options.pop(key))]
    *made, target = ffmpeg.output(picture, *streams, file_url(encoding.target), **options).get_args()
    device = ["-init_hw_device", "vaapi=card:/dev/dri/renderD128", "-filter_hw_device", "card"] if codec.upload else []
    return [*device, *made, *repeated, target]


def _all_of(option: str, values: Sequence[Any]) -> Iterator[str]:
    """An option given several times."""
    for value in values:
        yield from (f"-{option}", str(value))


def _frames(encoding: Encoding, list_file: Path | None, **extra: int) -> Any:
    """The painted frames as a stream."""
    if encoding.durations is None:
        pattern = file_url(encoding.frames).replace("%", "%%") + "/" + FRAME_NAME
        sequence = {"format": "image2", "pattern_type": "sequence", "start_number": 0}
        return ffmpeg.input(pattern, **sequence, framerate=as_ratio(encoding.rate), **extra).video
    if list_file is None:
        raise StylizeError("frames with durations need a list file")
    return ffmpeg.input(file_url(list_file), format="concat", safe=0, **extra).video


def _gif_arguments(encoding: Encoding, options: Options, list_file: Path | None) -> list[str]:
    if encoding.durations:
        options["final_delay"] = max(1, round(encoding.durations[-1] * 100))
    # Read twice, so that the frames need not be held in memory until the palette of them all is known.
    palette = _frames(encoding, list_file, thread_queue_size=16).filter("palettegen")
    picture = ffmpeg.filter([_frames(encoding, list_file), palette], "paletteuse", dither="sierra2_4a")
    return list(picture.output(file_url(encoding.target), **options).get_args())


def _convert_colors(picture: Any, codec: Codec, encoding: Encoding) -> tuple[Any, Options]:
    """The stream in the pixel format of the codec, and the options that tag its colours: BT.709, limited range."""
    clip, (eight, deep, alpha) = encoding.clip, codec.pixel_formats
    pixel_format = alpha if clip.alpha and alpha else deep if clip.bits > 8 else eight
    tags, matrix = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709"}, "bt709"
    if encoding.hdr:
        tags, matrix = {"color_primaries": "bt2020", "color_trc": clip.transfer, "colorspace": "bt2020nc"}, "bt2020"
        pixel_format = "yuv420p10le" if pixel_format == "yuv420p" else pixel_format
    if not pixel_format.startswith(("yuv", "nv", "p0")):
        tags["colorspace"] = "rgb"
        return picture, {"pix_fmt": pixel_format} | (tags if encoding.hdr else {})
    colors = {"in_range": "pc", "out_range": "tv", "out_color_matrix": matrix}
    picture = picture.filter("scale", flags=FLAGS, **colors).filter("format", pixel_format)
    picture = picture.filter("setparams", range="tv", **tags)
    if codec.upload:
        return picture.filter(codec.upload), tags | {"color_range": "tv"}
    return picture, tags | {"color_range": "tv", "pix_fmt": pixel_format}


def _quality(encoding: Encoding, codec: Codec, muxer: str) -> Options:
    options: Options = {}
    if encoding.codec_name == "prores":
        options["profile:v"] = "4444" if encoding.clip.alpha else "hq"
    if encoding.codec_name == "h264" and encoding.crf == 0:
        options["profile:v"] = "high444"  # the only one that is lossless
    if codec.crf is not None:
        options[codec.crf_option] = codec.crf if encoding.crf is None else encoding.crf
    if encoding.codec_name.startswith(("h265", "hevc")) and muxer in ("mp4", "mov"):
        options["tag:v:0"] = "hvc1"
    if muxer in ("mp4", "mov"):
        options["movflags"] = "+faststart"
    return options


def _delayed(picture: Any, delay: Fraction) -> tuple[Any, Options]:
    if not delay:
        return picture, {}
    picture = picture.filter("settb", f"1/{TIME_BASE}").filter("setpts", f"PTS+{round(delay * TIME_BASE)}")
    return picture, {"enc_time_base": f"1:{TIME_BASE}"}


def _durations(encoding: Encoding, codec: Codec, muxer: str) -> Options:
    durations, options = encoding.durations, dict[str, Any]()
    if not durations:
        if encoding.delay and muxer in ("mp4", "mov"):  # delayed, ffmpeg 7.0 forgets how long the last frame is shown
            options["bsf:v:0"] = f"setts=pts=PTS:dts=DTS:duration={round(TIME_BASE / encoding.rate)}"
        return options
    if codec.rate_option:
        key, _, value = codec.rate_option.partition("=")
        options[key] = value.format(n=encoding.rate.numerator, d=encoding.rate.denominator)
    if muxer in ("mp4", "mov"):  # the muxer takes a frame's duration from the next one: the last has none
        whole = encoding.delay + sum(durations, Fraction(0))
        last, end = round((whole - durations[-1]) * TIME_BASE) - 1, round(whole * TIME_BASE)
        final = rf"gte(PTS\,{last})+eq(N\,{len(durations) - 1})"  # the last shown, and the last stored
        options["bsf:v:0"] = rf"setts=pts=PTS:dts=DTS:duration=if({final}\,max({end}-PTS\,1)\,DURATION)"
    return options


def _cuts(encoding: Encoding, muxer: str) -> Options:
    options: Options = {}
    if encoding.start is not None:
        # Seeking lands before the cut, at a key frame of the source; a subtitle may have begun before the cut.
        options["copypriorss:a"] = 0
        if muxer in ("matroska", "webm"):
            options["avoid_negative_ts"] = "disabled"  # otherwise everything is delayed until that subtitle ends
    if encoding.end is not None:
        options["t"] = in_seconds(encoding.end - (encoding.start or 0))
    return options


def _tags(encoding: Encoding, muxer: str) -> Options:
    """What is said of the video track in the source."""
    tags = [f"{key}={value}" for key, value in encoding.clip.tags]
    if encoding.timecode:
        tags.append(f"timecode={encoding.timecode}")
    options: Options = {"metadata:s:v:0": tags} if tags else {}
    if muxer == "matroska":
        options["default_mode"] = "passthrough"  # else subtitles are shown that were not
    return options | {"disposition:v:0": "default"}


def _along(encoding: Encoding, muxer: str, covers: Mapping[int, Path]) -> tuple[list[Any], Options]:
    """The tracks of the source that come along, and the options saying how."""
    clip, options, attached = encoding.clip, dict[str, Any](), list[Path]()
    seek = {} if encoding.start is None else {"ss": in_seconds(encoding.start)}
    source = ffmpeg.input(file_url(clip.path), protocol_whitelist=LOCAL, **seek)
    along = encoding.along
    if along is None:
        along = tuple((track, track.ways[0]) for track in tracks(clip, muxer, encoding.audio)[0])
    streams: list[Any] = []
    count = {"v": 1}  # of the streams of each kind that are written so far
    for track, way in along:
        if track.kind == "v" and muxer == "matroska":
            attached += [covers[track.number]] if track.number in covers else []
            continue
        place = count.setdefault(track.kind, 0)
        count[track.kind] += 1
        streams.append(source[f"{track.kind}:{track.number}"])
        options[f"c:{track.kind}:{place}"] = way
        if track.kind == "v":
            options[f"disposition:v:{place}"] = "attached_pic"
    if attached:
        options["attach"] = [file_url(path) for path in attached]
        for place, path in enumerate(attached, count.get("t", 0)):
            kind = "image/png" if path.suffix == ".png" else "image/jpeg"
            options[f"metadata:s:t:{place}"] = [f"filename={path.name}", f"mimetype={kind}"]
    return streams or [source["a:999?"]], options  # no stream: the file is opened for its metadata and chapters


def concat_list(folder: Path, durations: Sequence[Fraction]) -> str:
    """A list for ffmpeg's concat demuxer: the frames of a folder, and how long each is shown, in s."""
    lines = ["ffconcat version 1.0"]
    edges = [0]
    for time in itertools.accumulate(max(Fraction(duration), SHORTEST) for duration in durations):
        edges.append(round(time * 1_000_000))  # the sum is rounded, so that errors do not add up
    for index, (begin, end) in enumerate(itertools.pairwise(edges)):
        lines.append(f"file {quoted(file_url(folder / (FRAME_NAME % index)))}")
        lines.append("option pattern_type none")  # % in the name means nothing
        lines.append(f"option framerate {TIME_BASE}")  # the time base: without it times are rounded to 1/25 s
        lines.append(f"duration {(end - begin) // 1_000_000}.{(end - begin) % 1_000_000:06d}")
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """``text`` as one word of a list for ffmpeg.

    Raises:
        StylizeError: it has a line break, which such a list cannot hold.
    """
    if set(text) & set("\n\r\0"):
        raise StylizeError(f"{text!r} has a line break in its name; use a folder without one")
    return "'" + text.replace("'", "'\\''") + "'"
