"""Whole runs in one call, for Python programs: a picture, a folder, a clip."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylize.contracts import Frame, Request, hookimpl
from stylize.errors import SettingsError
from stylize.jobs import ImageJob
from stylize.settings import Settings
from stylize.stores import as_path, is_folder

if TYPE_CHECKING:
    from stylize.encoders import Progress
    from stylize.host import Host
    from stylize.images import Picture, Source
    from stylize.masks import MaskSource
    from stylize.observing import Observer, Step
    from stylize.progress import Progressing
    from stylize.regions import RegionSource

PathName = str | os.PathLike[str]

log = logging.getLogger(__name__)


def paint(
    content: Source,
    style: Source | Iterable[Source],
    settings: Settings | str | Mapping[str, Any] | None = None,
    *,
    weights: str | Path | None = None,
    progress: Progress | bool | None = None,
    on_step: Observer | None = None,
    stop: Callable[[], bool] | None = None,
    mask: MaskSource | None = None,
    regions: Sequence[RegionSource] = (),
    profile: str | None = None,
    **changes: Any,
) -> Picture:
    """A picture repainted in the style of another, or in a blend of several.

        stylize.paint("photo.jpg", "starry.jpg", "strong", size=1024).save("out.png")

    For many pictures in one style, a :class:`~stylize.Stylizer` measures the style once. For the arguments see there.
    """
    from stylize.stylizer import Stylizer

    stylizer = Stylizer(style, settings, weights=weights, progress=progress, **changes)
    return stylizer(content, on_step=on_step, stop=stop, mask=mask, regions=regions, profile=profile)


def paint_folder(
    source: PathName,
    styles: PathName | Sequence[PathName],
    target: PathName | None = None,
    settings: Settings | str | Mapping[str, Any] | None = None,
    *,
    progress: bool = False,
    on_step: Callable[[Frame, Step], object] | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> Path | None:
    """Every picture of a folder, or of a pattern such as ``photos/**/*.jpg``, repainted into another folder; where.

        stylize.paint_folder("photos/", "starry.jpg", "painted/", size=1024, format="jpg")

    Results that are up to date are left alone, as on the command line.

    Args:
        source: the folder or pattern.
        styles: the path of a picture or of a folder of them, or several.
        target: the folder of the results; default: as on the command line.
        settings: settings, or the name of a preset.
        progress: show a bar of tqdm, or in a notebook each picture as it is painted.
        on_step: called with (frame, step) after every step.
        stop: asked after every step; once True, the picture at work is written as far as it is, and no more.
        changes: of single settings, and options of ``stylize run``, by the names of their parameters: ``bits``,
            ``quality``, ``jobs``, ``weights``, ``pair``, ``force``, ``report``.

    Raises:
        SettingsError: a name that is neither a setting nor an option, or no folder.
        StylizeError: what went wrong; pictures that fail do not stop the others.
    """
    if os.path.isfile(source):  # noqa: PTH113, Path's raises OSError
        raise SettingsError(f"{source} is a file, not a folder; stylize.paint paints a picture, paint_clip a clip")
    return _run(source, styles, target, settings, changes, progress, on_step, stop)


def paint_clip(
    source: PathName,
    styles: PathName | Sequence[PathName],
    target: PathName | None = None,
    settings: Settings | str | Mapping[str, Any] | None = None,
    *,
    progress: bool = False,
    on_step: Callable[[Frame, Step], object] | None = None,
    stop: Callable[[], bool] | None = None,
    **changes: Any,
) -> Path | None:
    """A clip repainted into another, with its sound; where. What was painted by a run that was ended is kept.

        stylize.paint_clip("clip.mp4", "starry.jpg", "painted.mp4", begin="0:10", end="0:15")

    The arguments are those of :func:`paint_folder`; options are ``begin`` and ``end``, ``every``, ``flow``, ``codec``.

    Raises:
        SettingsError: a name that is neither a setting nor an option, or no clip.
        StylizeError: what went wrong.
    """
    if is_folder(as_path(source)):
        raise SettingsError(f"{source} is a folder, not a clip; use stylize.paint_folder")
    return _run(source, styles, target, settings, changes, progress, on_step, stop, no_picture=True)


def _run(
    source: PathName,
    styles: PathName | Sequence[PathName],
    target: PathName | None,
    settings: Settings | str | Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    progress: bool,
    on_step: Callable[[Frame, Step], object] | None,
    stop: Callable[[], bool] | None,
    *,
    no_picture: bool = False,
) -> Path | None:
    """Open a job as the command line does, and run it."""
    from stylize import executors
    from stylize.host import plugin_manager
    from stylize.progress import Progressing

    host = plugin_manager()
    for problem in host.problems:
        log.warning("%s", problem)
    fields = set(Settings.__dataclass_fields__)
    chosen = Settings.of(settings, **{name: value for name, value in changes.items() if name in fields})
    given = {name: value for name, value in changes.items() if name not in fields}
    options = _options(host, given)
    several = (styles,) if isinstance(styles, (str, os.PathLike)) else tuple(styles)
    paths, place = [as_path(style) for style in several], None if target is None else as_path(target)
    content = as_path(source)
    with executors.prepared(host, options) as executor, Progressing(progress) as shown:
        job = host.open(content, paths, place, chosen, options, given)
        if no_picture and isinstance(job, ImageJob):
            raise SettingsError(f"{source} is not a clip; stylize.paint paints a picture")
        request = Request(content, tuple(paths), place, chosen, options)
        stylizer = request.stylizer(job, host, shown.download)
        watching = _Watching(shown, on_step)
        host.register(watching, "the progress")
        return executors.run(job, stylizer, host=host, on_step=watching.step, stop=stop, executor=executor)


def _options(host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all options of ``run``, by the names of their parameters, as the command line has them."""
    import click

    from stylize.options import recorded

    command = host.run_command()
    defaults = dict(command.make_context("run", []).params)
    for name in given:
        if name not in defaults:
            known = ", ".join(sorted({*defaults, *Settings.__dataclass_fields__}))
            raise SettingsError(f"unknown setting or option {name!r}; known: {known}")
    try:
        made = dict(command.make_context("run", [], default_map=dict(given)).params)
    except click.ClickException as error:
        raise SettingsError(error.format_message()) from error
    return {**made, "given": recorded(host, made, defaults)}


class _Watching:
    """Shows the frames of a job as they are painted."""

    def __init__(self, shown: Progressing, on_step: Callable[[Frame, Step], object] | None) -> None:
        self._shown, self._on_step = shown, on_step

    def step(self, frame: Frame, step: Step) -> None:
        self._shown.step(step, frame.name, frame.number, frame.total)
        if self._on_step is not None:
            self._on_step(frame, step)

    @hookimpl
    def stylize_painted(self, frame: Frame, image: Picture) -> None:
        if frame.number == frame.total:
            self._shown.done(image, frame.name)
