"""Records of results that cannot carry one themselves, such as clips: in hidden files beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylize import Saved, atomic_write


def note(target: Path, record: Mapping[str, Any]) -> None:
    """Write beside a result how it was made."""
    status = target.stat()
    text = json.dumps({"record": record, "size": status.st_size, "time": status.st_mtime_ns})
    with atomic_write(_note(target)) as file:
        file.write_text(text, encoding="utf-8")


def noted(target: Path) -> Mapping[str, Any] | None:
    """The record of a result that is as it was written."""
    return _read(target).get("record") if noted_state(target) is None else None


def noted_state(target: Path) -> Saved | None:
    """Why a file must not be painted over, if it must not."""
    found = _read(target)
    if not isinstance(found.get("record"), dict):
        return Saved.FOREIGN
    status = target.stat()
    return None if (found.get("size"), found.get("time")) == (status.st_size, status.st_mtime_ns) else Saved.RETOUCHED


def _note(target: Path) -> Path:
    return target.with_name(f".{target.name}.json")


def _read(target: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_note(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
