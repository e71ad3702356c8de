"""One request to an archive on an association of its own: its responses as they come, its end in every case.

Knows no query. Every wait has an end, and whoever leaves early sends C-CANCEL first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_node.destinations.association import SLACK_S, Link
from dicom_node.errors import EvenrayError, PeerUnreachable
from dicom_node.settings import QueryRetrieve
from dicom_node.sources.statuses import Meaning, Row, meaning

MESSAGE_ID = 1
"""Of the one request of an association."""
CANCEL_S = 10.0
"""Longest wait for the last response after C-CANCEL."""
Responses = Iterator[tuple[Dataset, Dataset | None]]


class Talk:
    """An association for one request. Leaving it releases, also on a fault, unless the archive stopped answering."""

    def __init__(
        self,
        archive: QueryRetrieve,
        *,
        calling_ae: str,
        contexts: Sequence[PresentationContext],
        beat: Callable[[], None],
        handlers: Sequence[tuple[evt.EventType, Callable[..., Any]]] = (),
        roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    ) -> None:
        """Nothing is opened yet."""
        self._beat = beat
        self._limit_s = archive.dimse_timeout_s + SLACK_S
        self._heard = time.monotonic()
        self._ours = False
        self._leaving = False
        self.link = Link(
            archive,
            calling_ae=calling_ae,
            contexts=contexts,
            beat=self._waiting,
            handlers=[(evt.EVT_DATA_RECV, self._hear), *handlers],
            roles=roles,
        )
        self.peer = self.link.peer

    def __enter__(self) -> Self:
        """Raises PeerUnreachable, PeerBusy, PeerRefused as `Link` does."""
        self._hear()
        self.link.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        # `responses` has ended the request, whatever happened: what is left is to say goodbye.
        self._leaving = True
        self.link.__exit__(None, None, None)

    def responses(
        self, service: str, model: str, table: tuple[Row, ...], send: Callable[[], Responses]
    ) -> Generator[tuple[int, Dataset, Dataset | None], None, None]:
        """Send one request; its responses (status, status elements, identifier), the last one included.

        Close it when it is left early: the archive is then told by C-CANCEL (PS3.7 9.3.2.3) and may finish what it
        has in hand. Raises PeerUnreachable: no response in time, an abort, one that can't be read or is another's.
        """
        broken = PeerUnreachable(f"{self.peer}: no response to {service} that can be read (time-out, abort or garbage)")
        over = False
        answers: Responses = iter(())
        try:
            answers = self._call(send, broken)
            while not over:
                status, identifier = self._call(lambda: next(answers, (Dataset(), None)), broken)
                code = status.get("Status")
                if code is None:
                    self.link.broken = True
                    raise broken
                if set(self.link.answered()) - {MESSAGE_ID}:
                    self.link.broken = True
                    raise PeerUnreachable(f"{self.peer}: answered another request than the one under way")
                over = meaning(int(code), table)[0] is not Meaning.PENDING
                yield int(code), status, identifier
        finally:
            if not over and not self.link.broken:
                self._cancel(model, table, answers)

    @contextmanager
    def ours(self) -> Iterator[None]:
        """What is waited for meanwhile is not the archive's."""
        self._ours = True
        try:
            yield
        finally:
            self._hear()
            self._ours = False

    def _call(self, blocking: Callable[[], Any], broken: EvenrayError) -> Any:
        try:
            return self.link.call(blocking)
        except (RuntimeError, ConnectionError, ValueError, AttributeError) as exc:
            # Of the library, where the association ended meanwhile or an answer lacks what it must have.
            self.link.broken = True
            raise broken from exc

    def _cancel(self, model: str, table: tuple[Row, ...], answers: Responses) -> None:
        """Ask the archive to stop, and wait for its last word."""
        self._leaving = True
        try:
            self.link.association.send_c_cancel(MESSAGE_ID, query_model=model)
            self.link.call(lambda: _last(answers, table), limit_s=CANCEL_S)
        except (EvenrayError, RuntimeError, ConnectionError, ValueError, AttributeError):
            self.link.broken = True

    def _hear(self, _event: evt.Event | None = None) -> None:
        self._heard = time.monotonic()

    def _waiting(self) -> None:
        if self._leaving:
            return
        self._beat()
        if not self._ours and time.monotonic() - self._heard > self._limit_s:
            # The library has a limit of its own, but not where its reading thread died of what it read.
            self.link.broken = True
            raise PeerUnreachable(f"{self.peer}: silent for {self._limit_s:g} s")


def _last(answers: Responses, table: tuple[Row, ...]) -> None:
    with suppress(StopIteration):
        while meaning(int(next(answers)[0].get("Status", 0)), table)[0] is Meaning.PENDING:
            pass
