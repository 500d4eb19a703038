"""The pluggy host: which plugins there are, what is wrong with those left out, and how their hooks are called.

While plugins introduce themselves (options, commands, encoders, colour modes), and in the observing hooks
(``stylize_step``, ``stylize_painted``), one that fails is named and left out. Where the result matters
(``stylize_open``, ``stylize_terms``, ``stylize_finish``) what it raises becomes a
:class:`~stylize.errors.PluginError` with its name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from stylize import hookspecs
from stylize.errors import PluginError, SettingsError, StylizeError

if TYPE_CHECKING:
    from click import Command, Group
    from torch import Tensor

    from stylize.colors import ColorMode
    from stylize.contracts import Frame
    from stylize.encoders import EncoderSpec
    from stylize.images import Picture
    from stylize.losses import Term
    from stylize.settings import Settings

GROUP = "stylize"
FAULTS = (Exception, SystemExit)  # whatever a stranger's plugin raises, the host goes on or says so
BUILTIN = ("stylize.builtin", "stylize.display")

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class PluginInfo:
    """One line of ``stylize plugins``; ``problem`` says why it was left out."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    problem: str = ""


class Host(pluggy.PluginManager):
    """pluggy's manager for the hooks of stylize. ``problems``: one line for each plugin that was left out."""

    def __init__(self, trace: Callable[[str], object] | None = None) -> None:
        super().__init__("stylize")
        self.problems: list[str] = []
        self._infos: dict[str, PluginInfo] = {}
        self._loaded: list[str] = []  # from entry points
        self.add_hookspecs(hookspecs)
        if trace is not None:
            self._trace(trace)

    # --- who is there

    def load(self, name: str, distribution: Distribution, target: str) -> None:
        """Register one entry point; what it raises becomes a problem that names it."""
        self._infos[name] = PluginInfo(name, distribution.name or "?", distribution.version or "?")
        try:
            module, _, attribute = target.partition(":")
            plugin: object = import_module(module)
            for part in filter(None, attribute.split(".")):
                plugin = getattr(plugin, part)
            self.register(plugin, name)
            self.check_pending()
            self._loaded.append(name)
        except FAULTS as error:
            self._leave_out(name, _said(error))

    def infos(self) -> list[PluginInfo]:
        """All plugins, the built-in ones first, those left out included."""
        from stylize import __version__

        found = []
        for name, plugin in self.list_name_plugin():
            hooks = () if plugin is None else sorted(caller.name for caller in self.get_hookcallers(plugin) or ())
            if name not in self._infos and plugin is not None:
                self._infos[name] = PluginInfo(name, "stylize-host", __version__)
            if name in self._infos and not self._infos[name].problem:
                found.append(dataclasses.replace(self._infos[name], hooks=tuple(hooks)))
        return found + [info for info in self._infos.values() if info.problem]

    def loaded(self) -> tuple[str, ...]:
        """The names of the plugins at work that were found by their entry points: other processes find them, too."""
        return tuple(name for name in self._loaded if self.has_plugin(name))

    def _leave_out(self, name: str, reason: str) -> str:
        if self.has_plugin(name):
            self.unregister(name=name)
        problem = f"{self.label(name)} left out: {reason}"
        self.problems.append(problem)
        self._infos[name] = dataclasses.replace(self._infos.get(name, PluginInfo(name, "?", "?")), problem=reason)
        return problem

    def label(self, name: str) -> str:
        """A plugin with its distribution, for messages."""
        info = self._infos.get(name)
        return f"plugin {name}" + (f" ({info.distribution} {info.version})" if info else "")

    # --- how they introduce themselves

    def extend(self, group: Group, command: Command) -> None:
        """Let every plugin add its options to ``command`` and its commands to ``group``."""
        for name, plugin in self._members("stylize_options"):
            before = [*command.params]
            try:
                self._only("stylize_options", plugin)(command=command)
                _check_options(command, before)
            except FAULTS as error:
                command.params[:] = before
                self._leave_out(name, _said(error))
        for name, plugin in self._members("stylize_commands"):
            known = dict(group.commands)
            try:
                self._only("stylize_commands", plugin)(group=group)
                for key, value in known.items():
                    if group.commands.get(key) is not value:
                        raise ValueError(f"the command {key!r} is there already")
            except FAULTS as error:
                group.commands.clear()
                group.commands.update(known)
                self._leave_out(name, _said(error))

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
        for name, plugin in self._members(hook):
            try:
                made = _all_of(kind, self._only(hook, plugin)())
            except FAULTS as error:
                self._leave_out(name, _said(error))
            else:
                found += made
        return found

    # --- how they are called

    def call(self, hook: str, **arguments: object) -> Any:
        """Call a hook of which the first result counts.

        Raises:
            PluginError: what a plugin raised, unless that is an error for the user already; names the plugin.
        """
        try:
            return getattr(self.hook, hook)(**arguments)
        except StylizeError:
            raise
        except FAULTS as error:
            culprit = self._culprit(hook, error)
            named = self.label(culprit) if culprit else "a plugin"
            raise PluginError(f"{named} failed in {hook}: {_said(error)}") from error

    def observe(self, hook: str, **arguments: object) -> None:
        """Call an observing hook; a plugin that fails is left out from then on, which the log says."""
        self._observe(hook, self._members(hook), arguments)

    def observe_here(self, hook: str, **arguments: object) -> None:
        """Call an observing hook of the plugins that only this process has, such as the display, for what another
        process does: there the other plugins observe it."""
        known = {*self._loaded, *BUILTIN}
        self._observe(hook, [each for each in self._members(hook) if each[0] not in known], arguments)

    def _observe(self, hook: str, members: Sequence[tuple[str, object]], arguments: Mapping[str, object]) -> None:
        for name, plugin in reversed(members):
            try:
                self._only(hook, plugin)(**arguments)
            except FAULTS as error:
                log.warning("%s", self._leave_out(name, f"it failed in {hook}: {_said(error)}"))

    def terms(self, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> list[Term]:
        """The terms that plugins add for a frame; what their functions raise later names the plugin, too.

        Raises:
            PluginError: names the plugin that failed.
        """
        from stylize.losses import Term

        found: list[Term] = []
        for name, plugin in reversed(self._members("stylize_terms")):
            with self._blaming(name, "stylize_terms"):
                made = self._only("stylize_terms", plugin)(frame=frame, settings=settings, options=options)
                found += [self._guarded(name, term) for term in _all_of(Term, made)]
        return found

    def finish(self, image: Picture, frame: Frame, settings: Settings, options: Mapping[str, Any]) -> Picture:
        """A stylized picture after every plugin has had it.

        Raises:
            PluginError: names the plugin that failed.
        """
        from stylize.images import Picture

        for name, plugin in reversed(self._members("stylize_finish")):
            with self._blaming(name, "stylize_finish"):
                caller = self._only("stylize_finish", plugin)
                for changed in caller(image=image, frame=frame, settings=settings, options=options):
                    if not isinstance(changed, Picture):
                        raise TypeError(f"{changed!r} is not a Picture")
                    image = changed
        return image

    def hands(self) -> dict[str, str]:
        """Name and version of the plugins that have a hand in the pictures."""
        hooks = ("stylize_terms", "stylize_finish")
        names = {name for hook in hooks for name, _ in self._members(hook)}
        return {name: self._infos[name].version for name in sorted(names) if name in self._infos}

    @contextmanager
    def _blaming(self, name: str, hook: str) -> Iterator[None]:
        try:
            yield
        except MemoryError:
            raise
        except FAULTS as error:
            raise PluginError(f"{self.label(name)} failed in {hook}: {_said(error)}") from error

    def _guarded(self, name: str, term: Term) -> Term:
        def function(image: Tensor, features: Mapping[str, Tensor]) -> Tensor:
            with self._blaming(name, f"its term {term.name!r}"):
                value = term.function(image, features)
                if getattr(value, "shape", None) != ():
                    raise TypeError(f"it gave {_short(value)}, not a tensor without dimensions")
                return value

        return dataclasses.replace(term, function=function)

    def _members(self, hook: str) -> list[tuple[str, object]]:
        """Who implements a hook, in the order of registration but for those that want to be first or last."""
        return [(each.plugin_name, each.plugin) for each in getattr(self.hook, hook).get_hookimpls()]

    def _only(self, hook: str, plugin: object) -> pluggy.HookCaller:
        return self.subset_hook_caller(hook, [other for other in self.get_plugins() if other is not plugin])

    def _culprit(self, hook: str, error: BaseException) -> str:
        """The name of the plugin an error came from: the one whose function is in its traceback."""
        frames = set()
        trace = error.__traceback__
        while trace is not None:
            frames.add(trace.tb_frame.f_code)
            trace = trace.tb_next
        for implementation in getattr(self.hook, hook).get_hookimpls():
            if getattr(implementation.function, "__code__", None) in frames:
                return str(implementation.plugin_name)
        return ""

    def _trace(self, say: Callable[[str], object]) -> None:
        def before(hook: str, implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]) -> None:
            names = ", ".join(each.plugin_name for each in reversed(implementations))
            given = ", ".join(f"{key}={_short(value)}" for key, value in arguments.items())
            say(f"{hook}({given}) -> {names or 'nobody'}")

        def after(
            outcome: pluggy.Result[Any], hook: str, implementations: Sequence[pluggy.HookImpl], arguments: object
        ) -> None:
            gave = f"raised {_said(outcome.exception)}" if outcome.exception else f"gave {_short(outcome.get_result())}"
            say(f"{hook} {gave}")

        self.add_hookcall_monitoring(before, after)


