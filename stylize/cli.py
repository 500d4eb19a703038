"""The command line: the only file that prints or exits."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click_default_group import DefaultGroup

from stylize import __version__
from stylize.contracts import Job, Request
from stylize.errors import PluginError, SettingsError, StylizeError
from stylize.host import Host, plugin_manager
from stylize.settings import PRESETS, Settings, knob_of, preset, type_of

if TYPE_CHECKING:
    from types import FrameType

    from stylize.display import Display
    from stylize.images import Picture

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> typing.NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 called wrongly, 130 interrupted."""
    problems: list[str] = []
    try:
        given, without = _without([*(sys.argv[1:] if arguments is None else arguments)])
        trace = _trace if os.environ.get("STYLIZE_TRACE_HOOKS") else None
        host = plugin_manager(without=without, only=_only(), trace=trace)
        group, problems = _with_plugins(host), host.problems
        code = group.main(args=given, prog_name="stylize", standalone_mode=False, obj=host)
    except StylizeError as error:
        code = _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        unknown = isinstance(error, (click.NoSuchOption, click.UsageError)) and problems
        code = _fail("; ".join([error.format_message(), *(problems if unknown else [])]), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted", INTERRUPTED)
    except Exception as error:  # a fault of ours, or of a plugin
        if os.environ.get("STYLIZE_TRACEBACK"):
            raise
        code = _fail(f"unexpected {type(error).__name__}: {error}; STYLIZE_TRACEBACK=1 shows where", 1)
    if arguments is None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # everything is done
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    print(f"stylize: {' '.join(message.split())}", file=sys.stderr)
    return code


def _trace(line: str) -> None:
    print(f"stylize: {line}", file=sys.stderr, flush=True)


# --- plugins -----------------------------------------------------------------------------------------------

NO_PLUGIN = "--no-plugin"


def _without(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The command line without --no-plugin, wherever it stood, and the names it gave: it must be known before plugins
    add to the command line what the rest is read by."""
    rest: list[str] = []
    names: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            return [*rest, word, *words], names
        flag, equals, name = word.partition("=")
        if flag != NO_PLUGIN:
            rest.append(word)
            continue
        name = name if equals else next(words, "")
        if not name:
            raise SettingsError(f"{NO_PLUGIN} needs the name of a plugin; `stylize plugins` lists them")
        names.append(name)
    return rest, names


def _only() -> list[str] | None:
    """The plugins that STYLIZE_PLUGINS names, all if it is not set."""
    named = os.environ.get("STYLIZE_PLUGINS")
    return None if named is None else [name.strip() for name in named.split(",") if name.strip()]


def _with_plugins(host: Host) -> click.Group:
    """A copy of the command line with what plugins add to it."""
    group, command = copy.copy(cli), copy.copy(run)
    command.params = [*run.params]
    group.commands = {**cli.commands, "run": command}
    host.extend(group, command)
    return group


# --- options -----------------------------------------------------------------------------------------------


def _parsed(example: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Arguments of an option whose text ``parse`` turns into a value."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a list such as {example}") from error

    return {"callback": callback, "metavar": example}


def _numbers(kind: type[int] | type[float]) -> dict[str, Any]:
    example = "40,16,33" if kind is int else "2,1"
    return _parsed(example, lambda text: tuple(kind(part) for part in text.split(",")))


def _layer_weights(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip(): float(weight) if equals else 1.0 for name, equals, weight in pairs}


_LAYERS = _parsed("relu1_1=4,relu2_1", _layer_weights)


def _option(field: dataclasses.Field[Any]) -> Callable[[Any], Any]:
    knob, kind = knob_of(field.name), type_of(field.name)
    flag = "--" + field.name.replace("_", "-")
    value = field.default if field.default is not dataclasses.MISSING else None
    shown = ",".join(f"{item:g}" for item in value) if isinstance(value, tuple) else value
    default = "" if shown in (None, "", False) else f"; default {shown}"
    unit = f" {knob.unit}" if knob.unit else ""
    span = f" ({knob.range}{unit}{default})" if knob.range and not knob.choices else default and f" ({default[2:]})"
    text = f"{knob.help[0].upper()}{knob.help[1:]}.{span}"
    plain = next(part for part in (*typing.get_args(kind), kind) if part is not type(None))
    if kind is bool:
        return click.option(flag, is_flag=True, default=None, help=text)
    if kind == Mapping[str, float]:
        return click.option(flag, help=text, **_LAYERS)
    if typing.get_origin(kind) is tuple:
        return click.option(flag, help=text, **_numbers(plain))
    return click.option(flag, type=click.Choice(knob.choices) if knob.choices else plain, help=text)


def _settings_options(*fixed: str) -> Callable[[Any], Any]:
    """An option for every field of Settings but those the command fixes itself."""

    def decorate(function: Any) -> Any:
        for field in reversed(dataclasses.fields(Settings)):
            if field.name not in fixed:
                function = _option(field)(function)
        function = click.option("--config", type=Path, metavar="FILE", help="Settings from a TOML file.")(function)
        return click.option("--preset", "preset_name", metavar="NAME", help="Start from a preset.")(function)

    return decorate


def _with(*made: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed(made):
            function = option(function)
        return function

    return decorate


_output_options = _with(
    click.option("-o", "--output", type=Path, metavar="FILE", help="PNG, JPEG, WebP, TIFF or AVIF."),
    click.option("--weights", type=Path, metavar="FILE", help="Encoder weights (safetensors or torch)."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per event, on standard output."),
)
_common_options = _with(
    click.option("--bits", type=click.Choice((8, 16)), default=8, help="Per channel; 16 in PNG and TIFF."),
    click.option("--quality", type=click.IntRange(1, 100), help="Of JPEG, WebP and AVIF."),
    _output_options,
)


def _settings(options: dict[str, Any], base: Settings | None = None) -> Settings:
    """The settings a command line asks for; takes its own options out of ``options``."""
    name, config = options.pop("preset_name"), options.pop("config")
    settings = preset(name, base) if name else base or Settings()
    if config is not None:
        settings = Settings.from_toml(config, settings)
    names = [field.name for field in dataclasses.fields(Settings) if field.name in options]
    given = {name: options.pop(name) for name in names}
    return settings.replace(**{name: value for name, value in given.items() if value is not None})


# --- commands ----------------------------------------------------------------------------------------------


@click.group(
    cls=cast(type[click.Group], DefaultGroup),
    default="run",
    default_if_no_args=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    NO_PLUGIN, multiple=True, metavar="NAME", expose_value=False, help="Leave a plugin out; may stand anywhere."
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
@_common_options
@click.option("--report", type=Path, metavar="FILE", help="Folders and clips: an HTML page of what became of them.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Folders and clips: paint so many pictures or shots at once, each in a process of its own, one per GPU.",
)
@click.option("--executor", metavar="NAME", help="What paints them: serial, processes (with --jobs), or a plugin's.")
@_settings_options()
def run(content: Path, styles: tuple[Path, ...], **options: Any) -> int:
    """Repaint CONTENT in the style of STYLE, or of a blend of several."""
    from stylize import executors
    from stylize.stylizer import Stylizer

    settings = _settings(options)
    _check_report(options["report"])
    host, options = _host(), options | {"given": _given_to_plugins()}
    name = options["executor"] or ("serial" if (options["jobs"] or 1) == 1 else "processes")
    executor = executors.executor_named(host, name, options)
    with _display(host, options) as display:
        job = _open(host, content, styles, settings, options)
        rest = _encoder_options(host, options, display)
        stylizer = Stylizer(job.styles or styles, settings, color_modes=host.color_modes(), **rest)
        display.notes(style.notes for style in stylizer.styles)
        with _interruptible(display) as stop:
            target = executors.run(job, stylizer, host=host, options=options, stop=stop, executor=executor)
        display.written(target)
        return INTERRUPTED if stop() else 0


@cli.command()
@click.argument("picture", type=Path)
@click.option("--sources", type=Path, metavar="FOLDER", help="Where the photo and the styles lie now.")
@_output_options
def replay(picture: Path, sources: Path | None, **options: Any) -> int:
    """Make a stylized PICTURE again, from the record it carries."""
    import torch

    from stylize import executors, jobs, records
    from stylize.images import load, read_record
    from stylize.stylizer import Stylizer

    record = read_record(picture)
    if record is None:
        raise StylizeError(f"{picture} holds no record of how it was made; only what stylize wrote can be replayed")
    settings, content, styles = records.recipe(record, picture, sources)
    host = _host()
    target = options["output"] or picture.with_name(f"{picture.stem}-replay{picture.suffix}")
    jobs.check_distinct(target, picture)
    options = {**_recorded_options(record, content, styles), **options, "output": target}
    with _display(host, options) as display:
        job = _open(host, content, styles, settings, options)
        rest = _encoder_options(host, options, display)
        stylizer = Stylizer(styles, settings, color_modes=host.color_modes(), **rest)
        for difference in records.differences(record, stylizer.record(None), host):
            display.warning(difference)
        with _interruptible(display) as stop:
            executors.run(job, stylizer, host=host, options=options, stop=stop)
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
@_common_options
@_settings_options("init", "content_weight", "content_layer", "preserve_color")
def texture(styles: tuple[Path, ...], **options: Any) -> int:
    """Paint noise in the style of STYLE: what the style term knows of it (the paper's style reconstruction).

    Choose the depth with --style-layers, for instance relu1_1,relu2_1.
    """
    from stylize import stylizer

    settings = _settings(options, stylizer.TEXTURE)
    return _reconstruct(stylizer.texture, styles, styles, "texture", settings, options)


@cli.command()
@click.argument("content", type=Path)
@click.option("--layer", default="relu4_2", show_default=True, help="The encoder layer to start from.")
@_common_options
@_settings_options(
    "init", "content_weight", "content_layer", "style_weight", "style_layers", "preserve_color", "scales"
)
def reconstruct(content: Path, layer: str, **options: Any) -> int:
    """Repaint CONTENT from noise by what one encoder layer knows of it (the paper's content reconstruction)."""
    from stylize import stylizer

    settings = _settings(options, stylizer.RECONSTRUCTION)

    def paint(picture: Path, settings: Settings, **rest: Any) -> Picture:
        return stylizer.reconstruct(picture, layer, settings, **rest)

    return _reconstruct(paint, content, (content,), layer, settings, options)


@cli.command()
@click.argument("content", type=Path)
@click.argument("style", type=Path)
@click.option("--content-weights", default="0.02,0.05,0.1,0.3", show_default=True, **_numbers(float))
@_common_options
@_settings_options("content_weight")
def grid(content: Path, style: Path, content_weights: tuple[float, ...], **options: Any) -> int:
    """Draw the paper's comparison figure: style depth (rows) by content weight (columns)."""
    from stylize import figure

    settings = _settings(options, Settings(size=256))

    def paint(picture: Path, settings: Settings, **rest: Any) -> Picture:
        count, observe = len(content_weights) * sum(map(bool, settings.style_layers.values())), rest.pop("on_step")
        return figure.grid(
            picture,
            style,
            settings,
            content_weights=content_weights,
            color_modes=_host().color_modes(),
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
    host = _host()
    with _display(host, options) as display:
        rest = _encoder_options(host, options, display)
        with _interruptible(display) as stop:
            result = paint(source, settings, on_step=display.step, stop=stop, **rest)
            result.save(target, **saving)
        display.written(target)
        return INTERRUPTED if stop() else 0


@cli.command()
@click.argument("name", required=False)
def presets(name: str | None) -> None:
    """List the presets, or print one as TOML for --config."""
    if name:
        click.echo(preset(name).to_toml(), nl=False)
        return
    for title, (summary, values) in PRESETS.items():
        click.echo(f"{title:12}{summary}")
        if values:
            shown = {key: preset(title).to_dict()[key] for key in values}
            click.echo("".join(f"{'':12}  {key} = {_plain(value)}\n" for key, value in shown.items()), nl=False)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{layer}={weight:g}" for layer, weight in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@cli.group(invoke_without_command=True)
@click.pass_context
def weights(context: click.Context) -> None:
    """Show where the encoders' weights are, and what would be downloaded."""
    from stylize.encoders import mini
    from stylize.encoders import weights as found

    if context.invoked_subcommand is None:
        for name in found.ARCHITECTURES:
            click.echo(f"{name}  {_where(name)}")
        click.echo(f"mini   comes with stylize ({mini.FILE})")
        click.echo(f"search order: --weights, STYLIZE_WEIGHTS, {found.cache_file('vgg19').parent}, download")


def _where(name: str) -> str:
    from stylize.encoders import weights as found

    try:
        place = found.find(name)
        if place.path is None:
            size = found.DOWNLOAD_SIZES[name]
            return f"not here; `stylize weights fetch {name}` downloads {size} and keeps the features"
        found.read(place.path, name)
    except StylizeError as error:
        return f"not usable: {error}"
    return f"{place.path} ({place.origin}, {place.path.stat().st_size / 1e6:.0f} MB)"


_NAME = click.argument("name", default="vgg19")


@weights.command()
@_NAME
@click.option("--weights", "file", type=Path, metavar="FILE", help="Check this file.")
def verify(name: str, file: Path | None) -> None:
    """Read the weights of an encoder and check every tensor."""
    from stylize.encoders import weights as found

    place = found.find(name, file)
    if place.path is None:
        raise StylizeError(f"{name} weights are not here; run `stylize weights fetch {name}`")
    tensors = found.read(place.path, name)
    click.echo(f"{place.path}: {name}, {len(tensors) // 2} convolutions, sha256 {found.fingerprint(tensors)[:16]}: ok")


@weights.command()
@_NAME
@click.option("--force", is_flag=True, help="Download again what is there.")
def fetch(name: str, force: bool) -> None:
    """Download the weights of an encoder into the cache."""
    from stylize.display import Live
    from stylize.encoders import weights as found

    with Live() as display:
        click.echo(found.fetch(name, force=force, progress=display.download))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON list.")
def plugins(as_json: bool) -> int:
    """List the plugins: where each comes from, the hooks it implements, and what is wrong with it."""
    host = _host()
    host.encoders(), host.color_modes()  # adds to the problems
    infos = host.infos()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(info) for info in infos]))
    else:
        for info in infos:
            said = f"left out: {info.problem}" if info.problem else ", ".join(info.hooks) or "no hooks"
            click.echo(f"{info.name:16}  {info.distribution} {info.version}  {said}")
    return 1 if host.problems else 0


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def doctor(as_json: bool) -> int:
    """Check versions, devices, memory, ffmpeg, weights and plugins: what works, and what to do where it doesn't."""
    from stylize import diagnosis

    checks = list(diagnosis.checks(_host()))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(check) for check in checks]))
    else:
        for check in checks:
            advice = f"; {check.advice}" if check.advice else ""
            click.echo(f"{check.state:5}{check.name:14}{check.found}{advice}")
    return 1 if any(check.state == "fail" for check in checks) else 0


