"""The pluggy host: which plugins there are, and what is wrong with those that could not be loaded."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING, Any

import pluggy

from stylize import hookspecs
from stylize.errors import PluginError, StylizeError

if TYPE_CHECKING:
    from stylize.encoders import EncoderSpec

GROUP = "stylize"
BUILTIN = ("stylize.builtin",)

hookimpl = pluggy.HookimplMarker("stylize")


class Host(pluggy.PluginManager):
    """pluggy's manager, with ``problems``: one line for each plugin that was left out."""

    def __init__(self) -> None:
        super().__init__("stylize")
        self.problems: list[str] = []

    def load(self, name: str, distribution: Distribution, target: str) -> None:
        """Register one entry point; what it raises becomes a problem that names it."""
        label = f"plugin {name} ({distribution.name} {distribution.version})"
        if self.has_plugin(name):
            self.problems.append(f"{label} left out: another plugin has that name")
            return
        try:
            module, _, attribute = target.partition(":")
            plugin: object = import_module(module)
            for part in filter(None, attribute.split(".")):
                plugin = getattr(plugin, part)
            self.register(plugin, name)
            self.check_pending()
        except (Exception, SystemExit) as error:  # whatever a stranger's plugin raises, the host goes on
            if self.has_plugin(name):
                self.unregister(name=name)
            self.problems.append(f"{label} left out: {_said(error)}")

    def call(self, hook: str, **arguments: object) -> Any:
        """Call a hook; what a plugin raises, unless it is an error for the user, becomes one.

        Raises:
            PluginError: names the hook.
        """
        try:
            return getattr(self.hook, hook)(**arguments)
        except StylizeError:
            raise
        except Exception as error:
            raise PluginError(f"{self._culprit(hook, error)} failed in {hook}: {_said(error)}") from error

    def encoders(self) -> list[EncoderSpec]:
        """The encoders of all plugins, the built-in ones first; a plugin that fails becomes a problem."""
        from stylize.encoders import EncoderSpec

        found: list[EncoderSpec] = []
        for name, plugin in self.list_name_plugin():
            caller = self.subset_hook_caller("stylize_encoders", self.get_plugins() - {plugin})
            try:
                made = [spec for specs in caller() for spec in specs]
                for spec in made:
                    if not isinstance(spec, EncoderSpec):
                        raise TypeError(f"{spec!r} is not an EncoderSpec")
                found += made
            except Exception as error:  # as above
                self.problems.append(f"plugin {name} gives no encoders: {_said(error)}")
        return found

    def _culprit(self, hook: str, error: Exception) -> str:
        """Which plugin an error came from: the one whose function is in its traceback."""
        frames = set()
        trace = error.__traceback__
        while trace is not None:
            frames.add(trace.tb_frame.f_code)
            trace = trace.tb_next
        for implementation in getattr(self.hook, hook).get_hookimpls():
            if getattr(implementation.function, "__code__", None) in frames:
                return f"plugin {implementation.plugin_name}"
        return "a plugin"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def plugin_manager() -> Host:
    """A fresh host with the built-in plugins and everything installed under the entry-point group ``stylize``."""
    host = Host()
    host.add_hookspecs(hookspecs)
    for module in BUILTIN:
        host.register(import_module(module), module)
    first = {distribution.name: distribution for distribution in reversed([*distributions()])}  # a path may stand twice
    for distribution in first.values():
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                host.load(entry.name, distribution, entry.value)
    try:
        host.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    return host
