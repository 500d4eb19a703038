"""The commands that inform: presets, weights, plugins, doctor."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from stylize.cli.options import SECTION, settings_from, settings_options
from stylize.cli.session import current_host
from stylize.discovery import unreadable_distributions
from stylize.errors import StylizeError
from stylize.settings import PRESETS, Settings, knob_of, preset, setting_fields
from stylize.text import counted, duration, printable, rounded

_OF_ESTIMATES = ("brush", "encoder", "device", "precision", "memory")  # settings that change what a picture takes most


@click.command()
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


@click.command("settings")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs that draw a form.")
def settings(as_json: bool) -> None:
    """List every setting with its range, default and meaning.

    The JSON object also holds the presets, and what was given in papers as the source of a setting.
    """
    fields = setting_fields()
    if as_json:
        found = [{**dataclasses.asdict(each), "section": SECTION.get(each.name, "General")} for each in fields]
        presets = [{"name": name, "summary": PRESETS[name][0], "values": PRESETS[name][1]} for name in PRESETS]
        click.echo(json.dumps({"settings": found, "presets": presets}))
        return
    for each in fields:
        unit = f" {each.unit}" if each.unit else ""
        allowed = knob_of(each.name).range or ", ".join(each.suggestions) or each.type
        click.echo(f"{each.name:16}{_plain(each.default) or '-'}{unit}  ({allowed}{unit})\n{'':16}{each.help}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{layer}={weight:g}" for layer, weight in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


@click.group(invoke_without_command=True)
@click.pass_context
def weights(context: click.Context) -> None:
    """Show where the encoders' weights are, and what would be downloaded."""
    from stylize.encoders import mini
    from stylize.encoders import weights as found

    if context.invoked_subcommand is None:
        for name in found.ARCHITECTURES:
            click.echo(printable(f"{name}  {_where(name)}"))
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
@click.option(
    "--weights", "file", type=Path, metavar="FILE", help="Check this file instead of the one that would be used."
)
def verify(name: str, file: Path | None) -> None:
    """Read the weights of an encoder and check every tensor."""
    from stylize.encoders import weights as found

    place = found.find(name, file)
    if place.path is None:
        raise StylizeError(f"{name} weights are not here; run `stylize weights fetch {name}`")
    tensors = found.read(place.path, name)
    said = f"{place.path}: {name}, {len(tensors) // 2} convolutions, sha256 {found.fingerprint(tensors)[:16]}: ok"
    click.echo(printable(said))


@weights.command()
@_NAME
@click.option("--force", is_flag=True, help="Download even if the weights are there.")
def fetch(name: str, force: bool) -> None:
    """Download the weights of an encoder into the cache."""
    from stylize.cli.display import Live
    from stylize.encoders import weights as found

    with Live() as display:
        click.echo(found.fetch(name, force=force, progress=display.download))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def plugins(as_json: bool) -> int:
    """List the plugins with their origin, hooks and problems."""
    host = current_host()
    host.encoders(), host.color_modes()  # finds out whether these hooks work
    infos = host.infos()
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(info) for info in infos]))
    else:
        for info in infos:
            said = f"left out: {info.problem}" if info.problem else ", ".join(info.hooks) or "no hooks"
            click.echo(printable(f"{info.name:16}  {info.distribution} {info.version}  {said}"))
        for problem in unreadable_distributions():
            click.echo(printable(f"note: {problem}"))
    return 1 if host.problems else 0


class _Size(click.ParamType[tuple[int, int]]):
    """The size of a picture, 1024 or 1024x768, as (height, width)."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is no size such as 1024 or 1024x768", param, ctx)
        width = int(found[1])
        height = int(found[2]) if found[2] else max(1, round(width * 3 / 4))
        if not width or not height:
            self.fail(f"{value!r} has no pixels", param, ctx)
        return height, width


@settings_options(*(each.name for each in setting_fields() if each.name not in _OF_ESTIMATES))
@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.option(
    "--estimate",
    "sizes",
    multiple=True,
    type=_Size(),
    metavar="SIZE",
    help="Instead, paint a small picture for some seconds, and tell what one of SIZE px takes, such as 1024 (4:3) or "
    "1024x768. May be given several times; the other options are for this one.",
)
@click.option(
    "--weights", type=Path, metavar="FILE", help="Read the encoder's weights from a safetensors or torch file."
)
def doctor(sizes: tuple[tuple[int, int], ...], as_json: bool, weights: Path | None, **options: Any) -> int:
    """Check what works on this machine, and say what to do about the rest."""
    if sizes:
        _estimate(sizes, settings_from(options), weights, as_json)
        return 0
    if weights is not None or any(value is not None for value in options.values()):
        raise click.UsageError("options other than --json are for --estimate SIZE")
    from stylize.cli.doctor import checks as all_checks

    checks = list(all_checks(current_host()))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(check) for check in checks]))
    else:
        for check in checks:
            advice = f"; {check.advice}" if check.advice else ""
            click.echo(printable(f"{check.state:5}{check.name:14}{check.found}{advice}"))
    return 1 if any(check.state == "fail" for check in checks) else 0


def _estimate(sizes: Sequence[tuple[int, int]], settings: Settings, weights: Path | None, as_json: bool) -> None:
    """Print what pictures of these sizes take."""
    from stylize.cli.display import Live
    from stylize.estimate import Estimator

    host = current_host()
    with Live() as display:
        encoders, modes = host.encoders(), host.color_modes()
        estimator = Estimator(
            settings, encoders=encoders, color_modes=modes, weights=weights, progress=display.download
        )
    found = [estimator(*size) for size in sizes]
    if as_json:
        click.echo(json.dumps([{**dataclasses.asdict(each), **estimator.conditions} for each in found]))
        return
    for each in found:
        most = None if each.memory is None else rounded(each.memory / 2**30, 2)
        memory = "more memory than there is" if most is None else f"at most {most} GiB"
        taken = (
            f"about {duration(each.seconds, rough=True)} ({duration(each.processor_seconds, rough=True)} of CPU time)"
        )
        work = f"{counted(each.steps, 'step')} at {counted(each.scales, 'scale')}"
        click.echo(f"{f'{each.width}x{each.height}':13} {taken}, {memory}; {work}")
    click.echo(
        "{encoder} on {device} in {precision}; start-up and reading and writing pictures left out".format(
            **estimator.conditions
        )
    )
