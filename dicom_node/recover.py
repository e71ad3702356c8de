"""Tidy up after a crash: remove spooled files that no row names. Their senders were never told Success."""

from __future__ import annotations

import contextlib
import logging

from dicom_node.ledger import Ledger
from dicom_node.spool import Spool

log = logging.getLogger(__name__)

GRACE_S = 3600.0
"""A file younger than this may be on its way into the ledger right now, in another process."""


def recover(spool: Spool, ledger: Ledger, *, now: float) -> int:
    """Remove the spool's orphans; returns how many there were."""
    gone = 0
    for path in spool.unknown(ledger.known_paths()):
        with contextlib.suppress(FileNotFoundError):
            if now - spool.at(path).stat().st_mtime <= GRACE_S:
                continue
            spool.discard(path)
            log.info("removed %s: no row names it", path)
            gone += 1
    return gone
