"""Options of the commands that paint: one for each field of Settings, what they all share, and help in sections."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from stylize.host import Host
from stylize.options import (
    bits_option,
    executor_option,
    json_option,
    output_option,
    preview_file_option,
    quality_option,
    quiet_option,
    weights_option,
)
from stylize.settings import Knob, Settings, knob_of, preset, type_of

# The sections of --help and the parameters in them; options of plugins follow in sections named after their sources.
SECTIONS = {
    "General": "output preset_name config as_json preview_file quiet",
    "Picture": "size upscale bits quality no_location profile palette preserve_color mask keep region mask_folder "
    "init seed",
    "Style and content": "brush style_weight style_layers style_loss match_weight style_scale style_weights "
    "style_margins content_weight content_weights content_loss min_outlines content_layer layer tv_weight normalize",
    "Optimisation": "steps scales min_size tolerance optimizer history learning_rate",
    "Encoder and machine": "encoder weights pooling device precision memory executor scheduler",
}
SECTION = {name: title for title, names in SECTIONS.items() for name in names.split()}


class SectionedCommand(click.Command):
    """A command whose ``--help`` lists its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        host = ctx.find_object(Host)
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in SECTIONS}
        order = [*SECTION]
        listed = [parameter for parameter in self.get_params(ctx) if parameter.name in SECTION]
        listed.sort(key=lambda parameter: order.index(str(parameter.name)))
        for parameter in [*listed, *(each for each in self.get_params(ctx) if each not in listed)]:
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                owners = host.owners(str(parameter.name)) if host is not None else ""
                title = SECTION.get(str(parameter.name)) or owners.capitalize() or "General"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class SettingOption(click.Option):
    """The option of a field of Settings. Its value is None unless given: presets and files come in between. What its
    help says of default and range is taken from ``base``, which the command starts from, and from the field."""

    def __init__(self, field: dataclasses.Field[Any], base: Settings) -> None:
        knob, kind = knob_of(field.name), type_of(field.name)
        self._extra = "; ".join(filter(None, (_default(getattr(base, field.name)), _range(knob))))
        flag, help = "--" + field.name.replace("_", "-"), f"{knob.help[0].upper()}{knob.help[1:]}."
        plain = next(part for part in (*typing.get_args(kind), kind) if part is not type(None))
        if kind is bool:
            super().__init__([flag], is_flag=True, default=None, help=help)
        elif kind == Mapping[str, float]:
            super().__init__([flag], help=help, **_LAYER_WEIGHTS)
        elif typing.get_origin(kind) is tuple:
            super().__init__([flag], help=help, **numbers(plain))
        elif knob.choices:
            super().__init__([flag], help=help, type=click.Choice(knob.choices))
        else:
            super().__init__([flag], help=help, type=plain, metavar=knob.metavar or None)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        return record and (record[0], record[1] + (f"  [{self._extra}]" if self._extra else ""))


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        value = ",".join(f"{item:g}" for item in value)
    elif isinstance(value, Mapping):
        value = ",".join(f"{layer}={weight:g}" for layer, weight in value.items())
    return (
        ""
        if value is None or value is False or value == ""
        else f"default: {value:g}"
        if isinstance(value, float)
        else f"default: {value}"
    )


def _range(knob: Knob) -> str:
    """The range as click writes those of its own types."""
    if knob.low is None:
        return ""
    low = f"{knob.low:g}{'<' if knob.above else '<='}x"
    if knob.high is None or knob.high > 1e15:  # as good as none
        return f"x{'>' if knob.above else '>='}{knob.low:g}"
    return f"{low}<={knob.high:.15g}"


def _parsed(example: str, metavar: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Arguments of an option whose text ``parse`` turns into a value."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a list such as {example}") from error

    return {"callback": callback, "metavar": metavar}


def numbers(kind: type[int] | type[float]) -> dict[str, Any]:
    """Arguments of an option that takes numbers, separated by commas."""
    example = "20,20,16" if kind is int else "2,1"
    return _parsed(example, "N,..." if kind is int else "X,...", lambda text: tuple(map(kind, text.split(","))))


def _layer_weights(text: str) -> dict[str, float]:
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip(): float(weight) if equals else 1.0 for name, equals, weight in pairs}


_LAYER_WEIGHTS = _parsed("relu1_1=4,relu2_1", "LAYER=X,...", _layer_weights)


Decorator = Callable[[click.Command], click.Command]


def settings_options(*fixed: str, base: Settings | None = None) -> Decorator:
    """Adds to a command the options of Settings.

    Args:
        fixed: names of fields that the command fixes itself.
        base: the settings the command starts from; default: those of ``Settings()``.
    """
    fields = [field for field in dataclasses.fields(Settings) if field.name not in fixed]

    def decorate(command: click.Command) -> click.Command:
        command.params += [
            click.Option(["--preset", "preset_name"], metavar="NAME", help="Start from a preset."),
            click.Option(["--config"], type=Path, metavar="FILE", help="Read settings from a TOML file."),
            *(SettingOption(field, base or Settings()) for field in fields),
        ]
        return command

    return decorate


def output_options(result: str = "a picture (PNG, JPEG, WebP, TIFF or AVIF)") -> Decorator:
    """Adds to a command the options that say where its result goes and what it prints; ``result`` is what it can be,
    in words."""

    def decorate(command: click.Command) -> click.Command:
        command.params += [output_option(result), weights_option(), quiet_option(), json_option()]
        command.params.append(preview_file_option())
        return command

    return decorate


def saving_options(command: click.Command) -> click.Command:
    """Adds to a command the options of how a picture is written."""
    command.params += [bits_option(), quality_option()]
    return command


def with_executor(command: click.Command) -> click.Command:
    """Adds to a command the option of what paints."""
    command.params.append(executor_option())
    return command


def settings_from(options: dict[str, Any], base: Settings | None = None) -> Settings:
    """The settings that a command line asks for; removes what it used from ``options``."""
    name, config = options.pop("preset_name"), options.pop("config")
    settings = preset(name, base) if name else base or Settings()
    if config is not None:
        settings = Settings.from_toml(config, settings)
    names = [field.name for field in dataclasses.fields(Settings) if field.name in options]
    given = {name: options.pop(name) for name in names}
    return settings.replace(**{name: value for name, value in given.items() if value is not None})
