"""Which plugins there are, what is wrong with those left out, and how one of their hooks is called alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import pluggy

from stylize import hookspecs
from stylize.errors import PluginError, StylizeError

PLUGIN_ERRORS = (Exception, SystemExit)  # what a plugin may raise without ending the program
OWN_NAMES = frozenset(  # under which the program itself takes part, besides the built-in plugins
    ("the display", "the preview", "the progress", "the page", "the other process", "napari")
)


class Home(NamedTuple):
    """The distribution that a plugin comes from. Its metadata, which has the whole front page, is parsed only once."""

    name: str
    version: str


@dataclass(frozen=True)
class PluginInfo:
    """One line of ``stylize plugins``; ``problem`` says why it was left out."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    problem: str = ""


class Registry(pluggy.PluginManager):
    """pluggy's manager for the hooks of stylize. ``problems`` has one line for each plugin that was left out."""

    def __init__(self, trace: Callable[[str], object] | None = None) -> None:
        super().__init__("stylize")
        self.problems: list[str] = []
        self._infos: dict[str, PluginInfo] = {}
        self._callers: dict[tuple[str, int], pluggy.HookCaller] = {}
        self._loaded: list[str] = []  # from entry points
        self.add_hookspecs(hookspecs)
        if trace is not None:
            self._trace(trace)

    def register(self, plugin: object, name: str | None = None) -> str | None:
        self._callers.clear()
        return super().register(plugin, name)

    def unregister(self, plugin: object = None, name: str | None = None) -> Any:
        self._callers.clear()
        return super().unregister(plugin, name)

    def _hookexec(self, *arguments: Any, **keywords: Any) -> Any:
        with _ordinary_errors():
            return super()._hookexec(*arguments, **keywords)

    def load(self, name: str, home: Home, target: str) -> None:
        """Import and register one entry point; if that fails, it is left out."""
        self._infos[name] = PluginInfo(name, home.name or "?", home.version or "?")
        try:
            if name in OWN_NAMES:
                raise ValueError("stylize itself uses this name; another entry point is needed")
            module, _, attribute = target.partition(":")
            with _ordinary_errors():
                plugin: object = import_module(module)
            for part in filter(None, attribute.split(".")):
                plugin = getattr(plugin, part)
            self.register(plugin, name)
            self.check_pending()
            self._loaded.append(name)
        except PLUGIN_ERRORS as error:
            self.leave_out(name, described(error))

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

    def leave_out(self, name: str, reason: str) -> str:
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

    @contextmanager
    def _attribute_errors(self, name: str, place: str, passing: type[Exception] = MemoryError) -> Iterator[None]:
        """Turn what is raised into a PluginError with the plugin's name, ``passing`` aside."""
        try:
            with _ordinary_errors():
                yield
        except passing:
            raise
        except PLUGIN_ERRORS as error:
            raise PluginError(f"{self.label(name)} failed in {place}: {described(error)}") from error

    def implementations(self, hook: str) -> list[tuple[str, object]]:
        """The plugins that implement a hook, last called first."""
        return [(each.plugin_name, each.plugin) for each in getattr(self.hook, hook).get_hookimpls()]

    def call_one(self, hook: str, plugin: object, **arguments: object) -> Any:
        """Call the hook of one plugin alone."""
        key = hook, id(plugin)  # of a registered plugin, which lives as long as its entry here
        if key not in self._callers:
            others = [other for other in self.get_plugins() if other is not plugin]
            self._callers[key] = self.subset_hook_caller(hook, others)
        return self._callers[key](**arguments)

    def _plugin_in_traceback(self, hook: str, error: BaseException) -> str:
        """The name of the plugin whose implementation of the hook is in the traceback of an error; empty if none is."""
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
            given = ", ".join(f"{key}={abbreviated(value)}" for key, value in arguments.items())
            say(f"{hook}({given}) -> {names or 'nobody'}")

        def after(
            outcome: pluggy.Result[Any], hook: str, implementations: Sequence[pluggy.HookImpl], arguments: object
        ) -> None:
            gave = (
                f"raised {described(outcome.exception)}"
                if outcome.exception
                else f"gave {abbreviated(outcome.get_result())}"
            )
            say(f"{hook} {gave}")

        self.add_hookcall_monitoring(before, after)


class _OddError(Exception):
    """Stands for what its cause is: an exception that is no Exception, and would end the program."""


@contextmanager
def _ordinary_errors() -> Iterator[None]:
    """Turn what a plugin raises, and is no Exception, into one; SystemExit and Ctrl-C aside."""
    try:
        yield
    except (Exception, SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _OddError from error


def described(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, _OddError) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    if isinstance(error, StylizeError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def abbreviated(value: object) -> str:
    """A value in at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
