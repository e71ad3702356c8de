"""The first look at an instance, with a real spool and ledger: where it is placed, what is sent on and mended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node import marks
from dicom_node.admit import admit
from dicom_node.ledger import InstanceRow, Ledger, NewObject
from dicom_node.records import Arrival, Decision, Outcome, ResultKind
from dicom_node.routing import Exam
from dicom_node.settings import Folder, PassedBy, Route, Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance
from tests import dicom_files

BANKS = {"chest": Exam(("CR", "DX"), "CHEST", ())}
OURS = marks.uid_from_hash(b"a result of a node")


@dataclass
class Place:
    """A spool and a ledger with what is needed to put objects into them."""

    spool: Spool
    ledger: Ledger
    settings: Settings

    def receive(self, dataset: Dataset, name: str = "") -> int:
        """As the receiver does it, but for the socket."""
        received = self.spool.receive()
        received.append([dicom_files.write(self.spool.root / "x.dcm", dataset).read_bytes()])
        arrival = Arrival(
            sop_class_uid=dataset.SOPClassUID,
            sop_instance_uid=name or dataset.SOPInstanceUID,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            calling_ae="MODALITY",
            called_ae="EVENRAY",
            association="a",
            path=self.spool.keep(received),
            size=1,
        )
        received.release()
        return self.ledger.instances.arrive(arrival, now=0)

    def admit(self) -> InstanceRow:
        """Look at the oldest; the row as it is afterwards."""
        row = self.ledger.instances.read("worker", now=1, lease_s=10)
        assert row is not None
        admit(row, ledger=self.ledger, spool=self.spool, settings=self.settings, banks=BANKS, clock=lambda: 1)
        return self.row(row.id)

    def row(self, ref: int) -> InstanceRow:
        row = self.ledger.instances.get(ref)
        assert row is not None
        return row

    def take(self, dataset: Dataset) -> InstanceRow:
        self.receive(dataset)
        return self.admit()

    def sent_on(self, row: InstanceRow) -> list[str]:
        return [delivery.destination for delivery in self.ledger.deliveries.of_instance(row.id)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    destinations = {name: Folder(kind="folder", path=tmp_path) for name in ("pacs", "aside")}
    settings = Settings(
        destinations=destinations,
        routes=(Route(name="r", destinations=("pacs",)),),
        passed_by=PassedBy(destinations=("aside",)),
    )
    opened = Place(Spool(tmp_path / "spool"), Ledger(tmp_path / "ledger.sqlite"), settings)
    opened.spool.prepare("receive-1")
    yield opened
    opened.spool.close()
    opened.ledger.close()


def test_an_original_is_sent_on_at_once(place: Place) -> None:
    row = place.take(dicom_files.dataset("CR"))
    assert row.state is Instance.WAITING
    assert place.sent_on(row) == ["pacs"]


def test_a_resend_of_the_same_bytes_is_a_duplicate_and_takes_no_room(place: Place) -> None:
    first, again = place.take(dicom_files.dataset("CR")), place.take(dicom_files.dataset("CR"))
    assert again.state is Instance.DUPLICATE
    assert place.spool.at(first.path).exists()
    assert not place.spool.at(again.path).exists()


@pytest.mark.parametrize("damage", ["lost", "rotten"])
def test_a_resend_takes_the_place_of_a_file_that_was_lost_or_damaged(place: Place, damage: str) -> None:
    first = place.take(dicom_files.dataset("CR"))
    file = place.spool.at(first.path)
    good = file.read_bytes()
    file.unlink()
    if damage == "rotten":
        file.write_bytes(good[:-10] + b"\0" * 10)
    again = place.take(dicom_files.dataset("CR"))
    assert again.state is Instance.DUPLICATE
    assert file.read_bytes() == good


def test_what_can_not_be_read_is_parked_and_the_good_resend_is_taken(place: Place) -> None:
    place.receive(dicom_files.dataset("CR", instance="1.2.99"), name="1.2.3.4.1")
    assert place.admit().state is Instance.PARKED
    assert place.take(dicom_files.dataset("CR")).state is Instance.WAITING


def test_a_result_of_this_node_that_comes_back_goes_nowhere(place: Place) -> None:
    made = place.take(dicom_files.dataset("CR"))
    claimed = place.ledger.instances.claim("worker", now=1, lease_s=10)
    assert claimed is not None
    result = NewObject(ResultKind.SECONDARY_CAPTURE, "1.2", OURS, "results/x", ["pacs"])
    place.ledger.instances.decide(claimed, Decision(outcome=Outcome.HARMONIZED, reason="r"), [result], now=1)
    back = place.take(dicom_files.dataset("SC", instance=OURS))
    assert back.state is Instance.OWN
    assert place.sent_on(back) == []
    assert made.id != back.id


def test_a_result_of_another_node_is_sent_on_but_never_processed_or_reported(place: Place) -> None:
    row = place.take(dicom_files.dataset("SC", instance=OURS))
    assert row.state is Instance.OWN
    assert place.sent_on(row) == ["aside"]
    assert place.ledger.batches.open() == []


def test_a_result_that_is_routed_back_again_and_again_is_kept_once(place: Place) -> None:
    place.take(dicom_files.dataset("SC", instance=OURS))
    assert place.take(dicom_files.dataset("SC", instance=OURS)).state is Instance.DUPLICATE


def test_what_others_derived_from_our_result_is_passed_by_sent_on_and_reported(place: Place) -> None:
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", OURS
    row = place.take(dicom_files.dataset("SC", instance="1.2.77", SourceImageSequence=[source]))
    assert row.state is Instance.WAITING
    assert place.sent_on(row) == ["aside"]
    assert len(place.ledger.batches.open()) == 1


def test_rotten_bytes_never_pass_for_the_original_however_often_a_person_retries(place: Place) -> None:
    first = place.take(dicom_files.dataset("CR"))
    file = place.spool.at(first.path)
    good = file.read_bytes()
    file.write_bytes(good[:-10] + b"\0" * 10)
    found = place.ledger.upkeep.file("instance", first.id)
    assert found
    place.ledger.upkeep.flag(found, "its bytes have changed", now=1)
    for _ in range(2):
        assert place.ledger.instances.retry(first.id, now=1)
        parked = place.admit()
        assert (parked.state, parked.digest) == (Instance.PARKED, first.digest)
        assert "send it again" in parked.note
    assert place.take(dicom_files.dataset("CR")).state is Instance.DUPLICATE
    assert file.read_bytes() == good
    assert place.ledger.instances.retry(first.id, now=1)
    assert place.admit().state is Instance.WAITING
