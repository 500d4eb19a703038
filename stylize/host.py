"""The pluggy host: the plugins at work, and how a run calls their hooks.

A plugin that fails while it is loaded, adds to the program (options, commands, encoders, colour modes, checks) or
observes (``stylize_step``, ``stylize_painted``) is left out, and named. Where the result depends on it
(``stylize_open``, ``stylize_terms``, ``stylize_finish``), what it raises becomes a
:class:`~stylize.errors.PluginError` with its name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from stylize.checks import Check
from stylize.contracts import Job, Request
from stylize.discovery import plugin_entries
from stylize.errors import PluginError, SettingsError, StylizeError
from stylize.plugin_options import PluginOptions
from stylize.registry import PLUGIN_ERRORS, Home, Registry, abbreviated, described
from stylize.stores import as_path

if TYPE_CHECKING:
    from pathlib import Path

    from click import Command, Group
    from torch import Tensor

    from stylize.colors import ColorMode
    from stylize.contracts import Frame
    from stylize.encoders import EncoderSpec
    from stylize.images import Picture
    from stylize.objective import Term
    from stylize.regions import Region
    from stylize.settings import Settings

BUILTIN = ("stylize.builtin", "stylize.cli.display")

log = logging.getLogger(__name__)
T = TypeVar("T")


class Host(Registry):
    """The plugins at work, and how a run calls their hooks."""

    def __init__(self, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(trace)
        self._options = PluginOptions(self)

    # --- what plugins add to the program

    def extend(self, group: Group, command: Command) -> None:
        """Let every plugin add its options to ``command`` and its commands to ``group``."""
        self._options.add_to(command)
        for name, plugin in self.implementations("stylize_commands"):
            known = dict(group.commands)
            try:
                self.call_one("stylize_commands", plugin, group=group)
                for key, value in known.items():
                    if group.commands.get(key) is not value:
                        raise ValueError(f"the command {key!r} exists already")
            except PLUGIN_ERRORS as error:
                group.commands.clear()
                group.commands.update(known)
                self.leave_out(name, described(error))

    def default_options(self) -> dict[str, Any]:
        """What hooks get as ``options`` where there is no command line: the default of every option of ``run``,
        plugins' included, by the name of its parameter."""
        return dict(self.run_command().make_context("run", []).params)

    def run_command(self) -> Command:
        """A command with the options of ``run``, plugins' included, but those of the settings."""
        from click import Command

        from stylize import options

        shared = ("output", "weights", "quiet", "json", "preview_file", "executor")
        command = Command("run", params=[getattr(options, f"{name}_option")() for name in shared])
        self._options.add_to(command)
        return command

    def owners(self, option: str) -> str:
        """What an option of plugins is for, by the name of its parameter: "clips", "folders and clips", "the plugin
        grain"; empty for an option of the program itself."""
        return self._options.owners(option)

    def is_recorded(self, option: str) -> bool:
        """Whether an option, by the name of its parameter, goes into the records of pictures."""
        return self._options.is_recorded(option)

    def encoders(self) -> list[EncoderSpec]:
        """The encoders of all plugins, the built-in ones first."""
        from stylize.encoders import EncoderSpec

        return self._gather("stylize_encoders", EncoderSpec)

    def color_modes(self) -> list[ColorMode]:
        """The colour modes of all plugins, the built-in ones first."""
        from stylize.colors import ColorMode

        return self._gather("stylize_color_modes", ColorMode)

    def endings(self) -> dict[str, str]:
        """The endings (".mp4") of files that plugins open one by one where they lie in a folder, with those of their
        results."""
        found: dict[str, str] = {}
        for name, plugin in self.implementations("stylize_endings"):
            try:
                for made in self.call_one("stylize_endings", plugin):
                    found |= {str(ending).lower(): str(result) for ending, result in made.items()}
            except PLUGIN_ERRORS as error:
                self.leave_out(name, described(error))
        return found

    def checks(self) -> list[Check]:
        """What plugins check of the machine, for ``stylize doctor``."""
        return self._gather("stylize_checks", Check)

    def _gather(self, hook: str, kind: type[T]) -> list[T]:
        found: list[T] = []
        for name, plugin in self.implementations(hook):
            try:
                made = _all_of(kind, self.call_one(hook, plugin))
            except PLUGIN_ERRORS as error:
                self.leave_out(name, described(error))
            else:
                found += made
        return found

    # --- calling hooks

    def open(
        self,
        source: Path,
        styles: Sequence[Path],
        target: Path | None,
        settings: Settings,
        options: Mapping[str, Any],
        given: Collection[str] = (),
    ) -> Job:
        """The job for a source, from the first plugin that opens it.

        Args:
            source: a picture, a folder, a clip, or whatever plugins open.
            styles: the pictures to paint like.
            target: where the result goes; None: the job decides.
            settings: what the result becomes.
            options: of the command line, for the plugins.
            given: the names of those that the user gave, not those that have their defaults.

        Raises:
            SettingsError: an option that was given belongs to other sources.
            StylizeError: no plugin opens the source, or the one that does refuses it.
            PluginError: a plugin failed, or gave something that is not a job.
        """
        source, styles = as_path(source), [as_path(style) for style in styles]
        target = None if target is None else as_path(target)
        request = Request(source, tuple(styles), target, settings, options)
        arguments = {"source": source, "styles": styles, "target": target, "settings": settings, "options": options}
        for name, plugin in reversed(self.implementations("stylize_open")):
            with self._attribute_errors(name, "stylize_open", passing=StylizeError):
                job = self.call_one("stylize_open", plugin, host=self, **arguments)
            if job is not None:
                break
        else:
            raise StylizeError(f"{source} is a folder, which no installed plugin opens; give the path of a picture")
        if not isinstance(job, Job):
            raise PluginError(f"{self.label(name)} opened {source} as {job!r}, which is not derived from stylize.Job")
        if not job.mixed:
            self._options.check_given(given, name, source)
        job.request = request
        return job

    def call(self, hook: str, **arguments: object) -> Any:
        """Call a hook whose first result counts.

        Raises:
            PluginError: what a plugin raised, unless that is an error for the user already; names the plugin.
        """
        try:
            return getattr(self.hook, hook)(**arguments)
        except StylizeError:
            raise
        except PLUGIN_ERRORS as error:
            name = self._plugin_in_traceback(hook, error)
            named = self.label(name) if name else "a plugin"
            raise PluginError(f"{named} failed in {hook}: {described(error)}") from error

    def observe(self, hook: str, **arguments: object) -> None:
        """Call an observing hook; a plugin that fails is left out from then on, which the log says."""
        self._observe(hook, self.implementations(hook), arguments)

    def observe_here(self, hook: str, **arguments: object) -> None:
        """Call an observing hook of the plugins that only this process has, such as the display, for what another
        process does: there the other plugins observe it."""
        known = {*self._loaded, *BUILTIN}
        self._observe(hook, [each for each in self.implementations(hook) if each[0] not in known], arguments)

    def _observe(self, hook: str, members: Sequence[tuple[str, object]], arguments: Mapping[str, object]) -> None:
        for name, plugin in reversed(members):
            try:
                self.call_one(hook, plugin, **arguments)
            except PLUGIN_ERRORS as error:
                log.warning("%s", self.leave_out(name, f"it failed in {hook}: {described(error)}"))

    def terms(self, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> list[Term]:
        """The terms that plugins add for a frame; an error in their functions names the plugin, too.

        Raises:
            PluginError: names the plugin that failed.
        """
        from stylize.objective import Term

        made = self._made("stylize_terms", Term, frame=frame, settings=settings, options=options)
        return [self._guarded(name, term) for name, term in made]

    def regions(self, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> list[Region]:
        """The regions that plugins find in a frame.

        Raises:
            PluginError: names the plugin that failed.
        """
        from stylize.regions import Region

        made = self._made("stylize_regions", Region, frame=frame, settings=settings, options=options)
        return [region for _, region in made]

    def _made(self, hook: str, kind: type[T], **arguments: object) -> Iterator[tuple[str, T]]:
        """What every plugin makes, with the plugin's name."""
        for name, plugin in reversed(self.implementations(hook)):
            with self._attribute_errors(name, hook):
                made = _all_of(kind, self.call_one(hook, plugin, **arguments))
            yield from ((name, each) for each in made)

    def finish(self, image: Picture, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> Picture:
        """A stylized picture after every plugin has changed it.

        Raises:
            PluginError: names the plugin that failed.
        """
        from stylize.images import Picture

        for name, plugin in reversed(self.implementations("stylize_finish")):
            arguments = {"image": image, "frame": frame, "settings": settings, "options": options}
            with self._attribute_errors(name, "stylize_finish"):
                for changed in self.call_one("stylize_finish", plugin, **arguments):
                    if not isinstance(changed, Picture):
                        raise TypeError(f"{changed!r} is not a Picture")
                    image = changed
        return image

    def contributors(self) -> dict[str, str]:
        """Name and version of the plugins that change pictures: those that add terms or regions, or finish them."""
        hooks = ("stylize_terms", "stylize_regions", "stylize_finish")
        names = {name for hook in hooks for name, _ in self.implementations(hook)}
        return {name: self._infos[name].version for name in sorted(names) if name in self._infos}

    def _guarded(self, name: str, term: Term) -> Term:
        def function(image: Tensor, features: Mapping[str, Tensor]) -> Tensor:
            with self._attribute_errors(name, f"its term {term.name!r}"):
                value = term.function(image, features)
                if getattr(value, "shape", None) != ():
                    raise TypeError(f"it returned {abbreviated(value)}, not a tensor without dimensions")
                return value

        return dataclasses.replace(term, function=function)


def _all_of(kind: type[T], results: Iterable[Iterable[object]]) -> list[T]:
    found: list[T] = []
    for item in (item for result in results for item in result):
        if not isinstance(item, kind):
            raise TypeError(f"{item!r} is not {'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}")
        found.append(item)
    return found


def plugin_manager(
    *,
    without: Collection[str] = (),
    only: Collection[str] | None = None,
    trace: Callable[[str], object] | None = None,
) -> Host:
    """A fresh host with the built-in plugins and everything installed under the entry-point group ``stylize``.

    Args:
        without: names of plugins to leave out.
        only: names of the plugins to load besides the built-in ones; default: all.
        trace: gets two lines for each call of a hook: who is asked, and what came back.

    Raises:
        SettingsError: a name in ``without`` or ``only`` that no plugin has.
        PluginError: two plugins have one name.
    """
    host = Host(trace)
    for module in BUILTIN:
        host.register(import_module(module), module)
    entries = list(plugin_entries(host.problems))
    names = [entry.name for entry, _ in entries]
    for name in (*without, *(only or ())):
        if name not in names:
            raise SettingsError(f"unknown plugin {name!r}; installed: {', '.join(sorted(set(names))) or 'none'}")
    entries = [(entry, home) for entry, home in entries if entry.name not in without]
    entries = [(entry, home) for entry, home in entries if only is None or entry.name in only]
    claimed: dict[str, Home] = {}
    for entry, home in entries:
        if entry.name in claimed or entry.name in BUILTIN:
            both = " and ".join(
                f"{each.name} {each.version}" if each else "stylize itself" for each in (claimed.get(entry.name), home)
            )
            advice = f"uninstall one, or leave both out with --no-plugin {entry.name}"
            raise PluginError(f"two plugins are named {entry.name}, of {both}; {advice}")
        claimed[entry.name] = home
        host.load(entry.name, home, entry.value)
    return host
