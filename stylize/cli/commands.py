"""The commands that paint: run, replay, texture, reconstruct, grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click_default_group import DefaultGroup

from stylize import __version__
from stylize.cli.options import common_options, numbers, output_options, settings_from, settings_options
from stylize.cli.session import INTERRUPTED, current_host, encoder_options, interruptible, showing
from stylize.errors import PluginError, SettingsError, StylizeError
from stylize.settings import Settings

if TYPE_CHECKING:
    from stylize.host import Host
    from stylize.images import Picture
    from stylize.jobs import Job


@click.group(
    cls=cast(type[click.Group], DefaultGroup),
    default="run",
    default_if_no_args=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--no-plugin", multiple=True, metavar="NAME", expose_value=False, help="Leave a plugin out; may stand anywhere."
)
@click.version_option(__version__, prog_name="stylize")
def cli() -> None:
    """Repaint photos in the style of any picture.

    \b
        stylize photo.jpg starry.jpg -o out.png
    is short for `stylize run`; see `stylize run --help` for its options.
    """


@cli.command()
@click.argument("content", type=Path)
@click.argument("styles", type=Path, nargs=-1, required=True, metavar="STYLE...")
@common_options
@click.option("--report", type=Path, metavar="FILE", help="Folders and clips: an HTML page of what became of them.")
@settings_options()
def run(content: Path, styles: tuple[Path, ...], **options: Any) -> int:
    """Repaint CONTENT in the style of STYLE, or of a blend of several."""
    from stylize import jobs
    from stylize.stylizer import Stylizer

    settings = settings_from(options)
    _check_report(options["report"])
    host, options = current_host(), options | {"given": _given_to_plugins()}
    with showing(host, options) as display:
        job = _open(host, content, styles, settings, options)
        rest = encoder_options(host, options, display)
        stylizer = Stylizer(job.styles or styles, settings, color_modes=host.color_modes(), **rest)
        display.notes(style.notes for style in stylizer.styles)
        with interruptible(display) as stop:
            target = jobs.run(job, stylizer, host=host, options=options, stop=stop)
        display.written(target)
        return INTERRUPTED if stop() else 0


@cli.command()
@click.argument("picture", type=Path)
@click.option("--sources", type=Path, metavar="FOLDER", help="Where the photo and the styles lie now.")
@output_options
def replay(picture: Path, sources: Path | None, **options: Any) -> int:
    """Make a stylized PICTURE again, from the record it carries."""
    import torch

    from stylize import jobs, records
    from stylize.images import load, read_record
    from stylize.stylizer import Stylizer

    record = read_record(picture)
    if record is None:
        raise StylizeError(f"{picture} holds no record of how it was made; only what stylize wrote can be replayed")
    settings, content, styles = records.recipe(record, picture, sources)
    host = current_host()
    target = options["output"] or picture.with_name(f"{picture.stem}-replay{picture.suffix}")
    jobs.check_distinct(target, picture)
    options = {**_recorded_options(record, content, styles), **options, "output": target}
    with showing(host, options) as display:
        job = _open(host, content, styles, settings, options)
        rest = encoder_options(host, options, display)
        stylizer = Stylizer(styles, settings, color_modes=host.color_modes(), **rest)
        for difference in records.differences(record, stylizer.record(None), host):
            display.warning(difference)
        with interruptible(display) as stop:
            jobs.run(job, stylizer, host=host, options=options, stop=stop)
        same = torch.equal(load(picture).rgb, load(target).rgb)
        display.notes([["the same picture, pixel by pixel" if same else "not the same picture, pixel by pixel"]])
        display.written(target)
        return INTERRUPTED if stop() else 0


def _recorded_options(record: Mapping[str, Any], content: Path, styles: Sequence[Path]) -> dict[str, Any]:
    """The options of ``run`` as they were: of a record only what plugins and saving had, as it may be a stranger's."""
    context = click.get_current_context()
    root = context.find_root().command
    assert isinstance(root, click.Group)
    command, own = root.commands["run"], {parameter.name for parameter in run.params}
    recorded, saving = record.get("options", {}), record.get("saving", {})
    with command.make_context("run", [str(content), *map(str, styles)], parent=context) as made:
        theirs = [each for each in command.params if each.name not in own and each.name in recorded]
        given = {str(each.name): recorded[each.name] for each in theirs}
        read = {str(each.name): each.type_cast_value(made, recorded[each.name]) for each in theirs}
        kept = {key: saving[key] for key in ("bits", "quality") if key in saving}
        return {**made.params, **read, **kept, "given": given}


