"""Archives that change their mood again and again for minutes: in the end each has everything once, unchanged."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from dicom_node.ledger import Ledger
from tests.integration.test_pacs_worst_day import _scenarios, _sender, _where
from tests.peers import wait_until
from tests.scripted_pacs import Mode, ScriptedPacs

SECONDS = float(os.environ.get("EVENRAY_SOAK_S", "300"))
DESTINATIONS, OBJECTS = 6, 400
SEED = 20260131


def test_moods_that_change_for_minutes_lose_and_change_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    moods = [one.mode for one in _scenarios().values() if one.mode and one.meanwhile != "parked"]
    archives = {f"pacs-{n}": ScriptedPacs() for n in range(DESTINATIONS)}
    where = {name: _where(one.port, commitment=n % 2 == 0) for n, (name, one) in enumerate(archives.items())}
    try:
        with _sender(tmp_path, **where) as sender:
            uids: list[str] = []
            end = time.monotonic() + SECONDS
            with sender.running():
                while time.monotonic() < end:
                    for one in archives.values():
                        one.mode = chance.choice(moods)
                    if len(uids) < OBJECTS:
                        uids += sender.queue(tmp_path, 20, *archives, start=len(uids) + 1)
                    # A mood lasts until time is up: nothing is waited for but that.
                    archives["pacs-0"].wait(chance.uniform(0.5, 4))
                for one in archives.values():
                    one.mode = Mode()
                    one.drop()
                wait_until(_settled(sender.ledger, len(uids)), 300, "all is delivered or parked")
                sender.retry_all()
                wait_until(
                    lambda: all(
                        states == {"delivered": len(uids)} for states in sender.ledger.deliveries.counts().values()
                    ),
                    300,
                    "all is delivered everywhere",
                )
            for one in archives.values():
                assert {uid: set(copies) for uid, copies in one.stored.items()} == {
                    uid: {sender.digests[uid]} for uid in uids
                }
                assert len(one.connected_at) < 20 * SECONDS
    finally:
        for one in archives.values():
            one.stop()


def _settled(ledger: Ledger, count: int) -> Callable[[], bool]:
    def settled() -> bool:
        found = ledger.deliveries.counts().values()
        return all(states.get("delivered", 0) + states.get("parked", 0) == count for states in found)

    return settled
