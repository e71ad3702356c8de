"""A node's state as months of work leave it: a filled ledger and a spool with a file for every row that has one.

Made through the ledger's own steps, so that it is what a node would have written; only many to a transaction.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.header import dataset_digest, read_header
from dicom_node.ledger import InstanceRow, Ledger, NewObject
from dicom_node.process import Processor
from dicom_node.records import Arrival, Decision, Header, ResultKind
from dicom_node.settings import Settings
from tests import dicom_files
from tests import node as nodes

SEED = 7
DAY_S = 86400.0
LEASE_S = 600.0
OF_BATCH = 9
"""Images of a reported batch."""
TOGETHER = 50
"""Batches that one transaction of the filling holds."""
TO, OWNER = "pacs", "work-bench"
CAPTURED = 3
"""Every so many-th image was changed."""
ROOT_UID = "1.2.826.0.1.3680043.8.498.79"
PENDING = 0.05
"""Share of the reported batches whose deliveries still wait: the archive has been down lately."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much a ledger holds."""

    reported: int
    """Instances that are done with."""
    waiting: int
    """Instances that wait for the engine, each in a batch of its own; every other batch is closed already."""
    decided: int = 20
    """Instances that are decided, each in a closed batch that waits for its report."""
    crashed: int = 20
    """Instances that a process held which is dead by now."""

    @property
    def instances(self) -> int:
        return self.reported + self.waiting + self.decided + self.crashed


@dataclass(frozen=True, slots=True)
class Template:
    """One radiograph with what the engine really decided about it: every row is made after it."""

    content: bytes
    header: Header
    digest: str
    decision: Decision


def template(folder: Path) -> Template:
    """A tiny radiograph for the spool; its decision is of one that the engine takes."""
    settings = Settings.model_validate({"state_dir": folder / "none", "routes": [{"name": "radiographs"}]})
    folder.mkdir(parents=True)
    tiny = dicom_files.write(folder / "tiny.dcm", dicom_files.dataset("CR"))
    whole = nodes.radiograph(folder, f"{ROOT_UID}.2", study=ROOT_UID, size=256)
    digest, header = dataset_digest(whole), read_header(whole)
    decision, _ = Processor(settings).decide(whole, header, calling_ae="MODALITY", source_digest=digest)
    return Template(tiny.read_bytes(), read_header(tiny), dataset_digest(tiny), decision)


