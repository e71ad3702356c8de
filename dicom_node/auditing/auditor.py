"""From events to spooled messages: one for each study and peer, in the order of events. Owns how far it has come.

The mark in the ledger is set after the messages are on the disk: a kill repeats some of them and loses none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicom_node.audit_trail import FOLDER, Notes, messages, notes
from dicom_node.audit_trail.messages import Message, Origin, Party, Result
from dicom_node.audit_trail.notes import PRIVATE_FILE, PRIVATE_FOLDER
from dicom_node.audit_trail.sender import Sender
from dicom_node.audit_trail.spool import MessageSpool
from dicom_node.audit_trail.syslog import form, open_repository
from dicom_node.auditing.changes import Known, alerts, facts
from dicom_node.auditing.parties import Parties
from dicom_node.auditing.whose import Identities
from dicom_node.errors import AlreadyRunning
from dicom_node.ledger import Ledger
from dicom_node.ledger.trail import STEPS_AT_ONCE, Event, Told
from dicom_node.settings import Settings
from dicom_node.spool import MIB, Spool
from dicom_node.steps import reached

GATHER_S = 5.0
"""Events of so long make messages together: one for each study and peer."""
SEND_S = 0.5
LAST_S = 3.0
"""How long messages are still sent once the node was asked to stop."""
POSITION = "audit position"
"""Mark: the last row of history that messages were made of."""
NOWHERE = -1
OLD_S = 600.0
"""What a killed process was writing is removed when it is older."""
IDENTITY_S = 600.0
"""A note about whose files leave is kept for so long: their rows follow within seconds."""


class Auditor:
    """The audit trail of one node. One thread of one process at a time uses it."""

    def __init__(self, settings: Settings, ledger: Ledger, spool: Spool) -> None:
        """Raises OSError where its folder can't be used, AlreadyRunning where another process has it."""
        self._settings, self._ledger = settings, ledger
        self._files = Identities(ledger, spool)
        self._notes = Notes(settings)
        self._parties = Parties(settings)
        host = socket.gethostname()
        self._origin = Origin(settings.site.station, settings.audit.enterprise_site, host, settings.listen.ae_title)
        self._due = 0.0
        folder = settings.state_dir / FOLDER
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        self._lock = _alone(folder / "lock")
        try:
            _clear(folder)
            self._known = Known(folder / "known.json")
            self._messages = MessageSpool(folder / "spool", limit_bytes=settings.audit.spool_mib * MIB)
        except BaseException:
            os.close(self._lock)
            raise
        self._sender = Sender(self._messages, open_repository(settings.audit))

    def turn(self, *, now: float) -> None:
        """Make messages of what has happened if it is time, and send for a moment."""
        if time.monotonic() >= self._due:
            self.gather(now=now)
            self._due = time.monotonic() + GATHER_S
        until = time.monotonic() + SEND_S
        while self._sender.turn(now=now) and time.monotonic() < until:
            time.sleep(self._sender.pause_s(until - time.monotonic()))

    def finish(self) -> None:
        """Make messages of what has happened until now, and send what can be sent soon."""
        deadline = time.monotonic() + LAST_S
        self.gather(now=time.time())
        while self._sender.turn(now=time.time()) and time.monotonic() < deadline:
            time.sleep(self._sender.pause_s(deadline - time.monotonic()))

    def close(self) -> None:
        self._sender.close()
        os.close(self._lock)

    def gather(self, *, now: float) -> None:
        """Spool messages of everything that has happened and was not told yet."""
        trail = self._ledger.trail
        # Before the notes are read: a note about whose files leave is older than their rows.
        head = trail.head()
        at = self._position(head)
        noted = [(path, notes.read(path)) for path in self._notes.pending()]
        self._files.learn([note for _, note in noted if note.get("kind") == "leaving"])
        made = [message for _, note in noted if (message := self._of_note(note))]
        now_so = facts(self._settings, self._ledger, head=head, lost=self._messages.trouble.lost)
        made += alerts(self._origin, self._known.facts, now_so, at=now)
        # Long histories in pieces, each with its mark: a kill repeats one piece.
        while True:
            upto = min(head, at + STEPS_AT_ONCE)
            made += self._of_events(trail.events(at, upto))
            self._spool_all(made, now)
            reached("audit.spooled")
            if upto > at:
                self._ledger.upkeep.set_mark(POSITION, upto)
            made, at = [], upto
            if at >= head:
                break
        self._known.update(now_so)
        for path, note in noted:
            if note.get("kind") != "leaving" or now - float(note["at"]) > IDENTITY_S:
                path.unlink(missing_ok=True)

    def _position(self, head: int) -> int:
        mark = self._ledger.upkeep.mark(POSITION)
        if mark is None or mark == NOWHERE or mark > head:
            # What happened before there was an audit trail is none of it.
            self._ledger.upkeep.set_mark(POSITION, head)
            return head
        return int(mark)

    def _spool_all(self, made: Sequence[Message], now: float) -> None:
        formed = [
            form(
                message.xml(self._origin),
                at=message.at,
                host=self._origin.host,
                pid=os.getpid(),
                warning=message.result is not Result.SUCCESS,
            )
            for message in sorted(made, key=lambda message: message.at)
        ]
        self._messages.add(formed, now=now)

    def _of_events(self, events: Iterable[Event]) -> list[Message]:
        """One message for all objects of a study that the same happened to, with the same peer."""
        groups: dict[tuple[str, ...], list[Event]] = {}
        for event in events:
            if event.study_instance_uid:
                key = (event.kind, event.study_key, event.peer, event.association)
                groups.setdefault(key, []).append(event)
        self._files.forget()
        return [self._of_group(group) for group in groups.values()]

    def _of_group(self, group: Sequence[Event]) -> Message:
        first, at = group[0], max(event.at for event in group)
        counts = Counter(event.sop_class_uid for event in group)
        subject = replace(
            self._files.of(first.study_key, [event.path for event in group]),
            study_instance_uid=first.study_instance_uid,
            sop_classes=counts,
        )
        match first.kind:
            case Told.CAME | Told.REPEATED:
                sender = Party(first.peer, first.address, first.peer)
                again = first.kind is Told.REPEATED
                return messages.received(self._origin, sender, subject, at=at, held_before=again)
            case Told.LEFT:
                whole = not self._ledger.trail.held(first.study_key)
                return messages.deleted(self._origin, subject, at=at, whole_study=whole, why=first.why)
            case Told.WENT | Told.FAILED | Told.PARKED:
                tell = messages.exported if self._parties.is_folder(first.peer) else messages.sent
                result = {Told.WENT: Result.SUCCESS, Told.FAILED: Result.MINOR, Told.PARKED: Result.SERIOUS}
                to = self._parties.destination(first.peer)
                return tell(self._origin, to, subject, at=at, result=result[first.kind], why=first.why)

    def _of_note(self, note: Mapping[str, Any]) -> Message | None:
        kind, at = note.get("kind"), float(note.get("at", 0.0))
        launcher = str(note.get("launcher", "")) or notes.launcher()
        match kind:
            case "start":
                return messages.node_started(self._origin, at=at, launcher=launcher)
            case "stop":
                return messages.node_stopped(self._origin, at=at, launcher=launcher, why=str(note.get("why", "")))
            case "killed":
                why = "it ended without being asked; the time is when it was heard last"
                return messages.node_stopped(self._origin, at=at, launcher=launcher, killed=True, why=why)
            case "refused":
                return self._refusal(note, at)
            case "query":
                return messages.queried(
                    self._origin,
                    self._parties.source(str(note.get("archive", ""))),
                    at=at,
                    sop_class_uid=str(note.get("sop_class", "")),
                    transfer_syntax_uid=str(note.get("syntax", "")),
                    query=b64decode(str(note.get("query", ""))),
                    result=Result.SERIOUS if note.get("why") else Result.SUCCESS,
                    why=str(note.get("why", "")),
                )
        return None

    def _refusal(self, note: Mapping[str, Any], at: float) -> Message:
        title, address, count = (str(note.get(name, "")) for name in ("title", "address", "count"))
        times = f" ({count} times)" if count not in ("", "1") else ""
        sentence = f"a caller was refused: {note.get('why', '')}{times}"
        by = Party(title or address, "" if address == notes.ELSEWHERE else address, title)
        kind = messages.NODE_AUTHENTICATION
        return messages.alert(self._origin, kind, sentence, at=at, result=Result.MINOR, by=by)


def _clear(folder: Path) -> None:
    """Remove what a killed process was writing, but not what a living one writes right now."""
    for part in folder.rglob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if part.stat().st_mtime < time.time() - OLD_S:
                part.unlink()


def _alone(path: Path) -> int:
    """Be the one process that numbers messages; the kernel lets go of it when it dies. Raises AlreadyRunning."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AlreadyRunning(f"{path.parent}: another process tells the audit trail: stop one of them") from None
    return handle
