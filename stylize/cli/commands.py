"""The commands that paint: run, replay, texture, reconstruct, grid."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource
from click_default_group import DefaultGroup

from stylize import __version__
from stylize.cli.options import (
    SectionedCommand,
    numbers,
    output_options,
    saving_options,
    settings_from,
    settings_options,
    with_executor,
)
from stylize.cli.session import INTERRUPTED, current_host, current_preview, encoder_options, interruptible, showing
from stylize.errors import SettingsError, StylizeError
from stylize.options import recorded
from stylize.settings import RECONSTRUCTION, TEXTURE, Settings
from stylize.text import shortened

if TYPE_CHECKING:
    from stylize.host import Host
    from stylize.images import Picture
    from stylize.observing import Step

GRID = Settings(size=256)  # one cell
_SAVED = frozenset(("bits", "quality", "no_location", "profile"))  # of records

# What means nothing where one layer is reconstructed, at one scale.
_NOT_OF_A_LAYER = (
    *("init", "preserve_color", "palette", "scales", "min_size", "brush"),
    *("content_weight", "content_loss", "content_layer", "min_outlines"),
    *("style_weight", "style_layers", "style_loss", "match_weight", "style_scale", "style_weights", "style_margins"),
)


@click.group(
    cls=cast(type[click.Group], DefaultGroup),
    default="run",
    default_if_no_args=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--no-plugin", multiple=True, metavar="NAME", expose_value=False, help="Leave a plugin out. May stand anywhere."
)
@click.version_option(__version__, prog_name="stylize")
def cli() -> None:
    """Repaint photos in the style of any picture.

    \b
        stylize photo.jpg starry.jpg -o out.png
    is short for `stylize run`; see `stylize run --help` for its options.
    """


@output_options("a picture (PNG, JPEG, WebP, TIFF or AVIF), a folder for the pictures of a folder, or a clip")
@settings_options()
@with_executor
@cli.command(cls=SectionedCommand)
@click.argument("content", type=Path)
@click.argument("styles", type=Path, nargs=-1, required=True, metavar="STYLE...")
def run(content: Path, styles: tuple[Path, ...], **options: Any) -> int:
    """Repaint CONTENT in the style of STYLE, or in a blend of several styles."""
    from stylize import executors
    from stylize.jobs import ImageJob

    settings, host = settings_from(options), current_host()
    options = options | {"given": _given_to_plugins(host)}
    with executors.prepared(host, options) as executor, showing(host, options) as display:
        from stylize.stylizer import Stylizer

        job = host.open(content, styles, options["output"], settings, options, given=_given())
        if isinstance(job, ImageJob):
            _check_quality(job.target, options["quality"])
        rest = encoder_options(host, options, display)
        stylizer = Stylizer(job.styles or styles, settings, color_modes=host.color_modes(), **rest)
        display.notes(style.notes for style in stylizer.styles)
        with interruptible(display) as stop:
            target = executors.run(job, stylizer, host=host, options=options, stop=stop, executor=executor)
        display.written(target)
        return INTERRUPTED if stop() else 0


@output_options()
@cli.command()
@click.argument("picture", type=Path)
@click.option(
    "--sources",
    type=Path,
    metavar="FOLDER",
    help="Folder to search for the content and the styles, if they were moved.",
)
def replay(picture: Path, sources: Path | None, **options: Any) -> int:
    """Paint a stylized PICTURE again, from the record it carries, and compare the two. It is computed with as many
    threads as it was made with."""
    import dataclasses

    import torch

    from stylize import executors, jobs, records
    from stylize.images import digest, load, read_record
    from stylize.stylizer import Stylizer

    record = read_record(picture)
    if record is None:
        digest(picture)  # says what is wrong where it cannot be read
        raise StylizeError(f"{picture} holds no record of how it was made; only what stylize wrote can be replayed")
    settings, content, styles = records.recipe(record, picture, sources)
    host = current_host()
    target = options["output"] or picture.with_name(f"{picture.stem}-replay{picture.suffix}")
    jobs.check_distinct(target, picture)
    areas = records.areas(record, picture, sources)
    options = {**_recorded_options(host, record, content, styles), **areas, **options, "output": target}
    with showing(host, options) as display:
        job = host.open(content, styles, target, settings, options)
        rest = encoder_options(host, options, display)
        with _threads(records.threads(record)):
            stylizer = Stylizer(styles, settings, color_modes=host.color_modes(), **rest)
            now = dataclasses.replace(stylizer.record(None), machine=stylizer.engine.computed_with())
            for difference in records.differences(record, now, host):
                display.warning(difference)
            with interruptible(display) as stop:
                executors.run(job, stylizer, host=host, options=options, stop=stop)
        same = torch.equal(load(picture).rgb, load(target).rgb)
        display.notes([["the same picture, pixel by pixel" if same else "not the same picture, pixel by pixel"]])
        display.written(target)
        return INTERRUPTED if stop() else 0


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads meanwhile; None: as many as otherwise."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _recorded_options(host: Host, record: Mapping[str, Any], content: Path, styles: Sequence[Path]) -> dict[str, Any]:
    """The options of ``run`` as they were. Of a record, which may come from anyone, only those of plugins and those of
    saving are taken."""
    context = click.get_current_context()
    root = context.find_root().command
    assert isinstance(root, click.Group)
    command = root.commands["run"]
    recorded, saving = record.get("options", {}), record.get("saving", {})
    with command.make_context("run", [str(content), *map(str, styles)], parent=context) as made:
        theirs = [each for each in command.params if host.is_recorded(str(each.name)) and each.name in recorded]
        given = {str(each.name): recorded[each.name] for each in theirs}
        read = {str(each.name): _read(each, made, recorded[each.name]) for each in theirs}
        saved = [each for each in command.params if each.name in _SAVED and each.name in saving]
        kept = {str(each.name): _read(each, made, saving[str(each.name)]) for each in saved}
        return {**made.params, **read, **kept, "given": given}


def _read(option: click.Parameter, context: click.Context, value: object) -> Any:
    """The value of an option as a record has it.

    Raises:
        StylizeError: it is none of that option.
    """
    try:
        return option.type_cast_value(context, value)
    except (click.BadParameter, TypeError, ValueError, AttributeError) as error:
        problem = f"{option.name} is {shortened(value)}, which it cannot be"
        raise StylizeError(f"the record is damaged: {problem}") from error


@output_options()
@saving_options
@settings_options(
    *("init", "upscale", "content_weight", "content_loss", "content_layer", "preserve_color"), base=TEXTURE
)
@cli.command(cls=SectionedCommand)
@click.argument("styles", type=Path, nargs=-1, required=True, metavar="STYLE...")
def texture(styles: tuple[Path, ...], **options: Any) -> int:
    """Paint noise in the style of STYLE (the paper's style reconstruction).

    The result shows what the style term measures. Choose the depth with --style-layers, such as relu1_1,relu2_1.
    """
    from stylize import paper

    settings = settings_from(options, TEXTURE)
    return _reconstruct(paper.texture, styles, styles, "texture", settings, options)


@output_options()
@saving_options
@settings_options(*_NOT_OF_A_LAYER, base=RECONSTRUCTION)
@cli.command(cls=SectionedCommand)
@click.argument("content", type=Path)
@click.option("--layer", default="relu4_2", show_default=True, metavar="LAYER", help="The encoder layer.")
def reconstruct(content: Path, layer: str, **options: Any) -> int:
    """Repaint CONTENT from one encoder layer (the paper's content reconstruction).

    Starts from noise; what the layer does not represent is missing from the result.
    """
    from stylize import paper

    settings = settings_from(options, RECONSTRUCTION)

    def paint(picture: Path, settings: Settings, **rest: Any) -> Picture:
        return paper.reconstruct(picture, layer, settings, **rest)

    return _reconstruct(paint, content, (content,), layer, settings, options)


@output_options()
@saving_options
@settings_options("content_weight", base=GRID)
@cli.command(cls=SectionedCommand)
@click.argument("content", type=Path)
@click.argument("style", type=Path)
@click.option(
    "--content-weights",
    default="0.01,0.02,0.05,0.15",
    show_default=True,
    help="Content weights, one column each.",
    **numbers(float),
)
def grid(content: Path, style: Path, content_weights: tuple[float, ...], **options: Any) -> int:
    """Draw the paper's comparison figure: style depth (rows) by content weight (columns)."""
    from stylize import paper

    settings = settings_from(options, GRID)

    def paint(picture: Path, settings: Settings, **rest: Any) -> Picture:
        count, observe = len(content_weights) * sum(map(bool, settings.style_layers.values())), rest.pop("on_step")
        return paper.grid(
            picture,
            style,
            settings,
            content_weights=content_weights,
            color_modes=current_host().color_modes(),
            on_step=lambda cell, step: observe(step.part(cell + 1, count), f"{cell + 1}/{count} "),
            **rest,
        )

    return _reconstruct(paint, content, (content, style), "grid", settings, options)


def _reconstruct(
    paint: Callable[..., Picture],
    source: Any,
    sources: Sequence[Path],
    suffix: str,
    settings: Settings,
    options: dict[str, Any],
) -> int:
    """What texture, reconstruct and grid share: check the target, paint, save."""
    from stylize import images
    from stylize.jobs import check_distinct

    target = options["output"] or Path(f"{sources[0].stem}-{suffix}.png")
    saving = {"bits": options["bits"], "quality": options["quality"]}
    images.check_target(target, **saving)
    _check_quality(target, options["quality"])
    check_distinct(target, *sources, *([settings.start_file] if settings.start_file else []))
    host = current_host()
    with showing(host, options) as display:
        rest, preview = encoder_options(host, options, display), current_preview(host)

        def observe(step: Step, label: str = "") -> None:
            display.step(step, label)
            if preview is not None:
                preview.step(step)

        with interruptible(display) as stop:
            result = paint(source, settings, on_step=observe, stop=stop, **rest)
            if preview is not None:
                preview.finished(result)
            result.save(target, **saving)
        display.written(target)
        return INTERRUPTED if stop() else 0


def _check_quality(target: Path, quality: int | None) -> None:
    """Refuse a quality that the format of a target does not have.

    Raises:
        SettingsError: it is lossless.
    """
    from stylize.images.write import is_lossy

    if quality is not None and not is_lossy(target):
        raise SettingsError(f"--quality belongs to JPEG, WebP and AVIF; {target} keeps every pixel as it is")


def _given() -> set[str]:
    """The names of the parameters that stand on the command line."""
    context = click.get_current_context()
    return {name for name in context.params if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}


def _given_to_plugins(host: Host) -> dict[str, Any]:
    """The options of plugins that have other values than their defaults, as they go into records."""
    context = click.get_current_context()
    defaults = {str(each.name): each.get_default(context) for each in context.command.params}
    return recorded(host, context.params, defaults)
