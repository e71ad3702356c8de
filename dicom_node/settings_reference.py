"""Every setting with its default and meaning, read off the settings themselves. Knows no file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dicom_node.settings import Dimse, Folder, Route, Settings

# Lists and dictionaries of sections have no default to walk: these stand for one entry of each.
_ENTRIES: dict[str, tuple[tuple[str, type[BaseModel]], ...]] = {
    "destinations": (("destinations.NAME (dimse)", Dimse), ("destinations.NAME (folder)", Folder)),
    "routes": (("routes.N", Route),),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting."""

    path: str
    default: str
    meaning: str


def entries() -> list[Entry]:
    """All settings in the order of the configuration file."""
    return list(_of(Settings, ""))


def markdown() -> str:
    """The table of the README."""
    rows = [f"| `{e.path}` | {f'`{e.default}`' if e.default else 'needed'} | {e.meaning} |" for e in entries()]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def _of(section: type[BaseModel], prefix: str, given: BaseModel | None = None) -> Iterator[Entry]:
    """The settings of one section; `given` holds the defaults where the section stands inside another one."""
    for name, field in section.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        if not prefix and name in _ENTRIES:
            for entry_path, inner in _ENTRIES[name]:
                yield from _of(inner, entry_path)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _of(field.annotation, path, getattr(given, name) if given else field.default)
        else:
            default = getattr(given, name) if given else field.default
            stated = "" if default is PydanticUndefined else _text(default)
            yield Entry(path, stated, " ".join((field.description or "").split()))


def _text(value: Any) -> str:
    """As it is written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value) if value != "" else '""'
