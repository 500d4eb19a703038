"""Which installed distributions have plugins: the entry points of the group ``stylize``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, distribution, distributions

from stylize.registry import PLUGIN_ERRORS, Home, described

GROUP = "stylize"


def unreadable_distributions() -> Iterator[str]:
    """One line for each installed distribution whose metadata cannot be read; its plugins, if it has any, are not
    loaded."""
    for each in distributions():
        try:
            metadata = each.metadata  # parsed at each access
            if not metadata["Name"]:
                raise ValueError("it has no name")
            _ = metadata["Version"], [*each.entry_points]
        except PLUGIN_ERRORS as error:
            yield f"{_place(each)}: unreadable metadata: {described(error)}"


def plugin_entries(problems: list[str]) -> Iterator[tuple[EntryPoint, Home]]:
    """The entry points of plugins, last on the path first. Of two distributions of one name, the first on the path
    counts. ``problems`` gets one line for each distribution with plugins whose metadata cannot be read."""
    seen: set[str] = set()
    for found in reversed([*distributions()]):
        if not _plugins_of(found):
            continue
        try:
            name = found.name
            if not name:
                raise ValueError("it has no name")
            first = distribution(name)
            home = Home(first.name, first.version)
            entries = [] if name in seen else [*_plugins_of(first)]
            seen.add(name)
        except PLUGIN_ERRORS as error:
            problems.append(f"the plugins in {_place(found)} left out: unreadable metadata: {described(error)}")
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
