"""What becomes of an object's file when its row is not committed, or is and nobody hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from dicom_node import steps
from dicom_node.arrivals import Arrivals
from dicom_node.ledger import Ledger
from dicom_node.receive import Desk, Receiver
from dicom_node.settings import Storage
from dicom_node.spool import Spool
from dicom_node.upper_layer import CommandField, Request

EXPLICIT = "1.2.840.10008.1.2.1"
OUT_OF_RESOURCES, PROCESSING_FAILURE = 0xA700, 0x0110


class Place:
    """A receiver without a socket."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.ledger = Spool(folder / "spool"), Ledger(folder / "ledger.sqlite")
        self.spool.prepare("receive-1")
        storage = Storage(reserve_mib=0, watermark_percent=100)
        receiver = Receiver(self.spool, self.ledger, Arrivals(self.ledger, lambda: 1.0), storage, "receive-1")
        association = Association(AE(), "acceptor")
        association.requestor.ae_title = "MODALITY"
        self.desk = Desk(receiver, association)

    def store(self, uid: str = "1.2.3") -> int:
        """One object, as a stream hands it on; the status."""
        request = Request(CommandField.C_STORE_RQ, 1, True, "1.2.840.10008.5.1.4.1.1.1", uid)
        sink = self.desk.begin(request, EXPLICIT)
        sink.append([b"pixels"])
        return self.desk.keep(request, EXPLICIT, sink)

    def rows(self) -> list[str]:
        return [row.path for row in self.ledger.instances.unread()]

    def files(self) -> list[str]:
        """Originals that hold something."""
        found = (self.spool.root / "originals").rglob("*.dcm")
        return [path.relative_to(self.spool.root).as_posix() for path in found if path.stat().st_size]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.spool.close()
    made.ledger.close()


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    (tmp_path / "marks").mkdir()
    monkeypatch.setattr(steps, "_faults", {})
    yield monkeypatch
    monkeypatch.setattr(steps, "_faults", {})


def _open_files() -> list[str]:
    """Spooled files with something in them that this process holds open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(link.readlink())
            if "/spool/" in target and link.stat().st_size:
                found.append(target)
    return found


def _ask(tmp_path: Path, what: str) -> None:
    steps.arm({steps.FAULT: what, steps.MARKS: str(tmp_path / "marks")})


@pytest.mark.usefixtures("fault")
def test_a_fault_before_the_row_is_committed_leaves_neither_file_nor_row(place: Place, tmp_path: Path) -> None:
    _ask(tmp_path, "instance.new.receive.begun:nospace")
    assert place.store() == OUT_OF_RESOURCES
    assert (place.rows(), place.files()) == ([], [])
    assert place.store() == 0
    assert place.rows() == place.files() != []


@pytest.mark.usefixtures("fault")
@pytest.mark.parametrize("action", ["nospace", "fail"])
def test_a_fault_after_the_row_is_committed_leaves_its_file_where_the_row_says(
    place: Place, tmp_path: Path, action: str
) -> None:
    _ask(tmp_path, f"instance.new.receive.done:{action}")
    assert place.store() in (OUT_OF_RESOURCES, PROCESSING_FAILURE)
    assert place.rows() == place.files() != [], "nobody was told Success, and nothing is broken"


@pytest.mark.usefixtures("fault")
@pytest.mark.parametrize("point", ["receive.begun", "spool.keep.begun", "spool.keep.synced", "receive.kept"])
def test_an_unexpected_fault_is_answered_and_takes_nothing_with_it(place: Place, tmp_path: Path, point: str) -> None:
    _ask(tmp_path, f"{point}:fail")
    assert place.store() == PROCESSING_FAILURE
    assert (place.rows(), place.files()) == ([], [])
    assert not _open_files(), "its file is closed"
    assert place.store() == 0
