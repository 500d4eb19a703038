"""The pluggy host: which plugins there are, and what is wrong with those that could not be loaded."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import Distribution, distributions

import pluggy

from stylize import hookspecs
from stylize.errors import PluginError

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
        try:
            module, _, attribute = target.partition(":")
            plugin: object = import_module(module)
            for part in filter(None, attribute.split(".")):
                plugin = getattr(plugin, part)
            self.register(plugin, name)
            self.check_pending()
        except Exception as error:  # whatever a stranger's plugin raises, the host goes on
            if self.has_plugin(name):
                self.unregister(name=name)
            self.problems.append(f"{label} left out: {type(error).__name__}: {error}")


def plugin_manager() -> Host:
    """A fresh host with the built-in plugins and everything installed under the entry-point group ``stylize``."""
    host = Host()
    host.add_hookspecs(hookspecs)
    for module in BUILTIN:
        host.register(import_module(module), module)
    for distribution in distributions():
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                host.load(entry.name, distribution, entry.value)
    try:
        host.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error)) from error
    return host