def _all_of(kind: type[T], results: Iterable[Iterable[object]]) -> list[T]:
    found: list[T] = []
    for item in (item for result in results for item in result):
        if not isinstance(item, kind):
            raise TypeError(f"{item!r} is not {'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}")
        found.append(item)
    return found


def _check_options(command: Command, before: Sequence[object]) -> None:
    """Refuse options whose flag or name another one has; click would let the last one win in silence."""
    taken: set[str] = set()
    for parameter in command.params:
        names = {*parameter.opts, *parameter.secondary_opts, str(parameter.name)}
        if names & taken:
            raise ValueError(f"the option {', '.join(sorted(names & taken))} is there already")
        taken |= names
    if [*command.params[: len(before)]] != [*before]:
        raise ValueError("it changed the options of others")


def _said(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, StylizeError) else f"{type(error).__name__}: {said}"


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


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
            raise SettingsError(f"there is no plugin {name!r}; there are: {', '.join(sorted(set(names))) or 'none'}")
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


def _entries(host: Host) -> Iterator[tuple[EntryPoint, Distribution]]:
    first = {distribution.name: distribution for distribution in reversed([*distributions()])}  # a path may stand twice
    for distribution in first.values():
        try:
            found = [entry for entry in distribution.entry_points if entry.group == GROUP]
        except FAULTS as error:  # its metadata are broken, whatever it is
            host.problems.append(f"the plugins of {distribution.name}, if it has any, left out: {_said(error)}")
            continue
        for entry in found:
            yield entry, distribution
