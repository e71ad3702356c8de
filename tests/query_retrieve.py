"""Archives for tests that are asked and fetched from: DCMTK's, and one that does what a script says."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt

from dicom_node.settings import QueryRetrieve
from dicom_node.sources.finding import MODEL as STUDY_ROOT_FIND
from dicom_node.sources.getting import MODEL as STUDY_ROOT_GET
from dicom_node.sources.moving import MODEL as STUDY_ROOT_MOVE
from dicom_node.syntaxes import STORABLE
from tests.node import uid_of
from tests.peers import ENVIRONMENT, LOOPBACK, START_S, Peer, free_port, listening, require, wait_until


def to_source(peer: Peer, **more: Any) -> dict[str, dict[str, Any]]:
    """The source that an archive is."""
    return {"pacs": {"kind": "dimse", "ae_title": peer.aet, "host": LOOPBACK, "port": peer.port, **more}}


@contextmanager
def dcmqrscp(
    tmp_path: Path, files: Sequence[Path], *flags: str, node: tuple[str, int] | None = None, aet: str = "DCMQR"
) -> Iterator[Peer]:
    """DCMTK's archive, which holds `files` and knows a node (AE title, port) that it may send to."""
    require("dcmqrscp", "dcmqridx")
    held = tmp_path / "dcmqr"
    held.mkdir()
    port = free_port()
    known = f"node = ({node[0]}, localhost, {node[1]})" if node else ""
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        f"HostTable BEGIN\n{known}\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\n{aet} {held} RW (1000, 1024mb) ANY\nAETable END\n"
    )
    copies = []
    for number, path in enumerate(files):
        copy = held / f"{number}.dcm"
        copy.write_bytes(path.read_bytes())
        copies.append(copy)
    subprocess.run(["dcmqridx", str(held), *map(str, copies)], check=True, capture_output=True, timeout=60)
    log = tmp_path / "dcmqrscp.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["dcmqrscp", "-v", "-c", str(config), *flags],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    peer = Peer(process, aet, port, held, log)
    try:
        wait_until(lambda: listening(port), START_S, f"dcmqrscp listens ({log})")
        yield peer
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


Matches = Iterator[tuple[int, Dataset | None]]
UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


