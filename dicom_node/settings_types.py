"""The types that settings are made of: names, numbers and texts with their bounds, and the base of every section."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

AeTitle = Annotated[str, StringConstraints(pattern=r"^[ -\[\]-~]{1,16}$", strip_whitespace=True)]
"""1 to 16 characters of the default repertoire without backslash. Source: PS3.5 6.2, VR AE."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$")]
Uid = Annotated[str, StringConstraints(pattern=r"^(0|[1-9]\d*)(\.(0|[1-9]\d*))+$", max_length=64)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Days = Annotated[float, Field(gt=0, le=36500)]
Offset = Annotated[str, StringConstraints(pattern=r"^[+-](0\d|1[0-4])[0-5]\d$")]


class Section(BaseModel):
    """A part of the configuration: frozen, and a key that it does not know is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True)
