"""The address of a DICOM peer as people write it: AE@host:port. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dicom_node.errors import BadInput

_PATTERN = re.compile(r"(?P<ae>[^@\\]{1,16})@(?P<host>\[[0-9a-fA-F:]+\]|[^:@\s]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """An application entity and where it listens."""

    ae_title: str
    host: str
    port: int


def parse(text: str) -> Address:
    """Raises BadInput when the text is no AE@host:port."""
    found = _PATTERN.fullmatch(text.strip())
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise BadInput(f"{text!r} is no address: write AE@host:port, for example EVENRAY@127.0.0.1:11112")
    return Address(found["ae"].strip(), found["host"].strip("[]"), int(found["port"]))
