"""One play of a node with faults: its processes as forks that are started again when they die, its PACS, and the end.

Knows no scenario. What must hold at every end is checked here, whatever was played.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.association import Association

from dicom_node.child import HOPELESS
from dicom_node.demo.archive import Archive
from dicom_node.ledger import BORN
from dicom_node.status import StoreStatus
from dicom_node.supervise import ROLES
from tests.node import NEVER_S, PACS, Node, contents, data_set, node, to_archive, uid_of
from tests.peers import LOOPBACK, free_port, listening
from tests.soak.forks import Nursery

OPEN = {"quiet_s": NEVER_S, "quiet_after_release_s": NEVER_S, "cap_s": 2 * NEVER_S}
SETTLE_S = 90.0
QUIET = {"quiet_s": 0.3, "quiet_after_release_s": 0.3}
UNDECIDED = "SELECT count(*) FROM instance WHERE state IN ('received', 'reading', 'waiting', 'claimed')"
AGE_S = 2 * 3600.0
"""Older than anything that may still be on its way into the ledger."""


class Pacs(Archive):
    """The embedded archive, which can refuse what it is sent and hold back its commitment reports."""

    def __init__(self, folder: Path, node_port: int, **options: Any) -> None:
        self.refuses: dict[str, int] = {}
        self.denies = False
        """It says of everything asked for that it does not have it."""
        self.answering = threading.Event()
        self.answering.set()
        peers = {"EVENRAY": (LOOPBACK, node_port)}
        super().__init__(folder, PACS, LOOPBACK, free_port(), peers=peers, answer=self._status, **options)

    def _status(self, uid: str) -> int:
        return self.refuses.get(uid, self.refuses.get("*", StoreStatus.SUCCESS))

    def _judge(self, request: Dataset) -> Dataset:
        if not self.denies:
            return super()._judge(request)
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        items = list(request.ReferencedSOPSequence)
        for item in items:
            item.FailureReason = 0x0112
        report.FailedSOPSequence = items
        return report

    def _report(self, requested_on: Association, answered: threading.Event, report: Dataset) -> None:
        self.answering.wait(SETTLE_S)
        super()._report(requested_on, answered, report)


@dataclass(frozen=True, slots=True)
class Ending:
    """What is left of a play: equal for every play of one scenario, with or without a fault."""

    objects: Mapping[str, bytes]
    results: Sequence[str]
    states: Mapping[str, Mapping[str, int]]


class Stage:
    """A node whose processes are forks. Those that die while they are wanted are started again at once."""

    def __init__(self, made: Node, pacs: Pacs, nursery: Nursery, environment: Mapping[str, str]) -> None:
        self.node = made
        self.pacs = pacs
        self.deaths: list[tuple[str, int]] = []
        self._nursery = nursery
        self._environment = environment
        self._wanted: dict[str, int] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._tender = threading.Thread(target=self._tend, daemon=True)
        self._tender.start()

    def up(self, *roles: str) -> None:
        for role in roles or ROLES:
            with self._lock:
                self._wanted[role] = self._start(role)
        if "listen" in self._wanted:
            self.node.wait(lambda: listening(self.node.port), SETTLE_S, "the node listens")

    def down(self, *roles: str) -> None:
        with self._lock:
            ending = {role: self._wanted.pop(role) for role in roles or tuple(self._wanted)}
        for pid in ending.values():
            if self._nursery.code(pid) is None:
                os.kill(pid, signal.SIGTERM)
        for role, pid in ending.items():
            code = self._nursery.wait(pid, 60)
            assert code is not None, f"{role} did not end"
            if code:
                self.deaths.append((role, code))

    def again(self, *roles: str) -> None:
        """New processes, which read the configuration as it is now."""
        self.down(*roles)
        self.up(*roles)

    def command(self, *arguments: str) -> int:
        """A command of `evenray`; run again when it is killed. Its exit code."""
        while True:
            pid = self._nursery.start([*arguments, *self._config()], self._log(), environment=self._environment)
            code = self._nursery.wait(pid, 60)
            assert code is not None
            if code != -signal.SIGKILL:
                return code
            self.deaths.append((arguments[0], code))

    def decided(self) -> None:
        self.node.wait(lambda: self.node.one(UNDECIDED) == 0, SETTLE_S, "every image is decided")

    def quiet(self) -> None:
        """Let the batches end."""
        self.decided()
        self.node.configure(assembly=QUIET)
        self.again("work")
        self.node.wait_settled(SETTLE_S)

    def reaches(self, kind: str, *states: str, count: int = 1) -> None:
        """Wait until so many rows are in one of these states."""
        query = f"SELECT count(*) FROM {kind} WHERE state IN ({', '.join('?' * len(states))})"
        what = f"{count} rows of {kind} are {' or '.join(states)}"
        self.node.wait(lambda: self.node.one(query, *states) >= count, SETTLE_S, what)

    def close(self) -> None:
        self._over.set()
        self._tender.join(60)
        with self._lock:
            left, self._wanted = list(self._wanted.values()), {}
        for pid in left:
            if self._nursery.code(pid) is None:
                os.kill(pid, signal.SIGKILL)
                self._nursery.wait(pid, 30)

    def _tend(self) -> None:
        while not self._over.wait(0.02):
            with self._lock:
                for role, pid in list(self._wanted.items()):
                    code = self._nursery.code(pid)
                    if code is None:
                        continue
                    self.deaths.append((role, code))
                    if code == HOPELESS:
                        # It says why in the log; to start it again makes no sense.
                        del self._wanted[role]
                    else:
                        self._wanted[role] = self._start(role)

    def _start(self, role: str) -> int:
        words, port = ["serve", role, "--supervised"], 0
        if role == "listen":
            words, port = [*words, "--socket", "{socket}", "--receiver", "0", "--receivers", "1"], self.node.port
        return self._nursery.start([*words, *self._config()], self._log(), port=port, environment=self._environment)

    def _config(self) -> list[str]:
        return ["--config", str(self.node.config)]

    def _log(self) -> Path:
        return self.node.folder / "node.log"


@contextmanager
def stage(
    folder: Path, nursery: Nursery, *, faults: str = "", commitment: bool = True, same: bool = False, **sections: Any
) -> Iterator[Stage]:
    """A node that is not started yet, and its PACS. `faults` as `dicom_node.steps` takes them."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    pacs = Pacs(folder / "pacs", port, report_on="same" if same else "new")
    pacs.start()
    environment = {}
    if faults:
        (folder / "marks").mkdir()
        environment = {"EVENRAY_FAULT": faults, "EVENRAY_FAULT_MARKS": str(folder / "marks")}
    where = to_archive(pacs.port, commitment=commitment, commitment_timeout_s=2)
    settings = {"assembly": OPEN, "work": {"lease_s": 0.5, "retry": {"attempts": 100, "first_s": 0.2}}, **sections}
    with node(folder, where, port=port, start=False, **settings) as made:
        played = Stage(made, pacs, nursery, environment)
        try:
            yield played
        finally:
            played.close()
            pacs.answering.set()
            pacs.stop()


