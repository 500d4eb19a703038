"""Command-line options that several plugins can have. A plugin appends them to ``command.params`` like its own; the
host shows such an option once, and takes it for the sources of all plugins that have it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stylize.errors import SettingsError, TargetError
from stylize.settings import PROFILES
from stylize.stores import is_folder

if TYPE_CHECKING:
    from stylize.host import Host

# Recorded as "saving", or without influence on the picture.
NOT_RECORDED = frozenset(
    (
        *("bits", "quality", "no_location", "profile", "report", "jobs", "mask", "keep", "region", "mask_folder"),
        "scheduler",
    )
)


def bits_option() -> click.Option:
    """``--bits``: 8 or 16 bits per channel."""
    return click.Option(
        ["--bits"],
        type=click.Choice((8, 16)),
        help="Bits per channel; 16 needs PNG or TIFF. Default: 16 where the photo has more than 8 and the format can "
        "hold them, else 8.",
    )


def location_option() -> click.Option:
    """``--no-location``: whether results tell where the photo was taken, and where its file lies."""
    return click.Option(
        ["--no-location"],
        is_flag=True,
        help="Leave GPS, names of places and the folders of the photo and the styles out of results.",
    )


def profile_option() -> click.Option:
    """``--profile``: whether results are in sRGB or in the colours of the photo."""
    return click.Option(
        ["--profile"],
        type=click.Choice(PROFILES),
        help="Colours of the result; srgb: sRGB; keep: those of the photo's own ICC profile, such as Display P3, in "
        "which it is painted and saved. Default: srgb.",
    )


def quality_option() -> click.Option:
    """``--quality``: of lossy formats, 1 to 100."""
    return click.Option(["--quality"], type=click.IntRange(1, 100), metavar="N", help="Quality of JPEG, WebP and AVIF.")


def mask_option() -> click.Option:
    """``--mask``: what is painted."""
    return click.Option(
        ["--mask"],
        metavar="FILE",
        help="Paint where this picture is white, in part where it is grey; where it is black, the photo stays as it "
        "is. FILE=#ff0000 is one colour of a map.",
    )


def keep_option() -> click.Option:
    """``--keep``: what is not painted."""
    return click.Option(["--keep"], metavar="FILE", help="The opposite of --mask: the photo stays where it is white.")


def region_option() -> click.Option:
    """``--region``: a part with a style of its own."""
    return click.Option(
        ["--region"],
        nargs=2,
        multiple=True,
        metavar="MASK STYLE",
        help="Paint where MASK is white in the style of STYLE, or of a blend A,B; @0.2 behind it is a content weight "
        "of its own. May be given several times; later ones lie over earlier ones.",
    )


def report_option() -> click.Option:
    """``--report``: the path of an HTML page, in a folder that exists."""
    return click.Option(
        ["--report"],
        type=Path,
        metavar="FILE",
        callback=_check_report,
        help="Write an HTML page that shows the results, times and problems.",
    )


def jobs_option() -> click.Option:
    """``--jobs``: how many processes to share the work between."""
    return click.Option(
        ["--jobs"],
        type=click.IntRange(1),
        metavar="N",
        help="Paint with N processes at once, each on a GPU of its own where there are several.",
    )


def output_option(result: str = "what plugins write") -> click.Option:
    """``-o``: where the result goes; ``result`` is what it can be, in words."""
    return click.Option(
        ["-o", "--output"],
        type=Path,
        metavar="PATH",
        help=f"Where to write the result: {result}. Default: a name made of the source's, in the current folder.",
    )


def weights_option() -> click.Option:
    """``--weights``: the file of the encoder's weights."""
    return click.Option(
        ["--weights"], type=Path, metavar="FILE", help="Read the encoder's weights from a safetensors or torch file."
    )


def executor_option() -> click.Option:
    """``--executor``: what paints the pictures or shots."""
    return click.Option(
        ["--executor"],
        metavar="NAME",
        help="What paints: serial, processes, dask, or one of a plugin. Default: processes with --jobs, else serial.",
    )


def quiet_option() -> click.Option:
    """``--quiet``: nothing but warnings and errors."""
    return click.Option(["-q", "--quiet"], is_flag=True, help="Print nothing but warnings and errors.")


class EventsOption(click.Option):
    """``--json`` of a command that tells other programs what happens, errors included."""


def json_option() -> click.Option:
    """``--json``: events for other programs."""
    return EventsOption(["--json", "as_json"], is_flag=True, help="Print one JSON object per event.")


def preview_file_option() -> click.Option:
    """``--preview-file``: a JPEG of the picture in work, for other programs."""
    return click.Option(
        ["--preview-file"],
        type=Path,
        metavar="FILE",
        help="Keep a JPEG of the picture as it is at the moment, for other programs to show.",
    )


def recorded(host: Host, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of plugins that have other values than their defaults, as they go into records."""
    return {
        name: _as_json(value)
        for name, value in values.items()
        if host.is_recorded(name) and value not in (None, ()) and value != defaults.get(name)
    }


def _as_json(value: Any) -> Any:
    """An option's value as JSON has it; when a record is replayed, the option reads it again."""
    if isinstance(value, (list, tuple)):
        return [_as_json(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _check_report(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is None:
        return None
    from stylize.images import check_file

    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--report {path} must end in .html")
    if is_folder(path) or not is_folder(path.parent):
        raise TargetError(f"cannot write {path}: give the path of a file in an existing folder")
    check_file(path)
    return path