@cli.command()
@click.argument("styles", type=Path, nargs=-1, required=True, metavar="STYLE...")
@common_options
@settings_options("init", "content_weight", "content_layer", "preserve_color")
def texture(styles: tuple[Path, ...], **options: Any) -> int:
    """Paint noise in the style of STYLE: what the style term knows of it (the paper's style reconstruction).

    Choose the depth with --style-layers, for instance relu1_1,relu2_1.
    """
    from stylize import stylizer

    settings = settings_from(options, stylizer.TEXTURE)
    return _reconstruct(stylizer.texture, styles, styles, "texture", settings, options)


@cli.command()
@click.argument("content", type=Path)
@click.option("--layer", default="relu4_2", show_default=True, help="The encoder layer to start from.")
@common_options
@settings_options("init", "content_weight", "content_layer", "style_weight", "style_layers", "preserve_color", "scales")
def reconstruct(content: Path, layer: str, **options: Any) -> int:
    """Repaint CONTENT from noise by what one encoder layer knows of it (the paper's content reconstruction)."""
    from stylize import stylizer

    settings = settings_from(options, stylizer.RECONSTRUCTION)

    def paint(picture: Path, settings: Settings, **rest: Any) -> Picture:
        return stylizer.reconstruct(picture, layer, settings, **rest)

    return _reconstruct(paint, content, (content,), layer, settings, options)


@cli.command()
@click.argument("content", type=Path)
@click.argument("style", type=Path)
@click.option("--content-weights", default="0.02,0.05,0.1,0.3", show_default=True, **numbers(float))
@common_options
@settings_options("content_weight")
def grid(content: Path, style: Path, content_weights: tuple[float, ...], **options: Any) -> int:
    """Draw the paper's comparison figure: style depth (rows) by content weight (columns)."""
    from stylize import figure

    settings = settings_from(options, Settings(size=256))

    def paint(picture: Path, settings: Settings, **rest: Any) -> Picture:
        count, observe = len(content_weights) * sum(map(bool, settings.style_layers.values())), rest.pop("on_step")
        return figure.grid(
            picture,
            style,
            settings,
            content_weights=content_weights,
            color_modes=current_host().color_modes(),
            on_step=lambda cell, step: observe(step, f"{cell + 1}/{count} "),
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
    """What texture, reconstruct and grid share: check the target, paint, save, report."""
    from stylize import images
    from stylize.jobs import check_distinct

    target = options["output"] or Path(f"{sources[0].stem}-{suffix}.png")
    saving = {"bits": options["bits"], "quality": options["quality"]}
    images.check_target(target, **saving)
    check_distinct(target, *sources, *([settings.start_file] if settings.start_file else []))
    host = current_host()
    with showing(host, options) as display:
        rest = encoder_options(host, options, display)
        with interruptible(display) as stop:
            result = paint(source, settings, on_step=display.step, stop=stop, **rest)
            result.save(target, **saving)
        display.written(target)
        return INTERRUPTED if stop() else 0


def _given_to_plugins() -> dict[str, Any]:
    """The options of plugins that were given on the command line, as they go into records."""
    context, own = click.get_current_context(), {parameter.name for parameter in run.params}
    values = {str(each.name): (context.params.get(str(each.name)), each) for each in context.command.params}
    return {
        name: _recorded(value)
        for name, (value, parameter) in values.items()
        if name not in own and value not in (None, ()) and value != parameter.get_default(context)
    }


def _recorded(value: Any) -> Any:
    """An option's value as JSON has it; replaying reads it as the option would."""
    if isinstance(value, (list, tuple)):
        return [_recorded(each) for each in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _open(host: Host, content: Path, styles: Sequence[Path], settings: Settings, options: Mapping[str, Any]) -> Job:
    job = host.call(
        "stylize_open",
        source=content,
        styles=styles,
        target=options["output"],
        settings=settings,
        options=options,
        host=host,
    )
    if job is None:
        raise StylizeError(f"{content} is a folder, which no installed plugin opens; give the path of a picture")
    if not all(callable(getattr(job, name, None)) for name in ("begin", "frames", "write", "failed", "finish")):
        raise PluginError(f"a plugin opened {content} as {job!r}, which is not a job")
    return cast("Job", job)


def _check_report(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--report {path} must end in .html")
    if path.is_dir() or not path.parent.is_dir():
        raise StylizeError(f"cannot write {path}: give the path of a file in a folder that is there")