class Archive:
    """A Query/Retrieve SCP that holds files and answers well, unless a test puts something else in place of that.

    `asked`: (service, identifier) of every request; `given`: C-STORE status by SOP Instance UID that it was told in
    C-GET; `cancelled`: C-CANCELs that came.
    """

    def __init__(self, files: Sequence[Path] = (), *, gets: bool = True, moves: tuple[str, int] | None = None) -> None:
        """`moves`: the address that it sends to by C-MOVE, whatever the title."""
        self.held = {uid_of(path): path for path in files}
        self.asked: list[tuple[str, Dataset]] = []
        self.given: list[tuple[str, int | None]] = []
        self.cancelled = 0
        self.associations = 0
        self.most_contexts = 0
        self.find: Callable[[Archive, evt.Event], Matches] = Archive.matches
        self.get: Callable[[Archive, evt.Event], Iterator[Any]] = Archive.send
        self.move: Callable[[Archive, evt.Event], Iterator[Any]] = Archive.send_elsewhere
        self.ended = threading.Event()
        self._moves = moves
        self._ae = AE("ARCHIVE")
        self._ae.maximum_associations = 50
        self._ae.network_timeout = self._ae.dimse_timeout = 30
        self._ae.add_supported_context(STUDY_ROOT_FIND)
        if gets:
            self._ae.add_supported_context(STUDY_ROOT_GET)
        if moves:
            self._ae.add_supported_context(STUDY_ROOT_MOVE)
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(str(context.abstract_syntax), list(STORABLE), scu_role=True, scp_role=True)
        self.port = 0

    def __enter__(self) -> Archive:
        handlers = [
            (evt.EVT_C_FIND, lambda event: self.find(self, self._note("C-FIND", event))),
            (evt.EVT_C_GET, lambda event: self.get(self, self._note("C-GET", event))),
            (evt.EVT_C_MOVE, lambda event: self.move(self, self._note("C-MOVE", event))),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_DIMSE_RECV, self._received),
        ]
        self._server = self._ae.start_server((LOOPBACK, 0), block=False, evt_handlers=handlers)
        assert self._server
        self.port = self._server.socket.getsockname()[1]
        return self

    def __exit__(self, *_exc: object) -> None:
        self.ended.set()
        assert self._server
        self._server.shutdown()

    def setting(self, **more: Any) -> QueryRetrieve:
        """The source that it is, with short time limits."""
        limits = {"connect_timeout_s": 5, "dimse_timeout_s": 1.5, **more}
        return QueryRetrieve(kind="dimse", ae_title="ARCHIVE", host=LOOPBACK, port=self.port, **limits)

    def source(self) -> dict[str, Any]:
        """The same as a configuration has it."""
        return {"pacs": {"kind": "dimse", "ae_title": "ARCHIVE", "host": LOOPBACK, "port": self.port}}

    def requests(self, service: str) -> list[list[str]]:
        """The SOP Instance UIDs of every request of a service."""
        return [_list(asked, "SOPInstanceUID") for what, asked in self.asked if what == service]

    def matches(self, event: evt.Event) -> Matches:
        """Answer a question as the standard has it, by UIDs, date, modalities and identifiers."""
        asked = event.identifier
        level = asked.QueryRetrieveLevel
        seen = set()
        for path in self.held.values():
            ds = dcmread(path, stop_before_pixels=True)
            uid = str(ds[UNIQUE[level]].value)
            if uid in seen or not _match(asked, ds):
                continue
            seen.add(uid)
            found = Dataset()
            for element in asked:
                found[element.tag] = copy(ds[element.tag] if element.tag in ds else element)  # noqa: SIM401
            found.QueryRetrieveLevel = level
            if "ModalitiesInStudy" in asked:
                found.ModalitiesInStudy = ds.Modality
            yield 0xFF00, found
        yield 0x0000, None

    def wanted(self, event: evt.Event) -> list[Path]:
        return [path for uid, path in self.held.items() if uid in _list(event.identifier, "SOPInstanceUID")]

    def send(self, event: evt.Event) -> Iterator[Any]:
        """Send what is asked for, until it is cancelled."""
        wanted = self.wanted(event)
        yield len(wanted)
        for path in wanted:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield 0xFF00, dcmread(path)

    def send_elsewhere(self, event: evt.Event) -> Iterator[Any]:
        """Send to the address that is known, as `get` does."""
        assert self._moves
        metas = (read_file_meta_info(path) for path in self.held.values())
        kinds = sorted({(m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in metas})
        contexts = [build_context(sop_class, syntax) for sop_class, syntax in kinds]
        yield LOOPBACK, self._moves[1], {"ae_title": self._moves[0], "contexts": contexts}
        yield from self.get(self, event)

    def _note(self, service: str, event: evt.Event) -> evt.Event:
        self.asked.append((service, event.identifier))
        return event

    def _accepted(self, event: evt.Event) -> None:
        self.associations += 1
        self.most_contexts = max(self.most_contexts, len(event.assoc.requestor.requested_contexts))

    def _received(self, event: evt.Event) -> None:
        command = event.message.command_set
        if command.CommandField == 0x0FFF:
            self.cancelled += 1
        if command.CommandField == 0x8001:
            self.given.append((str(command.AffectedSOPInstanceUID), int(command.Status)))


def _list(identifier: Dataset, keyword: str) -> list[str]:
    value = identifier.get(keyword) or ()
    return [str(value)] if isinstance(value, str) else [str(one) for one in value]


def _match(asked: Dataset, ds: Dataset) -> bool:
    for keyword in (*UNIQUE.values(), "AccessionNumber", "PatientID"):
        if _list(asked, keyword) and str(ds[keyword].value) not in _list(asked, keyword):
            return False
    if asked.get("ModalitiesInStudy") and asked.ModalitiesInStudy != ds.Modality:
        return False
    first, dash, last = str(asked.get("StudyDate") or "").partition("-")
    return (first or "0") <= ds.StudyDate <= ((last or "9") if dash else (first or "9"))
