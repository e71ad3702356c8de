"""The configuration file: YAML to settings, every fault named with its path, what was expected and a remedy.

Nothing else in the node reads YAML.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dicom_node.errors import SettingsInvalid
from dicom_node.settings import Settings, cross_faults

EMBEDDED = Path(__file__).parent / "embedded" / "default.yaml"


def load(path: Path | None) -> Settings:
    """The settings of a YAML file (None: the embedded defaults). Relative folders are taken from the file's folder.

    Raises SettingsInvalid with every fault at once.
    """
    source = path or EMBEDDED
    settings, faults = parse(_read(source), base=source.parent.resolve() if path else Path.cwd())
    if settings is None:
        raise SettingsInvalid(f"{source}: {len(faults)} fault(s)\n" + "\n".join(f"  {fault}" for fault in faults))
    return settings


def parse(text: str, *, base: Path) -> tuple[Settings | None, list[str]]:
    """Settings from YAML text, or all its faults, one sentence each."""
    try:
        # A subclass of the safe loader: it makes plain data only.
        raw = yaml.load(text, Loader=_Loader) or {}
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return None, [f"{where}not valid YAML: {getattr(fault, 'problem', None) or fault}"]
    if not isinstance(raw, dict):
        return None, [f"the file must be a mapping of settings, found {type(raw).__name__}"]
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as fault:
        return None, _sentences(fault.errors(include_url=False), raw)
    return _anchored(settings, base), []


class _Loader(yaml.SafeLoader):
    """YAML in which a key that is there twice is a fault, not a silent choice of the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def _sentences(errors: list[ErrorDetails], raw: dict[str, Any]) -> list[str]:
    """Every fault of the file: those of single settings, and those between settings, which need no valid rest."""
    broken = {error["loc"][:-1] for error in errors if error["loc"]}
    own = [
        _sentence(error)
        for error in errors
        # What follows from a fault inside, or is said below, is not said here.
        if error["loc"] and not (error["type"] == "too_short" and error["loc"] in broken)
    ]
    return [*own, *cross_faults(raw)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise SettingsInvalid(f"{path}: can't be read ({reason}): check the path") from fault
    except UnicodeDecodeError as fault:
        raise SettingsInvalid(f"{path}: not UTF-8 text (byte {fault.start}): save it as UTF-8") from fault


def _anchored(settings: Settings, base: Path) -> Settings:
    """Relative folders belong to the configuration file, not to wherever the process was started."""
    anchored = _at(settings, base)
    assert isinstance(anchored, Settings)
    return anchored


def _at(value: Any, base: Path) -> Any:
    """The value with every path in it, at any depth, taken from `base`."""
    if isinstance(value, Path):
        return base / value.expanduser()
    if isinstance(value, BaseModel):
        return value.model_copy(update={name: _at(getattr(value, name), base) for name in type(value).model_fields})
    if isinstance(value, dict):
        return {key: _at(item, base) for key, item in value.items()}
    return tuple(_at(item, base) for item in value) if isinstance(value, tuple) else value


def _sentence(error: ErrorDetails) -> str:
    """One fault as `path: what is wrong, what was expected`, with a suggestion for an unknown key."""
    location = [part for part in error["loc"] if part not in ("dimse", "folder", "dicomweb")]
    path = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _keys_at(error["loc"][:-1]), n=1, cutoff=0.6)
        known = ", ".join(_keys_at(error["loc"][:-1]))
        return f"{path}: unknown setting, " + (f"did you mean {near[0]}?" if near else f"known here: {known}")
    message = re.sub(r"^Value error, ", "", error["msg"])
    if not path:
        return message
    if error["type"] == "string_pattern_mismatch":
        message = {
            "ae_title": "expected 1 to 16 ASCII characters without backslash",
            "calling_ae": "expected 1 to 16 ASCII characters without backslash",
            "allowed_calling": "expected 1 to 16 ASCII characters without backslash",
            "timezone": "expected an offset like +0100 or -0500",
        }.get(next((str(p) for p in reversed(location) if not isinstance(p, int)), ""), message)
    found = "" if error["type"] in ("missing", "value_error") else f" (found {error['input']!r})"
    return f"{path}: {message[0].lower()}{message[1:]}{found}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The settings that exist at a path of the configuration."""
    model: Any = Settings
    for part in location:
        model = _inner(model, part)
        if model is None:
            return []
    return sorted(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _tag(section: type[BaseModel]) -> str | None:
    """The value of `kind` that asks for this section."""
    kind = section.model_fields.get("kind")
    return typing.get_args(kind.annotation)[0] if kind else None


def _inner(model: Any, part: int | str) -> Any:
    """One step down: a field of a section, an item of a list or dictionary, or an alternative of a union."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        found = model.model_fields.get(str(part))
        return found.annotation if found else None
    arguments = typing.get_args(model)
    if typing.get_origin(model) in (tuple, list):
        return arguments[0]
    if typing.get_origin(model) is dict:
        return arguments[1]
    if typing.get_origin(model) is Annotated:
        return _inner(arguments[0], part)
    if typing.get_origin(model) in (typing.Union, types.UnionType):
        kinds = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
        tagged = next((a for a in kinds if _tag(a) == part), None)
        # An optional section leaves no trace of its own in a path.
        return tagged or (_inner(kinds[0], part) if kinds else None)
    return None
