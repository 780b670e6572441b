"""Entry points of all installed packages, by group and name."""

import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from vpxrc.errors import InputError


def plugin_names(group: str) -> list[str]:
    """Return the names of a group's entry points, sorted."""
    return sorted(entry.name for entry in entry_points(group=group))


def find_plugin(group: str, name: str, kind: str) -> EntryPoint:
    """Return an entry point.

    Args:
        group: Its group.
        name: Its name.
        kind: A word for what the group has, for the message of an error.

    Raises:
        InputError: There is no such entry point.
    """
    found = _first(group, name, tuple(sys.path))
    if found is None:
        _first.cache_clear()  # its package may be installed later
        names = ", ".join(plugin_names(group))
        raise InputError(f"unknown {kind} {name!r}: choose from {names}")
    return found


@lru_cache
def _first(group: str, name: str, path: tuple[str, ...]) -> EntryPoint | None:
    """Return the first entry point of a name on an import path.

    It is kept, since an environment asks at every step: to look through the packages of an ordinary
    installation takes longer than to code a small frame.
    """
    return next(iter(entry_points(group=group, name=name)), None)
