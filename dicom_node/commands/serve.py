"""`evenray serve`: the supervisor with its processes, or one of them alone."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from dicom_node import settings_file, supervise
from dicom_node.errors import BadInput, RetryLater, StartLater, Stop
from dicom_node.exits import Exit
from dicom_node.logs import to_stderr
from dicom_node.service_manager import ServiceManager
from dicom_node.settings import Settings
from dicom_node.stopping import Stopping

log = logging.getLogger(__name__)

M_ARENA_MAX = -8
"""Source: malloc.h of glibc."""
PASSING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOLCK,
}
"""What ails a machine for a time. A directory that may not be written is not among them: that is a person's work."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """What the supervisor gives a receiver: the listening socket's file descriptor, and which of how many it is."""

    socket_fd: int
    slot: int
    slots: int


def serve(
    role: str | None, config: Path | None, state_dir: Path | None, *, supervised: bool, receiver: Receiver | None = None
) -> int:
    """Run until asked to stop; the exit code."""
    if role is not None and role not in supervise.ROLES:
        known = ", ".join(supervise.ROLES)
        raise BadInput(f"serve: {role!r} is no process of the node: use {known}, or none of them for all")
    settings = load(config, state_dir)
    to_stderr(f"receive {receiver.slot}" if receiver else role or "serve", settings.logs)
    stopping = Stopping()
    stopping.on_signals()
    if supervised:
        stopping.with_parent()
    try:
        if receiver is None and role in (None, "listen"):
            options = ["--config", str(config)] if config else []
            options += ["--state-dir", str(state_dir.resolve())] if state_dir else []
            roles = (role,) if role else supervise.ROLES
            return supervise.run(settings, roles, options, stopping, _service_manager())
        _run(role, settings, stopping, receiver)
    except (Stop, RetryLater) as fault:
        log.error("%s", fault)
        return Exit.LATER if _passes(fault) else Exit.USAGE
    except OSError as fault:
        if not _passes(fault):
            raise
        log.error("%s: %s", fault.filename or "this machine", fault.strerror)
        return Exit.LATER
    log.info("ended as asked by %s", stopping.why)
    return Exit.DONE


def _passes(fault: BaseException | None) -> bool:
    """Whether what ended a process, or what lay beneath it, may be over in a moment: then it is started again."""
    while fault is not None:
        if isinstance(fault, StartLater | RetryLater) or (isinstance(fault, OSError) and fault.errno in PASSING):
            return True
        fault = fault.__cause__
    return False


def _service_manager() -> ServiceManager:
    """The one that started us, from what it left in the environment; our processes are not to talk to it."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    watchdog_us = os.environ.pop("WATCHDOG_USEC", "")
    ours = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return ServiceManager(address, int(watchdog_us) / 1e6 if ours and watchdog_us.isdigit() else 0.0)


def load(config: Path | None, state_dir: Path | None) -> Settings:
    """The settings, with the state directory of the command line where one is given."""
    settings = settings_file.load(config)
    return settings.model_copy(update={"state_dir": state_dir.resolve()}) if state_dir else settings


def _run(role: str | None, settings: Settings, stopping: Stopping, receiver: Receiver | None) -> None:
    # Imported here: the receiver must not load the engine.
    if receiver:
        _stay_small()
        from dicom_node import listen

        listening = socket.socket(fileno=receiver.socket_fd)
        listen.run(settings, stopping, socket=listening, slot=receiver.slot, slots=receiver.slots)
    elif role == "work":
        from dicom_node import worker

        worker.run(settings, stopping)
    elif role == "deliver":
        from dicom_node import deliver

        deliver.run(settings, stopping)
    else:
        from dicom_node import upkeep

        upkeep.run(settings, stopping)


def _stay_small() -> None:
    """Keep a receiver from loading what only pixels need: it moves bytes, and pydicom does without.

    NumPy, Pillow and the codecs, which pydicom loads where it finds them, are half of a receiver's memory.
    """
    for name in ("numpy", "PIL", "gdcm", "openjpeg", "libjpeg", "rle", "pylibjpeg", "jpeg_ls"):
        sys.modules[name] = None  # type: ignore[assignment]
    # glibc gives each of many threads a heap of its own, which none needs here. Other C libraries have no such call.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
