"""Files and folders that survive a power cut: the one way in which they are forced to the disk. Knows no layout."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from dicom_node.errors import DiskFull
from dicom_node.steps import reached


def fsync(path: Path | str) -> None:
    """Force a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(target: Path, content: bytes, *, mode: int | None = None) -> None:
    """Temp file in the same folder, fsync, rename, fsync of the folder. `mode`: its permissions, from its first byte
    on; None: as the process has set them. Raises DiskFull.
    """
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        with partial.open("xb") as out:
            reached("durable.write.opened")
            if mode is not None:
                os.fchmod(out.fileno(), mode)
            out.write(content)
            out.flush()
            reached("durable.write.written")
            os.fsync(out.fileno())
        reached("durable.write.synced")
        partial.rename(target)
        reached("durable.write.renamed")
        fsync(target.parent)
        reached("durable.write.published")
    except OSError as fault:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DiskFull(f"{target.parent}: can't write ({fault.strerror}): make room or change state_dir") from fault
