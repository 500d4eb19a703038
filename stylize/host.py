"""The pluggy host: which plugins there are, and what is wrong with those that could not be loaded."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import Distribution, distributions
from typing import Any

import pluggy

from stylize import hookspecs
from stylize.errors import PluginError, StylizeError

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
            self.problems.append(f"{label} left out: {type(error).__name__}: {' '.join(str(error).split())}")

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
            raise PluginError(f"a plugin failed in {hook}: {type(error).__name__}: {error}") from error


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
