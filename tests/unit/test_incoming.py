"""One file that is being received: what never ends does not fill the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dicom_node import incoming
from dicom_node.incoming import Incoming


def test_an_object_without_end_is_given_up_once_the_disk_is_as_full_as_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "LOOK_EVERY", 1000)
    final, marker = tmp_path / "one.dcm", tmp_path / "one.part"
    handle = os.open(final, os.O_WRONLY | os.O_CREAT)
    os.link(final, marker)
    taken = Incoming(handle, "one.dcm", str(marker), root=str(tmp_path))
    said = iter(["", "", "3 MiB free, 2048 MiB are reserved"])
    taken.full = lambda: next(said)
    for _ in range(40):
        taken.append([bytes(100)])
    assert taken.fault is not None
    assert taken.fault.errno == errno.ENOSPC
    assert taken.size == 3000
    assert list(tmp_path.iterdir()) == [], "the room is given back at once"
