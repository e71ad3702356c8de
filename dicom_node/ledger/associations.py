"""Associations in the ledger: when each was opened and how it ended. Knows no network and no instance."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class Opened:
    """One association, as its listener knows it."""

    ref: str
    listener: str
    calling_ae: str
    called_ae: str
    at: float
    address: str = ""
    """Where it came from."""


def add_associations(db: sqlite3.Connection, opened: Sequence[Opened]) -> None:
    """Record associations inside a running transaction. A repeat adds nothing."""
    if opened:
        db.executemany(
            "INSERT INTO association (id, listener, calling_ae, called_ae, opened_at, address)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
            map(astuple, opened),
        )
