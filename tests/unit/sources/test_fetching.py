"""C-GET and C-MOVE against a scripted archive: what is kept before it is acknowledged, and how every fault ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_GET

from dicom_node.errors import EvenrayError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings import Dimse
from dicom_node.sources import getting
from dicom_node.sources.dimse import DimseSource
from dicom_node.sources.passing_on import PassingOn
from dicom_node.sources.query import FoundImage, Received
from dicom_node.syntaxes import EXPLICIT_LITTLE, JPEG_LS, RLE
from tests import dicom_files
from tests.node import data_set, uid_of
from tests.peers import LOOPBACK, storescp
from tests.query_retrieve import Archive
from tests.scripted_pacs import Mode, ScriptedPacs

STUDY = "1.2.3"


def calm() -> None:
    """Nothing ends the waiting."""


def made(folder: Path, count: int = 3, syntaxes: tuple[str, ...] = (EXPLICIT_LITTLE,)) -> list[Path]:
    """Radiographs of one series, in one transfer syntax after the other."""
    return [
        dicom_files.write(
            folder / f"{n}.dcm",
            dicom_files.dataset("CR", study=STUDY, series=f"{STUDY}.9", instance=f"{STUDY}.9.{n}"),
            syntaxes[n % len(syntaxes)],
        )
        for n in range(count)
    ]


def images(files: list[Path], *, classes: bool = True) -> list[FoundImage]:
    return [
        FoundImage(
            study_instance_uid=STUDY,
            series_instance_uid=f"{STUDY}.9",
            sop_instance_uid=uid_of(path),
            sop_class_uid=str(read_file_meta_info(path).MediaStorageSOPClassUID) if classes else "",
        )
        for path in files
    ]


class Shelf:
    """A `Keep` that remembers; `status` is what it answers."""

    def __init__(self, status: Callable[[str], int] = lambda _uid: 0) -> None:
        self.status = status
        self.objects: dict[str, tuple[str, bytes]] = {}
        self.paths: list[Path] = []

    def __call__(self, received: Received) -> int:
        uid = received.sop_instance_uid
        assert uid_of(received.path) == uid
        if not self.status(uid):
            assert uid not in self.objects, "kept twice"
            self.objects[uid] = received.transfer_syntax_uid, data_set(received.path)
        self.paths.append(received.path)
        return self.status(uid)


def fetch(
    archive: Archive, wanted: list[FoundImage], keep: Any, beat: Callable[[], None] = calm, **more: Any
) -> dict[str, Receipt | EvenrayError]:
    """Every answer by UID; each image has exactly one."""
    answers = list(DimseSource("pacs", archive.setting(**more), calling_ae="EVENRAY").fetch(wanted, keep, beat=beat))
    assert sorted(image.sop_instance_uid for image, _ in answers) == sorted(one.sop_instance_uid for one in wanted)
    return {image.sop_instance_uid: answer for image, answer in answers}


def test_compressed_images_come_through_unchanged(tmp_path: Path) -> None:
    files = made(tmp_path, 6, (EXPLICIT_LITTLE, RLE, JPEG_LS))
    shelf = Shelf()
    with Archive(files) as archive:
        answers = fetch(archive, images(files), shelf)
    assert all(isinstance(answer, Receipt) for answer in answers.values())
    for path in files:
        ds = dcmread(path)
        syntax, kept = shelf.objects[uid_of(path)]
        assert syntax == ds.file_meta.TransferSyntaxUID
        assert ds.PixelData[:100] in kept
    assert not any(path.exists() for path in shelf.paths), "a temporary file is left"


def test_the_archive_hears_success_only_for_what_is_kept(tmp_path: Path) -> None:
    files = made(tmp_path, 4)
    full = {f"{STUDY}.9.1": 0xA700, f"{STUDY}.9.2": 0xC000}
    with Archive(files) as archive:
        answers = fetch(archive, images(files), Shelf(lambda uid: full.get(uid, 0)))
    assert dict(archive.given) == {f"{STUDY}.9.{n}": full.get(f"{STUDY}.9.{n}", 0) for n in range(4)}
    assert {uid: type(answer) for uid, answer in answers.items()} == {
        f"{STUDY}.9.0": Receipt,
        f"{STUDY}.9.1": PeerBusy,
        f"{STUDY}.9.2": PeerRefused,
        f"{STUDY}.9.3": Receipt,
    }


def test_what_was_not_asked_for_is_not_taken(tmp_path: Path) -> None:
    files = made(tmp_path, 4)

    def generous(archive: Archive, _event: evt.Event) -> Iterator[Any]:
        yield len(archive.held)
        for path in archive.held.values():
            yield 0xFF00, dcmread(path)

    shelf = Shelf()
    with Archive(files) as archive:
        archive.get = generous
        fetch(archive, images(files[:2]), shelf)
    assert set(shelf.objects) == {uid_of(path) for path in files[:2]}
    assert dict(archive.given)[uid_of(files[3])] == 0x0124


def test_an_object_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    files = made(tmp_path, 1)

    def twice(_archive: Archive, _event: evt.Event) -> Iterator[Any]:
        yield 2
        yield 0xFF00, dcmread(files[0])
        yield 0xFF00, dcmread(files[0])

    with Archive(files) as archive:
        archive.get = twice
        fetch(archive, images(files), Shelf())
    assert [status for _, status in archive.given] == [0, 0]


def test_many_classes_are_asked_for_in_several_associations(tmp_path: Path) -> None:
    files = []
    classes = [f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "2", "4")]
    classes += [f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("7", "12.1", "20", "128")]
    for n, sop_class in enumerate(classes):
        ds = dicom_files.dataset("CR", study=STUDY, series=f"{STUDY}.9", instance=f"{STUDY}.9.{n}")
        ds.SOPClassUID = sop_class
        files.append(dicom_files.write(tmp_path / f"{n}.dcm", ds))
    shelf = Shelf()
    with Archive(files) as archive:
        answers = fetch(archive, images(files), shelf)
    assert len(shelf.objects) == len(files) == len([a for a in answers.values() if isinstance(a, Receipt)])
    assert archive.associations > 1
    assert archive.most_contexts <= 128


def test_objects_whose_class_is_not_told_are_fetched_all_the_same(tmp_path: Path) -> None:
    files = made(tmp_path, 2)
    shelf = Shelf()
    with Archive(files) as archive:
        fetch(archive, images(files, classes=False), shelf)
    assert len(shelf.objects) == 2


def test_an_archive_without_get_is_asked_by_move(tmp_path: Path) -> None:
    files = made(tmp_path, 3)
    with (
        storescp(tmp_path / "node", aet="EVENRAY") as node,
        Archive(files, gets=False, moves=("EVENRAY", node.port)) as archive,
    ):
        answers = fetch(archive, images(files), Shelf())
        assert len(node.files()) == 3
    assert all(isinstance(answer, Receipt) for answer in answers.values())
    assert [what for what, _ in archive.asked] == ["C-MOVE"]


def test_an_archive_that_refuses_get_by_status_is_asked_by_move(tmp_path: Path) -> None:
    files = made(tmp_path, 1)

    def unsupported(archive: Archive, event: evt.Event) -> Iterator[Any]:
        if archive.asked[-1][0] == "C-MOVE":
            yield from archive.send(event)
            return
        response = C_GET()
        response.MessageIDBeingRespondedTo = event.message_id
        response.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        response.Status = 0x0122
        event.assoc.dimse.send_msg(response, event.context.context_id)
        yield 0

    with (
        storescp(tmp_path / "node", aet="EVENRAY") as node,
        Archive(files, moves=("EVENRAY", node.port)) as archive,
    ):
        archive.get = unsupported
        answers = fetch(archive, images(files), Shelf())
        assert len(node.files()) == 1
    assert isinstance(answers[uid_of(files[0])], Receipt)


def test_method_get_never_moves(tmp_path: Path) -> None:
    files = made(tmp_path, 1)
    with Archive(files, gets=False, moves=("EVENRAY", 1)) as archive:
        answers = fetch(archive, images(files), Shelf(), method="get")
    assert "does not offer C-GET" in str(answers[uid_of(files[0])])
    assert archive.asked == []


def test_an_unknown_move_destination_says_the_remedy(tmp_path: Path) -> None:
    files = made(tmp_path, 1)

    def unknown(_archive: Archive, _event: evt.Event) -> Iterator[Any]:
        yield None, None

    with Archive(files, moves=("EVENRAY", 1)) as archive:
        archive.move = unknown
        answers = fetch(archive, images(files), Shelf(), method="move", move_to="NODE7")
    answer = answers[uid_of(files[0])]
    assert isinstance(answer, PeerRefused)
    assert "0xA801" in str(answer)
    assert "add NODE7" in str(answer)


def test_only_the_instances_that_the_archive_names_have_failed(tmp_path: Path) -> None:
    files = made(tmp_path, 3)

    def partly(archive: Archive, event: evt.Event) -> Iterator[Any]:
        yield 3
        for path in files[:2]:
            yield 0xFF00, dcmread(path)
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = [uid_of(files[2])]
        yield 0xB000, failed

    with (
        storescp(tmp_path / "node", aet="EVENRAY") as node,
        Archive(files, moves=("EVENRAY", node.port)) as archive,
    ):
        archive.get = partly
        answers = fetch(archive, images(files), Shelf(), method="move")
    assert [type(answers[uid_of(path)]) for path in files] == [Receipt, Receipt, PeerBusy]
    assert "0xB000" in str(answers[uid_of(files[2])])


def _hang(archive: Archive, event: evt.Event) -> Iterator[Any]:
    yield 3
    yield 0xFF00, dcmread(archive.wanted(event)[0])
    archive.ended.wait(30)


def _abort(archive: Archive, event: evt.Event) -> Iterator[Any]:
    yield 3
    yield 0xFF00, dcmread(archive.wanted(event)[0])
    event.assoc.abort()
    yield 0x0000, None


def _garbage(archive: Archive, event: evt.Event) -> Iterator[Any]:
    yield 3
    yield 0xFF00, dcmread(archive.wanted(event)[0])
    response = C_GET()
    response.MessageIDBeingRespondedTo = event.message_id
    response.AffectedSOPClassUID = event.request.AffectedSOPClassUID
    response.Status = 0xB000
    response.NumberOfFailedSuboperations = 2
    response.NumberOfCompletedSuboperations = 1
    response.Identifier = BytesIO(b"\x08\x00\x58\x00UI\xff\xff" + bytes(range(40)))
    event.assoc.dimse.send_msg(response, event.context.context_id)


def _nothing(_archive: Archive, _event: evt.Event) -> Iterator[Any]:
    yield 0


@pytest.mark.parametrize(
    ("script", "kind", "first"),
    [
        (_hang, PeerUnreachable, Receipt),
        (_abort, PeerUnreachable, Receipt),
        (_garbage, PeerBusy, Receipt),
        (_nothing, PeerBusy, PeerBusy),
    ],
)
def test_an_archive_that_breaks_off_keeps_nobody_waiting(
    tmp_path: Path, script: Callable[[Archive, evt.Event], Iterator[Any]], kind: type, first: type
) -> None:
    files = made(tmp_path, 3)
    shelf = Shelf()
    with Archive(files) as archive:
        archive.get = script
        answers = fetch(archive, images(files), shelf)
    assert [type(answers[uid_of(path)]) for path in files] == [first, kind, kind]
    assert len(shelf.objects) == (first is Receipt)
    assert not any(path.exists() for path in shelf.paths)


class Enough(Exception):
    """A person's wish."""


