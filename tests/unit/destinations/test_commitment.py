"""Storage commitment reports as they come from peers, good and bad."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.destinations.commitment import CommitReport, ReportInvalid, read_report
from dicom_node.status import EventStatus


def _item(uid: str | None, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    if uid is not None:
        item.ReferencedSOPInstanceUID = uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _report(committed: list[Dataset], failed: list[Dataset], transaction: str | None = "1.2.3") -> Dataset:
    dataset = Dataset()
    if transaction is not None:
        dataset.TransactionUID = transaction
    if committed:
        dataset.ReferencedSOPSequence = committed
    if failed:
        dataset.FailedSOPSequence = failed
    return dataset


def test_a_report_names_what_is_committed_and_what_is_not_and_why() -> None:
    report = read_report(2, _report([_item("1.1"), _item("1.2")], [_item("1.3", 0x0112)]))
    assert report == CommitReport("1.2.3", ("1.1", "1.2"), (("1.3", 0x0112),))


def test_a_failure_in_a_report_of_success_is_still_a_failure() -> None:
    assert read_report(1, _report([_item("1.1")], [_item("1.2", 0x0213)])).failed == (("1.2", 0x0213),)


def test_a_failure_without_reason_is_a_processing_failure() -> None:
    assert read_report(2, _report([], [_item("1.1")])).failed == (("1.1", 0x0110),)


@pytest.mark.parametrize(
    ("event_type", "dataset", "status"),
    [
        (3, _report([_item("1.1")], []), EventStatus.NO_SUCH_EVENT_TYPE),
        (1, _report([_item("1.1")], [], transaction=None), EventStatus.INVALID_ARGUMENT),
        (1, _report([], []), EventStatus.INVALID_ARGUMENT),
        (1, _report([_item(None)], []), EventStatus.INVALID_ARGUMENT),
        (1, _report([_item("")], []), EventStatus.INVALID_ARGUMENT),
        (2, _report([_item("1.1")], [_item("1.1", 0x0112)]), EventStatus.INVALID_ARGUMENT),
    ],
    ids=["event type", "no transaction", "empty", "no instance", "empty instance", "both committed and failed"],
)
def test_a_report_that_can_not_be_trusted_is_refused_with_a_status(
    event_type: int, dataset: Dataset, status: EventStatus
) -> None:
    with pytest.raises(ReportInvalid) as fault:
        read_report(event_type, dataset)
    assert fault.value.status is status
