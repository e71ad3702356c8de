"""Complaints about peers: all that matters is said, and no peer can fill the disk."""

from __future__ import annotations

import logging

import pytest

from dicom_node.complaints import AT_MOST, EVERY_S, Complaints

log = logging.getLogger("dicom_node.test")
SENTENCE = "aborted the association of %r: %s"


def test_many_of_one_kind_are_counted_instead_of_written(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    complaints = Complaints(lambda: now[0])
    for number in range(1000):
        complaints.tell(log, logging.WARNING, SENTENCE, "EVIL", number)
    assert len(caplog.messages) == AT_MOST
    now[0] = EVERY_S
    complaints.tell(log, logging.WARNING, SENTENCE, "EVIL", 1000)
    left_out = 1000 - AT_MOST
    assert (
        caplog.messages[-1]
        == f"aborted the association of 'EVIL': 1000 ({left_out} more of this kind were not written)"
    )
    complaints.tell(log, logging.WARNING, SENTENCE, "EVIL", 1001)
    assert caplog.messages[-1] == "aborted the association of 'EVIL': 1001"


def test_one_kind_does_not_silence_another(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(lambda: 0.0)
    for number in range(1000):
        complaints.tell(log, logging.WARNING, SENTENCE, "EVIL", number)
    complaints.tell(log, logging.ERROR, "a thread ended: %s", "KeyError")
    assert caplog.messages[-1] == "a thread ended: KeyError"
