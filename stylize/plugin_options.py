"""The options that plugins add to a command, and which plugins each of them belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stylize.errors import SettingsError
from stylize.registry import PLUGIN_ERRORS, Registry, described

if TYPE_CHECKING:
    from click import Command, Parameter


class PluginOptions:
    """The options of the plugins in a registry, once :meth:`add_to` has asked for them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._owned: dict[str, _Owned] = {}  # by the name of the parameter

    def owners(self, option: str) -> str:
        """What an option of plugins is for, by the name of its parameter: "clips", "folders and clips", "the plugin
        grain"; empty for an option of the program itself."""
        owned = self._owned.get(option)
        return "" if owned is None else " and ".join(self._source_words(name)[1] for name in owned.plugins)

    def is_recorded(self, option: str) -> bool:
        """Whether an option, by the name of its parameter, goes into the records of pictures."""
        from stylize.options import NOT_RECORDED

        return option in self._owned and option not in NOT_RECORDED

    def add_to(self, command: Command) -> None:
        """Let every plugin append its options to ``command``; a plugin that fails is left out."""
        self._owned = {}
        for name, _ in self._registry.implementations("stylize_sources"):
            try:
                self._source_words(name)
            except PLUGIN_ERRORS as error:
                self._registry.leave_out(name, described(error))
        for name, plugin in self._registry.implementations("stylize_options"):
            before, owned = [*command.params], {key: value.copy() for key, value in self._owned.items()}
            try:
                self._registry.call_one("stylize_options", plugin, command=command)
                command.params[:] = [*before, *self._new_options(name, before, command.params)]
            except PLUGIN_ERRORS as error:
                command.params[:], self._owned = before, owned
                self._registry.leave_out(name, described(error))

    def check_given(self, given: Collection[str], opener: str, source: Path) -> None:
        """Refuse an option of plugins that open sources, but not this one."""
        openers = {name for name, _ in self._registry.implementations("stylize_open")}
        for name, owned in self._owned.items():
            if name in given and opener not in owned.plugins and openers.issuperset(owned.plugins):
                flag = max(owned.option.opts, key=len)
                one, _ = self._source_words(opener)
                raise SettingsError(f"{flag} belongs to {self.owners(name)}; {source} is {one}")

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
        for owner, plugin in self._registry.implementations("stylize_sources"):
            if owner == name:
                match self._registry.call_one("stylize_sources", plugin):
                    case [(str(one), str(many))]:
                        return one, many
                    case other:
                        raise TypeError(f"{other!r} is not the words for one source and for several")
        return f"opened by the plugin {name}", f"the plugin {name}"


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