def test_who_stops_fetching_cancels_in_order_and_what_came_is_kept(tmp_path: Path) -> None:
    files = made(tmp_path, 40)
    shelf = Shelf()

    def slow(archive: Archive, event: evt.Event) -> Iterator[Any]:
        yield len(files)
        for path in files:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, dcmread(path)
            archive.ended.wait(0.2)

    def stop() -> None:
        if shelf.objects:
            raise Enough

    with Archive(files) as archive:
        archive.get = slow
        with pytest.raises(Enough):
            fetch(archive, images(files), shelf, stop, dimse_timeout_s=20)
        assert archive.cancelled == 1
    assert 1 <= len(shelf.objects) < 40
    assert [status for _, status in archive.given] == [0] * len(shelf.objects)


def receiver(port: int) -> Dimse:
    return Dimse(kind="dimse", ae_title="STORESCP", host=LOOPBACK, port=port, connect_timeout_s=5, dimse_timeout_s=5)


def received(path: Path) -> Received:
    meta = read_file_meta_info(path)
    return Received(
        path=path,
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
    )


def test_objects_are_passed_on_as_they_came(tmp_path: Path) -> None:
    files = made(tmp_path, 4, (EXPLICIT_LITTLE, RLE))
    with storescp(tmp_path / "held", "+xa") as peer:
        passing = PassingOn(receiver(peer.port), calling_ae="PACS")
        assert [passing(received(path)) for path in files] == [0] * 4
        passing.close()
        assert sorted(data_set(path) for path in peer.files()) == sorted(data_set(path) for path in files)


