"""What a lost process held is given back, and waits that a wrong clock has set are ended. Knows no process, only names.

It runs every few seconds beside the work: it looks at what is held and at the ends of indexes, never at a whole table.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from dicom_node.ledger.store import Store
from dicom_node.states import Batch, Delivery, Instance, Promise, State

log = logging.getLogger(__name__)

DEADLY: Mapping[type[State], int] = {Instance: 2, Batch: 5, Delivery: 5, Promise: 5}
"""So many processes that died over one thing are no accident any more. An image gets one more chance only: a report or
a sending is more often hit by what ended its process for another reason."""
DAY_S = 86400.0
"""A report on a commitment is waited for no longer than this, and no setting allows a longer wait for anything."""
SPARE_S = 60.0
"""A wait that is longer than it can be by less than this is left alone."""
AT_ONCE = 5000
"""Waits of one kind that one sweep ends, so that it is over soon."""

_HELD: tuple[State, ...] = (Instance.READING, Instance.CLAIMED, Batch.REPORTING, Delivery.SENDING, Promise.REPORTING)


def sweep(
    store: Store,
    alive: Callable[[str], bool],
    destinations: Callable[[], list[str]],
    callers: Callable[[], list[str]],
    *,
    longest_s: float,
    now: float,
) -> int:
    """See `Ledger.sweep`."""
    # A process is either alive or not for the whole sweep: asking costs a look at its lock.
    alive = cache(alive)
    with store.write("ledger.sweep") as db:
        freed = sum(_free(store, db, state, alive, now) for state in _HELD) + _end_associations(db, alive, now)
        ended = _end_waits(db, destinations(), callers(), longest_s, now)
    if ended:
        log.warning("%d waits ended that a clock had set that was ahead", ended)
    return freed


def _free(store: Store, db: sqlite3.Connection, state: State, alive: Callable[[str], bool], now: float) -> int:
    """Give back the claims whose lease ran out or whose owner is dead, whatever their lease says."""
    freed, table = 0, type(state).__name__.lower()
    query = f"SELECT id, owner, lease_until, deaths FROM {table} WHERE state = ?"
    for row in db.execute(query, (state.value,)).fetchall():
        if row["lease_until"] > now and alive(row["owner"]):
            continue
        deaths = row["deaths"] + int(not alive(row["owner"]))
        step = "park" if deaths >= DEADLY[type(state)] else "release"
        why = "its process is gone" if deaths > row["deaths"] else "the lease ran out"
        why += f" ({deaths} times, so it may be the cause)" if step == "park" else ""
        ended: dict[str, Any] = {"owner": None, "lease_until": None, "deaths": deaths, "note": why}
        store.step(db, row["id"], state, step, now=now, detail=why, columns=ended)
        freed += 1
    return freed


def _end_associations(db: sqlite3.Connection, alive: Callable[[str], bool], now: float) -> int:
    ended = 0
    # From name to name along the index of what is open: a DISTINCT would read every row of it.
    names = (
        "WITH RECURSIVE name (at) AS (VALUES ('') UNION ALL SELECT (SELECT min(listener) FROM association"
        " WHERE ended_at IS NULL AND listener > at) FROM name WHERE at IS NOT NULL) SELECT at FROM name WHERE at > ''"
    )
    for row in db.execute(names).fetchall():
        if not alive(row["at"]):
            query = "UPDATE association SET ended_at = ?, how = 'lost' WHERE ended_at IS NULL AND listener = ?"
            ended += db.execute(query, (now, row["at"])).rowcount
    return ended


def _end_waits(
    db: sqlite3.Connection, destinations: list[str], callers: list[str], longest_s: float, now: float
) -> int:
    """What is to be tried again further ahead than any setting asks for is due now."""
    longest_s += SPARE_S
    beyond: list[tuple[str, str, tuple[object, ...]]] = [
        ("instance", "state = ?", (Instance.RECEIVED.value, now + longest_s)),
        ("instance", "state = ?", (Instance.WAITING.value, now + longest_s)),
        # The others wait for an instance, and have tried nothing yet.
        ("batch", f"state = '{Batch.CLOSED.value}' AND undecided = 0", (now + longest_s,)),
    ]
    for name in destinations:
        for state, most_s in (
            (Delivery.PENDING, longest_s),
            (Delivery.STORED, longest_s),
            (Delivery.AWAITING, max(longest_s, DAY_S + SPARE_S)),
        ):
            beyond.append(("delivery", "state = ? AND destination = ?", (state.value, name, now + most_s)))
    for name in callers:
        beyond.append(("promise", "state = ? AND calling_ae = ?", (Promise.DECIDED.value, name, now + longest_s)))
    ended = 0
    for table, where, values in beyond:
        those = f"SELECT id FROM {table} WHERE {where} AND next_try > ? LIMIT ?"
        query = f"UPDATE {table} SET next_try = ? WHERE id IN ({those})"
        ended += db.execute(query, (now, *values, AT_ONCE)).rowcount
    return ended
