"""Retrieve one instance by WADO-RS into a file, as it is stored there, with a bound on everything. Source: PS3.18 10.4.

Knows no source and no destination. Not by the DICOMweb client library, which parses each object in memory.
"""

from __future__ import annotations

import time
from pathlib import Path

from requests import Response

from dicom_node.dicomweb.faults import refusal_of, retry_after_s
from dicom_node.dicomweb.multipart import MultipartInvalid, Parts, boundary_of
from dicom_node.dicomweb.session import Web
from dicom_node.errors import Blame, PeerBusy, PeerRefused, PeerUnreachable

ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Any transfer syntax, so that the server need not change one. Source: PS3.18 8.7.3.5.2, table 8.7.3-5."""
LARGEST_OBJECT = 4 << 30


def retrieve(web: Web, study: str, series: str, instance: str, target: Path) -> None:
    """Write the Part 10 file of an instance, named by its UIDs, to `target`. Blocks: run it in `Web.call`.

    Raises PeerRefused (not there), what `refusal_of` says of other statuses, PeerUnreachable where the answer is no
    such file, PeerBusy where `target` can't be written, and what breaks the connection.
    """
    address = f"{web.url}/studies/{study}/series/{series}/instances/{instance}"
    with web.session.get(address, headers={"Accept": ACCEPT}, stream=True) as response:
        if response.status_code in (404, 410):
            raise PeerRefused(f"{web.peer}: has no object {instance}")
        if response.status_code != 200:
            wait_s = retry_after_s(response.headers, time.time())
            fault = refusal_of(web.peer, response.status_code, wait_s=wait_s)
            # What stands for "no such service" when objects are sent is about this one object here.
            raise fault.about(Blame.OBJECT) if response.status_code in (405, 406) else fault
        try:
            _write(web, response, target)
        except MultipartInvalid as fault:
            raise PeerUnreachable(f"{web.peer}: gave {instance} in a form that can't be read: {fault}") from fault


def _write(web: Web, response: Response, target: Path) -> None:
    kind, boundary = boundary_of(response.headers.get("Content-Type", ""))

    def read(count: int) -> bytes:
        piece: bytes = response.raw.read(count, decode_content=False)
        web.moved(len(piece))
        return piece

    with _Output(web.peer, target) as output:
        if kind == "application/dicom":
            # One object by itself: against the rule, and common.
            left = LARGEST_OBJECT
            while piece := read(1 << 16):
                left -= len(piece)
                if left < 0:
                    raise MultipartInvalid("it is longer than allowed")
                output.write(piece)
        elif kind != "multipart/related" or not Parts(read, boundary).next(output.write, most=LARGEST_OBJECT):
            raise MultipartInvalid("it holds no object")


class _Output:
    """A file whose faults can't be taken for those of the connection."""

    def __init__(self, peer: str, target: Path) -> None:
        self._peer = peer
        self._target = target

    def __enter__(self) -> _Output:
        try:
            self._file = self._target.open("wb")
        except OSError as fault:
            raise self._full(fault) from fault
        return self

    def __exit__(self, *_fault: object) -> None:
        try:
            self._file.close()
        except OSError as fault:
            raise self._full(fault) from fault

    def write(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
        except OSError as fault:
            raise self._full(fault) from fault

    def _full(self, fault: OSError) -> PeerBusy:
        return PeerBusy(f"{self._target.parent}: no room for an object of {self._peer} ({fault.strerror}): make room")
