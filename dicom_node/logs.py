"""How processes log: one event a line to standard error, as text or as JSON, actions and ids only. Owns no message."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
import warnings
from typing import Any

from dicom_node.complaints import complaints
from dicom_node.settings import Logs

log = logging.getLogger(__name__)

_IDS = re.compile(r"\b(instance|batch|delivery|process) (\d+)\b")
_UIDS = re.compile(r"(?<![\d.])[0-2](?:\.(?:0|[1-9]\d*)){5,}(?![\d.])")
"""Longer than any IP address or version."""
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029)}
"""A peer chooses its titles: none of them may begin a line of its own."""


def to_stderr(role: str, logs: Logs) -> None:
    """Log our own events, and of the libraries only what is an error.

    pynetdicom's and pydicom's own messages may quote data sets, so they stay out.
    """
    handler = logging.StreamHandler(sys.stderr)
    # Not by level: pydicom sets its own when it is imported, later than this.
    handler.addFilter(_is_no_librarys)
    handler.setFormatter(_Json(role) if logs.format == "json" else _Text(role))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("dicom_node").setLevel(logs.level.upper())
    # Their warnings do so, too; what matters of them is in decisions and reports. Set once, for every thread.
    warnings.simplefilter("ignore")
    # A peer that breaks the protocol at the right moment ends the library's thread; that is an event like others.
    threading.excepthook = _thread_ended


def _is_no_librarys(record: logging.LogRecord) -> bool:
    """Both quote what they could not read: that may be a patient's data."""
    return record.levelno >= logging.CRITICAL or record.name.partition(".")[0] not in ("pydicom", "pynetdicom")


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:
        return
    places = traceback.extract_tb(ended.exc_traceback)
    place = f"{places[-1].name}:{places[-1].lineno}" if places else "?"
    complaints.tell(log, logging.ERROR, "a thread ended: %s in %s", ended.exc_type.__name__, place)


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _event(record: logging.LogRecord) -> str:
    """The message in one line. Of an exception only its type: its text might quote a patient's data."""
    kind = record.exc_info[0] if record.exc_info else None
    return record.getMessage() + (f" ({kind.__name__})" if kind else "")


class _Text(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        return f"{_time(record)} {record.levelname} {self._role}: {_event(record).translate(_CONTROLS)}"


class _Json(logging.Formatter):
    """Keys: time, level, role, pid, event, where, and the ids that the event names."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        event = _event(record)
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "role": self._role,
            "pid": os.getpid(),
            "event": event,
            "where": record.name,
            **{what: int(ref) for what, ref in _IDS.findall(event)},
        }
        if uids := _UIDS.findall(event):
            line["uids"] = uids
        return json.dumps(line)
