"""A check of ``stylize doctor``, and the checks that several plugins need: whether a package is installed and works."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Check:
    """One line: ``state`` is ok, note (something optional is missing) or fail; ``advice`` is what to do."""

    state: str
    name: str
    found: str
    advice: str = ""


def package_check(*names: str) -> Check:
    """Whether a distribution is installed, or one of those that may stand in for it; fail if none is."""
    for name in names:
        try:
            return Check("ok", _short_name(name), version(name))
        except PackageNotFoundError:
            continue
        except Exception as error:  # its metadata cannot be read
            return Check("fail", _short_name(name), f"unreadable metadata: {error}", f"pip install --force {names[0]}")
    return Check("fail", _short_name(names[0]), "not installed", f"pip install {names[0]}")


def module_checks(*names: str, purpose: str) -> list[Check]:
    """A failure for each module that is installed and cannot be imported; ``purpose`` is what needs it, such as
    "clips"."""
    found = []
    for name in names:
        try:
            import_module(name)
        except (ImportError, OSError) as error:  # OSError: a broken shared library
            if isinstance(error, ModuleNotFoundError) and error.name == name:
                continue  # not installed, which package_check reports
            found.append(Check("fail", name, f"cannot be imported: {error}", f"reinstall {name}; {purpose} need it"))
    return found


def _short_name(package: str) -> str:
    return package.removesuffix("-headless").removesuffix("-python" if package.startswith("opencv") else "")