# --- what the commands share -------------------------------------------------------------------------------


def _host() -> Host:
    return click.get_current_context().ensure_object(Host)


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
    return Request(content, tuple(styles), options["output"], settings, options).open(host)


def _check_report(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise SettingsError(f"--report {path} must end in .html")
    if path.is_dir() or not path.parent.is_dir():
        raise StylizeError(f"cannot write {path}: give the path of a file in a folder that is there")


def _encoder_options(host: Host, options: dict[str, Any], display: Display) -> dict[str, Any]:
    specs = host.encoders()
    host.color_modes()  # adds to the problems
    for problem in host.problems:
        display.warning(problem)
    return {"encoders": specs, "weights": options["weights"], "progress": display.download}


@contextmanager
def _display(host: Host, options: Mapping[str, Any]) -> Iterator[Display]:
    """What shows the run: a plugin while it does. What the package logs goes there, too."""
    from stylize.display import Quiet

    if options["quiet"] and options["as_json"]:
        raise SettingsError("--quiet and --json exclude each other")
    chosen: Display = host.call("stylize_display", options=options)
    if not isinstance(chosen, Quiet):
        raise PluginError(f"a plugin gave {chosen!r} as the display, which is not derived from stylize.display.Quiet")

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                chosen.warning(record.getMessage())
            else:
                chosen.notes([(record.getMessage(),)])

    log, handler = logging.getLogger("stylize"), Handler()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    host.register(chosen, "the display")
    try:
        with chosen:
            yield chosen
    finally:
        log.removeHandler(handler)
        if host.is_registered(chosen):
            host.unregister(chosen)


@contextmanager
def _interruptible(display: Display) -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C only makes the yielded function True, so that the picture gets written; the second raises."""
    pressed = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        display.stopping()

    before = signal.signal(signal.SIGINT, on_signal)
    told = False

    def stop() -> bool:
        nonlocal told
        if pressed and not told:
            told = True
            display.stopped()
        return pressed

    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