class Filling:
    """Fills one state directory."""

    def __init__(self, state: Path, like: Template, *, now: float) -> None:
        self.ledger = Ledger(state / "ledger.sqlite")
        self._spool = state / "spool"
        self._like = like
        self._now = now
        self._random = random.Random(SEED)
        self._studies = 0
        for kind in ("originals", "results"):
            for shard in range(256):
                (self._spool / kind / f"{shard:02x}").mkdir(parents=True, exist_ok=True)

    def fill(self, size: Size) -> None:
        """Everything, oldest first."""
        batches = max(1, size.reported // OF_BATCH) if size.reported else 0
        late = int(batches * (1 - PENDING))
        for first in range(0, batches, TOGETHER):
            with in_bulk(self.ledger):
                for n in range(first, min(first + TOGETHER, batches)):
                    self._reported(self._now - DAY_S * (2 + 60 * (batches - n) / batches))
                if first + TOGETHER <= late:
                    self._deliver()
        for first in range(0, size.decided + size.waiting, 10 * TOGETHER):
            with in_bulk(self.ledger):
                for n in range(first, min(first + 10 * TOGETHER, size.decided + size.waiting)):
                    self._waiting(decided=n < size.decided, closed=n % 2 == 0 or n < size.decided)
        with in_bulk(self.ledger):
            for _ in range(size.crashed):
                self._waiting(decided=False, closed=False)
                self.ledger.instances.claim("work-dead", now=self._now, lease_s=LEASE_S)
        self.ledger.checkpoint()

    def _admitted(self, count: int, at: float) -> list[InstanceRow]:
        """Instances of a new study that one association brought: received, looked at, waiting."""
        self._studies += 1
        study = f"{ROOT_UID}.{self._studies}"
        association = uuid.UUID(int=self._random.getrandbits(128)).hex
        self.ledger.association_opened(association, "receive-dead", "MODALITY", "EVENRAY", now=at)
        arrivals = [
            Arrival(
                sop_class_uid=self._like.header.sop_class_uid,
                sop_instance_uid=f"{study}.{n + 1}",
                transfer_syntax_uid=self._like.header.transfer_syntax_uid,
                calling_ae="MODALITY",
                called_ae="EVENRAY",
                association=association,
                path=self._file("originals"),
                size=len(self._like.content),
            )
            for n in range(count)
        ]
        refs = self.ledger.instances.arrive_all(arrivals, now=at)
        self.ledger.association_ended(association, "released", now=at)
        for _ in arrivals:
            row = self.ledger.instances.read(OWNER, now=self._now, lease_s=LEASE_S)
            assert row
            header = replace(self._like.header, sop_instance_uid=row.sop_instance_uid, study_instance_uid=study)
            self.ledger.instances.admit(row, header, self._like.digest, forward_to=[TO], now=at)
        return [row for ref in refs if (row := self.ledger.instances.get(ref))]

    def _waiting(self, *, decided: bool, closed: bool) -> None:
        """A batch of one image, still open or closed; decided or waiting for the engine."""
        # Still open: so young that no rule closes it.
        at = self._now - (DAY_S / 2 if closed else 0.0)
        (row,) = self._admitted(1, at)
        if decided:
            self._decide(at, captured=False)
        if closed:
            self._close(row, at)

    def _reported(self, at: float) -> None:
        """A batch from its first image to its report."""
        rows = self._admitted(OF_BATCH, at)
        for n in range(OF_BATCH):
            self._decide(at, captured=n % CAPTURED == 0)
        self._close(rows[0], at)
        batch = self.ledger.batches.claim(OWNER, now=self._now, lease_s=LEASE_S)
        assert batch
        assert batch.id == rows[0].batch
        report = self._object(ResultKind.STRUCTURED_REPORT, "1.2.840.10008.5.1.4.1.1.88.33")
        self.ledger.batches.report(batch, [row.id for row in rows], report, now=at)

    def _decide(self, at: float, *, captured: bool) -> None:
        row = self.ledger.instances.claim(OWNER, now=self._now, lease_s=LEASE_S)
        assert row
        made = [self._object(ResultKind.SECONDARY_CAPTURE, "1.2.840.10008.5.1.4.1.1.7")] if captured else []
        self.ledger.instances.decide(row, self._like.decision, made, now=at)

    def _close(self, row: InstanceRow, at: float) -> None:
        batch = self.ledger.batches.get(row.batch or 0)
        assert batch
        self.ledger.batches.close(batch, "quiet for 20.0 s", now=at)

    def _deliver(self) -> None:
        """Everything that is to be sent arrives."""
        while rows := self.ledger.deliveries.claim(TO, OWNER, now=self._now, lease_s=LEASE_S, limit=500):
            for row in rows:
                self.ledger.deliveries.stored(row, 0, "stored", commitment=False, now=self._now)

    def _object(self, kind: ResultKind, sop_class_uid: str) -> NewObject:
        uid = f"2.25.{self._random.getrandbits(120)}"
        return NewObject(kind, sop_class_uid, uid, self._file("results"), [TO])

    def _file(self, kind: str) -> str:
        name = f"{self._random.getrandbits(128):032x}"
        path = f"{kind}/{name[:2]}/{name}.dcm"
        (self._spool / path).write_bytes(self._like.content)
        return path


@contextmanager
def in_bulk(ledger: Ledger) -> Iterator[None]:
    """One transaction around many steps of the ledger; a commit for each would take hours of syncing."""
    store = ledger._store
    with store.write() as db:

        @contextmanager
        def joined(_touched: str = "") -> Iterator[object]:
            yield db

        store.write = joined  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            del store.write