def test_passing_on_goes_on_when_the_receiver_ends_the_association(tmp_path: Path) -> None:
    files = made(tmp_path, 3)
    ended: list[str] = []

    def once(uid: str) -> bool:
        """Whether the association ends in the middle of this object: the first time that the second one comes."""
        if uid == uid_of(files[1]) and not ended:
            ended.append(uid)
            return True
        return False

    peer = ScriptedPacs(Mode(abort_in=once))
    try:
        passing = PassingOn(receiver(peer.port), calling_ae="PACS")
        assert [passing(received(path)) for path in files] == [0, 0, 0]
        passing.close()
    finally:
        peer.stop()
    assert ended
    assert {uid: len(digests) for uid, digests in peer.stored.items()} == {uid_of(path): 1 for path in files}


def test_what_the_receiver_does_not_take_is_never_called_a_success(tmp_path: Path) -> None:
    files = made(tmp_path, 2, (RLE,))
    with storescp(tmp_path / "held", "+xe") as peer:
        passing = PassingOn(receiver(peer.port), calling_ae="PACS")
        assert passing(received(files[0])) == 0xC000
        assert isinstance(passing.fault, PeerRefused)
        passing.close()
        port = peer.port
    assert passing(received(files[0])) == 0xA700
    assert isinstance(passing.fault, PeerUnreachable)
    assert port


def test_what_came_and_was_kept_elsewhere_takes_no_room_here(tmp_path: Path) -> None:
    with getting.to_files(tmp_path):
        for _ in range(3):
            # As the library does with each object of one C-GET.
            made = getting.dimse_messages.NamedTemporaryFile(delete=False, mode="wb", suffix=".dcm")
            Path(made.name).unlink()
        held = [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
        assert len([one for one in held if one.startswith(str(tmp_path))]) == 1


def test_there_is_room_for_the_contexts_of_a_request() -> None:
    many = [
        FoundImage(
            study_instance_uid="1", series_instance_uid="1.1", sop_instance_uid=f"1.{n}", sop_class_uid=f"1.2.{n}"
        )
        for n in range(30)
    ]
    groups = list(getting._groups(many))
    assert sum(map(len, groups)) == 30
    assert max(len(getting.contexts_for(group)) for group in groups) <= 128
