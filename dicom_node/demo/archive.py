"""A small archive that plays the PACS in the demo and in tests: it stores, verifies and commits over real sockets.

Knows nothing of the node. It keeps what it says it keeps, but it is no archive for a hospital.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.destinations.repairs import repair
from dicom_node.durable import fsync
from dicom_node.status import CommitFailure, EventStatus, StoreStatus

log = logging.getLogger(__name__)

PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""Source: PS3.4 J.3.5."""
MAX_PDU = 131072
PATIENCE_S = 10.0
"""For a peer to answer our report."""


@dataclass(frozen=True, slots=True)
class Held:
    """One object that lies in the folder."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: Path


class Archive:
    """A Storage, Verification and Storage Commitment SCP over one folder."""

    def __init__(
        self,
        folder: Path,
        ae_title: str,
        host: str,
        port: int,
        *,
        peers: Mapping[str, tuple[str, int]] | None = None,
        report_on: Literal["same", "new"] = "new",
        transfer_syntaxes: Sequence[str] = tuple(ALL_TRANSFER_SYNTAXES),
        answer: Callable[[str], int] = lambda _sop_instance_uid: StoreStatus.SUCCESS,
        check_called_ae: bool = False,
    ) -> None:
        """`peers` says where to report commitments to, by AE title. `answer` may refuse an instance with a status.

        `report_on` "same" reports on the association of the request while it is open, else on a new one.
        """
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self._peers = dict(peers or {})
        self._report_on = report_on
        self._transfer_syntaxes = list(transfer_syntaxes)
        self._answer = answer
        self._check_called_ae = check_called_ae
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._reporters: list[threading.Thread] = []
        self._server: ThreadedAssociationServer | None = None

    def start(self) -> None:
        """Read the folder and listen. Raises OSError where the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for partial in self.folder.glob("*.part"):
            partial.unlink()
        self._held = {held.sop_instance_uid: held for held in map(_read, sorted(self.folder.glob("*.dcm")))}
        ae = AE(self.ae_title)
        ae.require_called_aet = self._check_called_ae
        ae.maximum_pdu_size = MAX_PDU
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(str(context.abstract_syntax), self._transfer_syntaxes)
        ae.add_supported_context(Verification)
        ae.add_supported_context(StorageCommitmentPushModel)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, _undelayed),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commit),
            (evt.EVT_C_ECHO, lambda _event: StoreStatus.SUCCESS),
        ]
        self._server = ae.start_server((self.host, self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """Stop listening and end what is open; what was acknowledged is on the disk."""
        if self._server:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server.server_close()
            self._server = None
        for thread in self._reporters:
            thread.join(PATIENCE_S)

    def instances(self) -> list[Held]:
        """What is held, in the order of the UIDs."""
        with self._lock:
            return [self._held[uid] for uid in sorted(self._held)]

    def _store(self, event: evt.Event) -> int:
        """Keep one object durably, then answer Success. Source: PS3.4 B.2.3."""
        uid = str(cast(C_STORE, event.request).AffectedSOPInstanceUID)
        status = self._answer(uid)
        if status != StoreStatus.SUCCESS:
            return status
        target = self.folder / f"{uid}.dcm"
        partial = target.with_name(f".{uid}.{threading.get_ident()}.part")
        try:
            _write(event, partial)
            with self._lock:
                if target.exists() and target.read_bytes() != partial.read_bytes():
                    log.warning("refused %s: other bytes are held under this UID", uid)
                    return StoreStatus.CANNOT_UNDERSTAND
                partial.rename(target)
                fsync(self.folder)
                self._held[uid] = _read(target)
        except OSError as exc:
            log.warning("refused %s: %s", uid, exc.strerror)
            return StoreStatus.OUT_OF_RESOURCES
        finally:
            partial.unlink(missing_ok=True)
        return StoreStatus.SUCCESS

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        """Take a request for commitment; the report follows. Source: PS3.4 J.3.2."""
        request = event.action_information
        if event.action_type != 1:
            return EventStatus.NO_SUCH_ACTION, None
        if not request.get("TransactionUID") or not request.get("ReferencedSOPSequence"):
            return EventStatus.INVALID_ARGUMENT, None
        report = self._judge(request)
        answered = threading.Event()
        event.assoc.bind(evt.EVT_DIMSE_SENT, lambda _event: answered.set())
        reporter = threading.Thread(target=self._report, args=(event.assoc, answered, report), daemon=True)
        self._reporters.append(reporter)
        reporter.start()
        return EventStatus.SUCCESS, None

    def _judge(self, request: Dataset) -> Dataset:
        """Only what is held, and is what the request says it is, is committed. Source: PS3.4 table J.3-2."""
        report = Dataset()
        report.TransactionUID = request.TransactionUID
        committed, failed = [], []
        with self._lock:
            for item in request.ReferencedSOPSequence:
                held = self._held.get(str(item.ReferencedSOPInstanceUID))
                if held and held.path.exists() and held.sop_class_uid == item.ReferencedSOPClassUID:
                    committed.append(item)
                    continue
                conflict = held is not None and held.path.exists()
                item.FailureReason = int(
                    CommitFailure.CLASS_INSTANCE_CONFLICT if conflict else CommitFailure.NO_SUCH_OBJECT_INSTANCE
                )
                failed.append(item)
        if committed:
            report.ReferencedSOPSequence = committed
        if failed:
            report.FailedSOPSequence = failed
        return report

    def _report(self, requested_on: Association, answered: threading.Event, report: Dataset) -> None:
        answered.wait(PATIENCE_S)
        if self._report_on == "same" and requested_on.is_established and _send_report(requested_on, report):
            return
        calling = str(requested_on.requestor.ae_title).strip()
        if calling not in self._peers:
            log.warning("transaction %s: no address is known to report to %s", report.TransactionUID, calling)
            return
        ae = AE(self.ae_title)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = PATIENCE_S
        association = ae.associate(
            *self._peers[calling],
            contexts=[build_context(StorageCommitmentPushModel)],
            ae_title=calling,
            # We open the association, but we are the provider of the service. Source: PS3.4 J.3.3.1.1.
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
            evt_handlers=[(evt.EVT_CONN_OPEN, _undelayed)],
        )
        if not association.is_established:
            log.warning("transaction %s: %s can't be reached to report to it", report.TransactionUID, calling)
            return
        _send_report(association, report)
        association.release()


def _send_report(association: Association, report: Dataset) -> bool:
    """Whether the peer took the report. Source: PS3.7 10.1.1."""
    kind = 2 if "FailedSOPSequence" in report else 1
    repair(association)
    try:
        response, _ = association.send_n_event_report(report, kind, StorageCommitmentPushModel, PUSH_MODEL_INSTANCE)
    except (RuntimeError, ValueError):
        # The association has just ended, or was accepted without this role.
        return False
    return bool(response.get("Status") == EventStatus.SUCCESS)


def _write(event: evt.Event, partial: Path) -> None:
    """The object as a Part 10 file, its data set byte for byte as received, forced to the disk."""
    with partial.open("wb") as out:
        # Whether the library spools to a file is a switch of the whole process, which others may set.
        request = cast(Any, event.request)
        if request._dataset_path is not None:
            request._dataset_file.flush()
            with Path(request._dataset_path).open("rb") as received:
                shutil.copyfileobj(received, out)
        else:
            out.write(event.encoded_dataset(include_meta=True))
        out.flush()
        os.fsync(out.fileno())


def _read(path: Path) -> Held:
    meta = read_file_meta_info(path)
    return Held(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        path=path,
    )


def _undelayed(event: evt.Event) -> None:
    """Answers are small: Nagle would hold each for 40 ms."""
    wrapped = event.assoc.dul.socket
    if wrapped and wrapped.socket:
        wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
