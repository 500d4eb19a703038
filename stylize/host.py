"""The pluggy host: which plugins there are, what is wrong with those left out, and how their hooks are called.

A plugin that fails while it is loaded, adds to the program (options, commands, encoders, colour modes) or observes
(``stylize_step``, ``stylize_painted``) is left out, and named. Where the result depends on it (``stylize_open``,
``stylize_terms``, ``stylize_finish``), what it raises becomes a :class:`~stylize.errors.PluginError` with its name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from typing import TYPE_CHECKING, Any, TypeVar

from stylize.contracts import Job, Request
from stylize.errors import PluginError, SettingsError, StylizeError
from stylize.registry import PLUGIN_ERRORS, Registry, abbreviated, described

if TYPE_CHECKING:
    from pathlib import Path

    from click import Command, Group, Parameter
    from torch import Tensor

    from stylize.colors import ColorMode
    from stylize.contracts import Frame
    from stylize.encoders import EncoderSpec
    from stylize.images import Picture
    from stylize.objective import Term
    from stylize.regions import Region
    from stylize.settings import Settings

GROUP = "stylize"
BUILTIN = ("stylize.builtin", "stylize.cli.display")

log = logging.getLogger(__name__)
T = TypeVar("T")


class Host(Registry):
    """The plugins at work, and how a run calls their hooks."""

    def __init__(self, trace: Callable[[str], object] | None = None) -> None:
        super().__init__(trace)
        self._owned: dict[str, _Owned] = {}  # by the name of the parameter

    # --- what plugins add to the program

    def extend(self, group: Group, command: Command) -> None:
        """Let every plugin add its options to ``command`` and its commands to ``group``."""
        self._add_options(command)
        for name, plugin in self._implementations("stylize_commands"):
            known = dict(group.commands)
            try:
                self._call_one("stylize_commands", plugin, group=group)
                for key, value in known.items():
                    if group.commands.get(key) is not value:
                        raise ValueError(f"the command {key!r} exists already")
            except PLUGIN_ERRORS as error:
                group.commands.clear()
                group.commands.update(known)
                self._leave_out(name, described(error))

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
        self._add_options(command)
        return command

    def owners(self, option: str) -> str:
        """What an option of plugins is for, by the name of its parameter: "clips", "folders and clips", "the plugin
        grain"; empty for an option of the program itself."""
        owned = self._owned.get(option)
        return "" if owned is None else " and ".join(self._source_words(name)[1] for name in owned.plugins)

    def is_recorded(self, option: str) -> bool:
        """Whether an option, by the name of its parameter, goes into the records of pictures."""
        from stylize.options import NOT_RECORDED

        return option in self._owned and option not in NOT_RECORDED

    def _add_options(self, command: Command) -> None:
        self._owned = {}
        for name, _ in self._implementations("stylize_sources"):
            try:
                self._source_words(name)
            except PLUGIN_ERRORS as error:
                self._leave_out(name, described(error))
        for name, plugin in self._implementations("stylize_options"):
            before, owned = [*command.params], {key: value.copy() for key, value in self._owned.items()}
            try:
                self._call_one("stylize_options", plugin, command=command)
                command.params[:] = [*before, *self._new_options(name, before, command.params)]
            except PLUGIN_ERRORS as error:
                command.params[:], self._owned = before, owned
                self._leave_out(name, described(error))

    def _new_options(self, name: str, before: Sequence[Parameter], after: Sequence[Parameter]) -> Iterator[Parameter]:
        """The options that plugin ``name`` has added. It becomes another owner of those that exist already;
        an option that shares only a flag or the name with another is an error, as click would let the last one win."""
        if [*after[: len(before)]] != [*before]:
            raise ValueError("it changed the options of others")
        taken = {word: parameter for parameter in before for word in _words(parameter)}
        for parameter in after[len(before) :]:
            clashes = {word: taken[word] for word in _words(parameter) if word in taken}
            owned = self._owned.get(str(parameter.name))
            if clashes and (owned is None or name in owned.plugins or not _same(owned.option, parameter)):
                raise ValueError(f"the option {', '.join(sorted(clashes))} exists already")
            if owned is not None:
                owned.plugins.append(name)
                continue
            self._owned[str(parameter.name)] = _Owned(parameter, [name])
            taken |= dict.fromkeys(_words(parameter), parameter)
            yield parameter

    def _source_words(self, name: str) -> tuple[str, str]:
        """What a plugin calls one of its sources, and several."""
        for owner, plugin in self._implementations("stylize_sources"):
            if owner == name:
                match self._call_one("stylize_sources", plugin):
                    case [(str(one), str(many))]:
                        return one, many
                    case other:
                        raise TypeError(f"{other!r} is not the words for one source and for several")
        return f"opened by the plugin {name}", f"the plugin {name}"

    def encoders(self) -> list[EncoderSpec]:
        """The encoders of all plugins, the built-in ones first."""
        from stylize.encoders import EncoderSpec

        return self._gather("stylize_encoders", EncoderSpec)

    def color_modes(self) -> list[ColorMode]:
        """The colour modes of all plugins, the built-in ones first."""
        from stylize.colors import ColorMode

        return self._gather("stylize_color_modes", ColorMode)

    def _gather(self, hook: str, kind: type[T]) -> list[T]:
        found: list[T] = []
        for name, plugin in self._implementations(hook):
            try:
                made = _all_of(kind, self._call_one(hook, plugin))
            except PLUGIN_ERRORS as error:
                self._leave_out(name, described(error))
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
        request = Request(source, tuple(styles), target, settings, options)
        arguments = {"source": source, "styles": styles, "target": target, "settings": settings, "options": options}
        for name, plugin in reversed(self._implementations("stylize_open")):
            with self._attribute_errors(name, "stylize_open", passing=StylizeError):
                job = self._call_one("stylize_open", plugin, host=self, **arguments)
            if job is not None:
                break
        else:
            raise StylizeError(f"{source} is a folder, which no installed plugin opens; give the path of a picture")
        if not isinstance(job, Job):
            raise PluginError(f"{self.label(name)} opened {source} as {job!r}, which is not derived from stylize.Job")
        self._check_given(given, name, source)
        job.request = request
        return job

    def _check_given(self, given: Collection[str], opener: str, source: Path) -> None:
        """Refuse an option of plugins that open sources, but not this one."""
        openers = {name for name, _ in self._implementations("stylize_open")}
        for name, owned in self._owned.items():
            if name in given and opener not in owned.plugins and openers.issuperset(owned.plugins):
                flag = max(owned.option.opts, key=len)
                one, _ = self._source_words(opener)
                raise SettingsError(f"{flag} belongs to {self.owners(name)}; {source} is {one}")

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
        self._observe(hook, self._implementations(hook), arguments)

    def observe_here(self, hook: str, **arguments: object) -> None:
        """Call an observing hook of the plugins that only this process has, such as the display, for what another
        process does: there the other plugins observe it."""
        known = {*self._loaded, *BUILTIN}
        self._observe(hook, [each for each in self._implementations(hook) if each[0] not in known], arguments)

    def _observe(self, hook: str, members: Sequence[tuple[str, object]], arguments: Mapping[str, object]) -> None:
        for name, plugin in reversed(members):
            try:
                self._call_one(hook, plugin, **arguments)
            except PLUGIN_ERRORS as error:
                log.warning("%s", self._leave_out(name, f"it failed in {hook}: {described(error)}"))

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
        for name, plugin in reversed(self._implementations(hook)):
            with self._attribute_errors(name, hook):
                made = _all_of(kind, self._call_one(hook, plugin, **arguments))
            yield from ((name, each) for each in made)

    def finish(self, image: Picture, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> Picture:
        """A stylized picture after every plugin has changed it.

        Raises:
            PluginError: names the plugin that failed.
        """
        from stylize.images import Picture

        for name, plugin in reversed(self._implementations("stylize_finish")):
            arguments = {"image": image, "frame": frame, "settings": settings, "options": options}
            with self._attribute_errors(name, "stylize_finish"):
                for changed in self._call_one("stylize_finish", plugin, **arguments):
                    if not isinstance(changed, Picture):
                        raise TypeError(f"{changed!r} is not a Picture")
                    image = changed
        return image

    def contributors(self) -> dict[str, str]:
        """Name and version of the plugins that change pictures: those that add terms or regions, or finish them."""
        hooks = ("stylize_terms", "stylize_regions", "stylize_finish")
        names = {name for hook in hooks for name, _ in self._implementations(hook)}
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


@dataclass
class _Owned:
    """An option of plugins, and the names of those that have it."""

    option: Parameter
    plugins: list[str]

    def copy(self) -> _Owned:
        return _Owned(self.option, [*self.plugins])


def _words(parameter: Parameter) -> set[str]:
    """The flags and the name of a parameter, none of which another may have."""
    return {*parameter.opts, *parameter.secondary_opts, str(parameter.name)}


def _same(one: Parameter, other: Parameter) -> bool:
    """Whether two options differ in nothing but their help."""
    first, second = ({**each.to_info_dict(), "help": None} for each in (one, other))
    return first == second and one.callback == other.callback


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
    entries = list(_entries(host))
    names = [entry.name for entry, _ in entries]
    for name in (*without, *(only or ())):
        if name not in names:
            raise SettingsError(f"unknown plugin {name!r}; installed: {', '.join(sorted(set(names))) or 'none'}")
    entries = [(entry, home) for entry, home in entries if entry.name not in without]
    entries = [(entry, home) for entry, home in entries if only is None or entry.name in only]
    claimed: dict[str, Distribution] = {}
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


def unreadable_distributions() -> Iterator[str]:
    """One line for each installed distribution whose metadata cannot be read; its plugins, if it has any, are not
    loaded."""
    for each in distributions():
        try:
            if not each.name:
                raise ValueError("it has no name")
            _ = each.version, [*each.entry_points]
        except PLUGIN_ERRORS as error:
            yield f"{_place(each)}: unreadable metadata: {described(error)}"


def _entries(host: Host) -> Iterator[tuple[EntryPoint, Distribution]]:
    """The entry points of plugins, last on the path first. Of two distributions of one name, the first on the path
    counts."""
    seen: set[str] = set()
    for found in reversed([*distributions()]):
        if not _plugins_of(found):
            continue
        try:
            if not found.name:
                raise ValueError("it has no name")
            home = distribution(found.name)
            entries = [] if found.name in seen else [*_plugins_of(home)]
            seen.add(found.name)
        except PLUGIN_ERRORS as error:
            host.problems.append(f"the plugins in {_place(found)} left out: unreadable metadata: {described(error)}")
            continue
        for entry in entries:
            yield entry, home


def _plugins_of(home: Distribution) -> list[EntryPoint]:
    """The entry points of a distribution that are plugins; none if they cannot be read, so that a broken distribution
    that has nothing to do with stylize is ignored. ``stylize plugins`` and ``stylize doctor`` name it."""
    try:
        return [entry for entry in home.entry_points if entry.group == GROUP]
    except PLUGIN_ERRORS:
        return []


def _place(home: Distribution) -> str:
    """The folder of a distribution's metadata, or of its modules where that is not known."""
    return str(getattr(home, "_path", None) or home.locate_file(""))
