"""A node's spool and ledger without its processes: every step is taken by hand, at a time that the test says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node.admit import admit
from dicom_node.durable import write_durably
from dicom_node.header import content_digest
from dicom_node.incoming import final
from dicom_node.ledger import InstanceRow, Ledger, NewObject
from dicom_node.records import Arrival, Decision, Outcome, ResultKind
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance
from tests import dicom_files

DAY = 86400.0
SYNTAX = "1.2.840.10008.1.2.1"


@dataclass
class House:
    """One state directory."""

    state: Path
    settings: Settings
    spool: Spool
    ledger: Ledger

    def receive(self, dataset: Dataset, *, now: float = 0) -> InstanceRow:
        """As a receiver does it, but for the socket."""
        path = final(uuid.uuid4().hex)
        self.spool.at(path).parent.mkdir(exist_ok=True)
        write_durably(self.spool.at(path), dicom_files.content(dataset, SYNTAX))
        arrival = Arrival(
            sop_class_uid=dataset.SOPClassUID,
            sop_instance_uid=dataset.SOPInstanceUID,
            transfer_syntax_uid=SYNTAX,
            calling_ae="MODALITY",
            called_ae="EVENRAY",
            association="a",
            path=path,
            size=self.spool.at(path).stat().st_size,
        )
        return self.row(self.ledger.instances.arrive_all([arrival], now=now)[0])

    def take(self, dataset: Dataset, *, now: float = 0) -> InstanceRow:
        """Receive it and look at it for the first time."""
        self.receive(dataset, now=now)
        return self.look(now=now)

    def look(self, *, now: float = 0) -> InstanceRow:
        """Look at the oldest that nobody has looked at."""
        row = self.ledger.instances.read("worker", now=now, lease_s=10)
        assert row is not None
        admit(row, ledger=self.ledger, spool=self.spool, settings=self.settings, banks={}, clock=lambda: now)
        return self.row(row.id)

    def work(self, to: Sequence[str], *, now: float = 0) -> None:
        """Decide about all that waits, each with one result, and report every batch."""
        while row := self.ledger.instances.claim("worker", now=now, lease_s=10):
            result = self._result("SC", f"{row.sop_instance_uid}.7", ResultKind.SECONDARY_CAPTURE, to)
            decision = Decision(outcome=Outcome.HARMONIZED, reason="test")
            self.ledger.instances.decide(row, decision, [result], now=now)
        for batch, _ in self.ledger.batches.open():
            self.ledger.batches.close(batch, "test", now=now)
        while batch_ := self.ledger.batches.claim("worker", now=now, lease_s=10):
            named = [i.id for i in self.ledger.instances.of_batch(batch_.id) if i.state is Instance.DECIDED]
            report = self._result(
                "SC", f"{batch_.study_instance_uid}.8.{batch_.number}", ResultKind.STRUCTURED_REPORT, to
            )
            self.ledger.batches.report(batch_, named, report, now=now)

    def deliver(self, name: str = "pacs", *, limit: int = 100, now: float = 0) -> int:
        """The destination takes what waits for it; how many objects."""
        rows = self.ledger.deliveries.claim(name, "sender", now=now, lease_s=10, limit=limit)
        for row in rows:
            self.ledger.deliveries.stored(row, 0, "stored", commitment=False, now=now)
        return len(rows)

    def delivered(self, *datasets: Dataset, now: float = 0) -> list[InstanceRow]:
        """Everything of these objects has its receipt."""
        rows = [self.take(dataset, now=now) for dataset in datasets]
        self.work(["pacs"], now=now)
        self.deliver(now=now)
        return [self.row(row.id) for row in rows]

    def row(self, ref: int) -> InstanceRow:
        row = self.ledger.instances.get(ref)
        assert row is not None
        return row

    def there(self) -> set[str]:
        """What is in the spool."""
        files = (p for kind in ("originals", "results") for p in (self.spool.root / kind).rglob("*") if p.is_file())
        return {path.relative_to(self.spool.root).as_posix() for path in files}

    def rot(self, path: str) -> None:
        """Change some bytes of a file, as a disk does: neither its size nor its time says so."""
        file = self.spool.at(path)
        content = bytearray(file.read_bytes())
        content[-9] ^= 0x10
        file.write_bytes(content)

    def _result(self, kind: str, uid: str, result: ResultKind, to: Sequence[str]) -> NewObject:
        made = dicom_files.dataset(kind, instance=uid)
        content = dicom_files.content(made, SYNTAX)
        path = self.spool.write_result(uid, content, named=self.ledger.names)
        return NewObject(result, made.SOPClassUID, uid, path, to, content_digest(content))


@contextmanager
def house(state: Path, **sections: object) -> Iterator[House]:
    """A state directory whose images are forwarded to `pacs`, unless `sections` say otherwise."""
    settings = Settings.model_validate(
        {
            "state_dir": state,
            "storage": {"reserve_mib": 0, "watermark_percent": 100},
            "destinations": {"pacs": {"kind": "folder", "path": state / "pacs"}},
            "passed_by": {"destinations": ["pacs"]},
            **sections,
        }
    )
    spool = Spool(state / "spool")
    made = House(state, settings, spool, Ledger(state / "ledger.sqlite"))
    try:
        yield made
    finally:
        made.spool.close()
        made.ledger.close()
