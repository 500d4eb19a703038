"""Options of the commands that paint: one for each field of Settings, and what they all share."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from stylize.settings import Settings, knob_of, preset, type_of


def _parsed(example: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Arguments of an option whose text ``parse`` turns into a value."""

    def callback(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a list such as {example}") from error

    return {"callback": callback, "metavar": example}


def numbers(kind: type[int] | type[float]) -> dict[str, Any]:
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
        return click.option(flag, help=text, **numbers(plain))
    return click.option(flag, type=click.Choice(knob.choices) if knob.choices else plain, help=text)


def settings_options(*fixed: str) -> Callable[[Any], Any]:
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


output_options = _with(
    click.option("-o", "--output", type=Path, metavar="FILE", help="PNG, JPEG, WebP, TIFF or AVIF."),
    click.option("--weights", type=Path, metavar="FILE", help="Encoder weights (safetensors or torch)."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per event, on standard output."),
)
common_options = _with(
    click.option("--bits", type=click.Choice((8, 16)), default=8, help="Per channel; 16 in PNG and TIFF."),
    click.option("--quality", type=click.IntRange(1, 100), help="Of JPEG, WebP and AVIF."),
    output_options,
)


def settings_from(options: dict[str, Any], base: Settings | None = None) -> Settings:
    """The settings a command line asks for; takes its own options out of ``options``."""
    name, config = options.pop("preset_name"), options.pop("config")
    settings = preset(name, base) if name else base or Settings()
    if config is not None:
        settings = Settings.from_toml(config, settings)
    names = [field.name for field in dataclasses.fields(Settings) if field.name in options]
    given = {name: options.pop(name) for name in names}
    return settings.replace(**{name: value for name, value in given.items() if value is not None})
