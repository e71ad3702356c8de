"""A modality that asks whether its images are kept (storage commitment as SCU), on the library alone.

Knows nothing of the node.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from tests.node import end
from tests.peers import LOOPBACK, wait_until

INSTANCE = "1.2.840.10008.1.20.1.1"
REPORT_S = 60.0


@dataclass(frozen=True)
class Report:
    """One N-EVENT-REPORT as a modality sees it."""

    event_type: int
    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[tuple[str, int], ...]
    keywords: frozenset[str]


@dataclass
class Modality:
    """Takes reports, on the associations of its requests and, where it listens, on those of the node."""

    aet: str = "MODALITY"
    reports: list[Report] = field(default_factory=list)
    status: Callable[[], int] = lambda: 0
    port: int = 0
    tls: ssl.SSLContext | None = None
    """For its own port."""

    def take(self, event: evt.Event) -> tuple[int, None]:
        said = event.event_information
        report = Report(
            event.event_type or 0,
            str(said.TransactionUID),
            tuple(str(item.ReferencedSOPInstanceUID) for item in said.get("ReferencedSOPSequence") or ()),
            tuple((str(i.ReferencedSOPInstanceUID), int(i.FailureReason)) for i in said.get("FailedSOPSequence") or ()),
            frozenset(str(element.keyword) for element in said),
        )
        status = self.status()
        self.reports.append(report)
        return status, None

    @contextmanager
    def listens(self, *, role: bool = True) -> Iterator[None]:
        """`role`: it answers the proposal of roles; else it takes the class and says nothing of them."""
        ae = AE(self.aet)
        ae.add_supported_context(StorageCommitmentPushModel)
        if role:
            ae.supported_contexts[0].scu_role, ae.supported_contexts[0].scp_role = False, True
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self.take)]
        where = (LOOPBACK, self.port)
        server = ae.start_server(where, block=False, evt_handlers=handlers, ssl_context=self.tls)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    @contextmanager
    def association(self, port: int, *files: Path) -> Iterator[Association]:
        ae = AE(self.aet)
        ae.acse_timeout = ae.dimse_timeout = ae.connection_timeout = 60
        metas = [read_file_meta_info(path) for path in files]
        wanted = sorted({(m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in metas})
        contexts = [build_context(StorageCommitmentPushModel), *(build_context(*one) for one in wanted)]
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, self.take)]
        link = ae.associate(LOOPBACK, port, contexts=contexts, ae_title="EVENRAY", evt_handlers=handlers)
        assert link.is_established
        try:
            yield link
        finally:
            end(link)

    def ask(self, port: int, transaction: str, references: Sequence[tuple[str, str]], *files: Path) -> int | None:
        """On an association that ends at once; the status of the answer."""
        with self.association(port, *files) as link:
            return action(link, request(transaction, references))

    def wait(self, count: int = 1) -> list[Report]:
        wait_until(lambda: len(self.reports) >= count, REPORT_S, f"{count} reports")
        return self.reports


def request(transaction: str, references: Sequence[tuple[str, str]]) -> Dataset:
    made = Dataset()
    made.TransactionUID = transaction
    made.ReferencedSOPSequence = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        made.ReferencedSOPSequence.append(item)
    return made


def action(link: Association, asked: Dataset, *, kind: int = 1, instance: str = INSTANCE) -> int | None:
    response, _ = link.send_n_action(asked, kind, StorageCommitmentPushModel, instance)
    return int(response.Status) if "Status" in response else None


def references(files: Sequence[Path]) -> list[tuple[str, str]]:
    metas = [read_file_meta_info(path) for path in files]
    return [(str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)) for meta in metas]
