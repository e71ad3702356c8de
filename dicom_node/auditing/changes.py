"""What has no history: settings that changed, another ledger, damaged files, lost messages, and what was told of them.

Knows no study and no patient.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicom_node import VERSION
from dicom_node.audit_trail import messages
from dicom_node.audit_trail.messages import Code, Message, Origin, Result
from dicom_node.audit_trail.notes import PRIVATE_FILE
from dicom_node.durable import write_durably
from dicom_node.ledger import Ledger
from dicom_node.settings import Settings

MOST_NAMED = 20
"""Damaged files that one alert names."""
# What of the settings decides who may do what, and with whom the node talks; the rest is the software's.
SECURITY = ("tls", "peers", "known_only", "allowed_calling", "check_called_ae", "max_associations_per_host")
NETWORK = ("listen", "destinations", "sources", "health", "audit")
CONFIGURATIONS = {
    "security": messages.SECURITY_CONFIGURATION,
    "network": messages.NETWORK_CONFIGURATION,
    "software": messages.SOFTWARE_CONFIGURATION,
}


def facts(settings: Settings, ledger: Ledger, *, head: int, lost: int) -> dict[str, Any]:
    """What is so now. `head`: the last row of history; `lost`: messages that left the spool undelivered."""
    return {
        "head": head,
        "node": ledger.upkeep.node(),
        "settings": digests(settings),
        "damaged": sorted(row["path"] for row in ledger.upkeep.damaged()),
        "lost": lost,
    }


def alerts(origin: Origin, known: Mapping[str, Any], now_so: Mapping[str, Any], *, at: float) -> list[Message]:
    """One message for each way in which what is so now differs from what was told last ({}: nothing yet)."""

    def alert(kind: Code, sentence: str, result: Result = Result.SUCCESS, about: tuple[str, ...] = ()) -> None:
        found.append(messages.alert(origin, kind, sentence, at=at, result=result, about=about))

    found: list[Message] = []
    if known:
        # History only grows: one that is shorter is another file.
        if known["head"] > now_so["head"] or known["node"] != now_so["node"]:
            alert(messages.LEDGER_REPLACED, "the ledger is an older one than before, or another: a backup was restored")
        for name, code in CONFIGURATIONS.items():
            if known["settings"].get(name) != now_so["settings"][name]:
                what = "the settings or the program have" if name == "software" else f"the {name} settings have"
                alert(code, f"{what} changed since the last start")
        if now_so["lost"] > known["lost"]:
            sentence = f"{now_so['lost'] - known['lost']} audit messages left undelivered: audit.spool_mib was reached"
            alert(messages.RECORDING_STOPPED, sentence, Result.SERIOUS)
    if damaged := sorted(set(now_so["damaged"]) - set(known.get("damaged", ()))):
        uris = tuple(f"evenray-spool:{path}" for path in damaged[:MOST_NAMED])
        alert(messages.FILE_DAMAGED, f"{len(damaged)} files of the spool are damaged or gone", Result.MINOR, uris)
    return found


def digests(settings: Settings) -> dict[str, str]:
    """SHA-256 over each part of the settings that a change of is told, and over the program's version."""
    whole = settings.model_dump(mode="json", exclude={"state_dir", "banks_dir"})
    listen = whole["listen"]
    security = {name: listen.pop(name) for name in SECURITY}
    security |= {name: [one.pop("tls", None) for one in whole[name].values()] for name in ("destinations", "sources")}
    security["audit"] = whole["audit"].pop("tls")
    network = {name: whole.pop(name) for name in NETWORK}
    parts = {"security": security, "network": network, "software": {"version": VERSION, **whole}}
    return {name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest() for name, part in parts.items()}


class Known:
    """What was told of things that have no history, in a file for the node alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.facts: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text())
            if {"head", "node", "settings", "damaged", "lost"} <= found.keys():
                self.facts = found

    def update(self, now_so: dict[str, Any]) -> None:
        if now_so != self.facts:
            write_durably(self._path, json.dumps(now_so).encode(), mode=PRIVATE_FILE)
            self.facts = now_so