def ending(played: Stage, acknowledged: Sequence[Path]) -> Ending:
    """Let the node tidy up, check what holds at every end, and say what is left."""
    made = played.node
    played.down()
    unknown = _unknown(made)
    for path in unknown:
        os.utime(path, times=(time.time() - AGE_S,) * 2)
    with made.ledger() as ledger:
        # Else it would be older than the ledger, and kept as what an earlier ledger may have known.
        ledger.upkeep.set_mark(BORN, 0.0)
    played.up()
    made.wait(lambda: not _unknown(made), 60, f"no orphan is left of {unknown}")
    played.down()
    nothing_is_lost(made, acknowledged)
    history_is_whole(made)
    rows = made.rows("SELECT destination, object, count(*) AS n FROM delivery GROUP BY 1, 2 HAVING n > 1")
    assert rows == [], "an object goes to a destination once"
    states = made.counts()
    # A sender that got no answer sends again: that leaves a row, and nothing else.
    states["instance"].pop("duplicate", None)
    return Ending(contents(played.pacs), made.results(), states)


def nothing_is_lost(made: Node, acknowledged: Sequence[Path]) -> None:
    """Every acknowledged file has a row and lies in the spool byte for byte."""
    for path in acknowledged:
        query = "SELECT path, state FROM instance WHERE sop_instance_uid = ? AND state <> 'duplicate'"
        rows = made.rows(query, uid_of(path))
        assert rows, f"{path.name} was acknowledged and has no row"
        if {row["state"] for row in rows} == {"expired"}:
            # It has left after its receipts: the archive has it, which is compared with the undisturbed play.
            continue
        kept = [made.spool / row["path"] for row in rows]
        assert data_set(path) in [data_set(one) for one in kept if one.exists()], f"{path.name} is not there as sent"


def history_is_whole(made: Node) -> None:
    """The ledger is sound, and every row is where its history says, by an unbroken chain of steps."""
    assert made.one("PRAGMA integrity_check") == "ok"
    for kind in ("instance", "batch", "delivery"):
        at: dict[int, str | None] = {}
        for row in made.rows("SELECT ref, before, step, after FROM history WHERE what = ? ORDER BY id", kind):
            assert row["before"] == at.get(row["ref"]), f"{kind} {row['ref']}: {row['step']} from {row['before']}"
            at[row["ref"]] = row["after"]
        assert at == {row["id"]: row["state"] for row in made.rows(f"SELECT id, state FROM {kind}")}


def _unknown(made: Node) -> list[Path]:
    """Files of the spool that no row names, partial ones included."""
    query = "SELECT path FROM instance WHERE state <> 'duplicate' UNION SELECT path FROM object"
    known = {made.spool / row["path"] for row in made.rows(query)}
    return [path for path in made.spooled() if path not in known]


Play = Callable[[Stage, Path], Sequence[Path]]
"""Plays on a stage with a folder for what it sends; returns the files whose acknowledgement counts."""
