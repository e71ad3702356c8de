"""Every setting with its default and meaning, read off the settings themselves. Knows no file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dicom_node.settings import DicomWeb, Dimse, Folder, Peer, QueryRetrieve, Route, Settings
from dicom_node.settings_peers import TlsClient

# Lists and dictionaries of sections have no default to walk: these stand for one entry of each.
_ENTRIES: dict[str, tuple[tuple[str, type[BaseModel]], ...]] = {
    "destinations": (
        ("destinations.NAME (dimse)", Dimse),
        ("destinations.NAME (dicomweb)", DicomWeb),
        ("destinations.NAME (folder)", Folder),
    ),
    "sources": (("sources.NAME (dimse)", QueryRetrieve), ("sources.NAME (dicomweb)", DicomWeb)),
    "listen.peers": (("listen.peers.NAME", Peer),),
    "routes": (("routes.N", Route),),
}
# The same section in many places is listed once.
_SHARED = {TlsClient: "(towards a peer).tls"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting."""

    path: str
    default: str
    meaning: str


def entries() -> list[Entry]:
    """All settings in the order of the configuration file."""
    shared = [entry for section, path in _SHARED.items() for entry in _of(section, path)]
    return [*_of(Settings, ""), *shared]


def markdown() -> str:
    """The table of the README."""
    rows = [f"| `{e.path}` | {f'`{e.default}`' if e.default else 'needed'} | {e.meaning} |" for e in entries()]
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])


def _of(section: type[BaseModel], prefix: str, given: BaseModel | None = None) -> Iterator[Entry]:
    """The settings of one section; `given` holds the defaults where the section stands inside another one."""
    for name, field in section.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        default = getattr(given, name) if given else field.default
        if path in _ENTRIES:
            for entry_path, inner in _ENTRIES[path]:
                yield from _of(inner, entry_path)
            continue
        inside = next((a for a in (field.annotation, *get_args(field.annotation)) if _is_section(a)), None)
        if inside is None or inside in _SHARED or default is None:
            stated = "" if default is PydanticUndefined else _text(default)
            yield Entry(path, stated, " ".join((field.description or "").split()))
        if inside is not None and inside not in _SHARED:
            yield from _of(inside, path, default)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _text(value: Any) -> str:
    """As it is written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, BaseModel):
        return "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value) if value != "" else '""'
