"""Own the listening socket and run the node's processes: a crash of one never takes another down.

Knows not what the processes do. Loads no DICOM library: it must stay small and have nothing to die of.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.audit_trail import Presence
from dicom_node.child import HOPELESS, Child
from dicom_node.errors import SettingsInvalid, Stop
from dicom_node.liveness import Liveness, beats, remove_dead, running
from dicom_node.service_manager import ServiceManager
from dicom_node.settings import Listen, Settings
from dicom_node.stopping import Stopping

if TYPE_CHECKING:
    from dicom_node.endpoint import Endpoint

log = logging.getLogger(__name__)

ROLES = ("listen", "work", "deliver", "upkeep")
RECEIVER = "receive"
"""The liveness role of a receiver; `listen` is the supervisor's that owns the socket."""
BACKLOG = 128
"""Connections that wait while every receiver is busy or being started again."""
DRAIN_MARGIN_S = 30.0
"""So much longer than associations may the processes finish what they have in hand, before they are killed."""
OUT_OF_BOUNDS_S = 600.0
"""A process that could not be brought back for this long: only starting everything anew may help."""
LATELY_S = 30.0
"""A receiver has loaded its libraries by then, has seen that its supervisor is gone, and lets go of the port."""
LOOK_S = 0.1
HEAR_S = 1.0


def run(
    settings: Settings, roles: Sequence[str], options: Sequence[str], stopping: Stopping, manager: ServiceManager
) -> int:
    """Supervise the processes of `roles` until asked to stop, then drain; the exit code of the command.

    `options` go to every process. Raises AlreadyRunning, and Stop when a port is taken.
    """
    locks = settings.state_dir / "locks"
    _look_at_certificates(settings)
    lately = _heard_lately(locks / "listen")
    presence = Presence(settings, _heard_at(locks / "listen"))
    held = [Liveness(locks, name, alone=True) for name in (["serve"] if "work" in roles else []) + ["listen"]]
    try:
        # Of an earlier start that was killed: in a container the numbers of its processes are ours, too.
        remove_dead(locks)
        with _open_socket(settings.listen, locks, stopping, lately=lately) as listening:
            if stopping.asked:
                return 0
            log.info("%s holds %s:%d", settings.listen.ae_title, settings.listen.host, settings.listen.port)
            children = _children(settings, roles, options, listening)
            endpoint = _endpoint(settings, children)
            presence.started()
            try:
                return _Watch(held, children, listening, manager, presence).until(stopping, settings)
            finally:
                if endpoint:
                    endpoint.close()
    finally:
        for lock in held:
            lock.close()


def _look_at_certificates(settings: Settings) -> None:
    """Say what is wrong with our certificates. Raises SettingsInvalid when those of our own port can't be used."""
    if not settings.tls_sections():
        return
    # Imported here: the supervisor stays smaller without.
    from dicom_node.tls import remarks_on

    for path, section in settings.tls_sections().items():
        try:
            remarks = remarks_on(section, now=time.time())
        except SettingsInvalid as fault:
            if section is settings.listen.tls:
                raise
            # Whoever uses it says so each time, and tries again.
            remarks = [str(fault)]
        for remark in remarks:
            log.warning("%s: %s", path, remark)


def receivers(listen: Listen) -> int:
    """How many receiver processes share the port."""
    return listen.processes or min(4, max(1, (os.cpu_count() or 1) // 2))


class _Watch:
    """The loop of the supervisor."""

    def __init__(
        self,
        held: Sequence[Liveness],
        children: Sequence[Child],
        listening: socket.socket,
        manager: ServiceManager,
        presence: Presence,
    ) -> None:
        self._held, self._children, self._listening, self._manager = held, children, listening, manager
        self._presence = presence
        self._ready = False

    def until(self, stopping: Stopping, settings: Settings) -> int:
        """Look after the children until asked to stop, then let them finish; the exit code."""
        locks, heard_at = settings.state_dir / "locks", 0.0
        try:
            while not stopping.asked:
                if time.monotonic() - heard_at > HEAR_S:
                    heard_at = time.monotonic()
                    self._hear(locks)
                hopeless = [child.name for child in self._children if child.look() == HOPELESS]
                if hopeless:
                    log.error("%s can't run; stopping", ", ".join(hopeless))
                    return HOPELESS
                stopping.wait(LOOK_S)
            return 0
        finally:
            # Before the processes end: one of them still tells the repository.
            self._presence.stopped(f"asked by {stopping.why}" if stopping.why else "")
            self._drain(settings.listen.drain_s + DRAIN_MARGIN_S)

    def _hear(self, locks: Path) -> None:
        """Listen for heartbeats, and tell the service manager what they say."""
        for lock in self._held:
            lock.beat()
        found = beats(locks)
        for child in self._children:
            child.heard(found.get(child.pid or 0))
        waiting = [child for child in self._children if not child.beating]
        status = f"not running: {', '.join(child.name for child in waiting)}" if waiting else "receiving"
        if not waiting and not self._ready:
            self._ready = True
            log.info("every process is up")
            self._manager.ready(status)
        elif self._ready:
            self._manager.status(status)
        if all(child.down_s() < OUT_OF_BOUNDS_S for child in self._children):
            self._manager.alive()

    def _drain(self, longest_s: float) -> None:
        """SIGTERM to all, time to finish, SIGKILL to what is left."""
        self._manager.stopping()
        # Receivers close theirs at once, too: whoever connects from now on is refused instead of kept waiting.
        self._listening.close()
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + longest_s
        for child in self._children:
            child.finish(deadline)


def _endpoint(settings: Settings, children: Sequence[Child]) -> Endpoint | None:
    """The HTTP endpoint, where one is wanted."""
    if not settings.health.port:
        return None
    # Imported here: the supervisor stays smaller without.
    from dicom_node.endpoint import Endpoint
    from dicom_node.metrics import ProcessFigures

    def processes() -> list[ProcessFigures]:
        return [
            ProcessFigures(
                name=child.name,
                role=child.role,
                up=child.beating,
                silent_s=child.silent_s(),
                starts=child.starts,
                deaths=child.deaths,
                hangs=child.hangs,
            )
            for child in children
        ]

    return Endpoint(settings, processes)


def _children(
    settings: Settings, roles: Sequence[str], options: Sequence[str], listening: socket.socket
) -> list[Child]:
    made = []
    for role in roles:
        command = [sys.executable, "-m", "dicom_node", "serve", role, "--supervised"]
        hang_s = settings.supervise.hang_s
        if role != "listen":
            made.append(Child(role, role, [*command, *options], hang_s=hang_s))
            continue
        door, count = listening.fileno(), receivers(settings.listen)
        for slot in range(count):
            mine = ["--socket", str(door), "--receiver", str(slot), "--receivers", str(count)]
            made.append(
                Child(RECEIVER, f"{RECEIVER} {slot}", [*command, *mine, *options], hang_s=hang_s, inherited=(door,))
            )
    return made


def _heard_at(lock: Path) -> float:
    """When an earlier supervisor's heart beat last, in seconds since the epoch; 0: never."""
    return lock.stat().st_mtime if lock.exists() else 0.0


def _heard_lately(lock: Path) -> bool:
    """Whether an earlier supervisor's heart beat until a moment ago."""
    return time.time() - _heard_at(lock) < LATELY_S


def _open_socket(listen: Listen, locks: Path, stopping: Stopping, *, lately: bool) -> socket.socket:
    """Bind the port once, for every receiver. Raises Stop when it is taken by something else than an earlier start.

    `lately`: an earlier supervisor was killed just now; receivers that it had only begun to start have no lock yet.
    """
    begun = time.monotonic()
    deadline, told = time.monotonic() + listen.drain_s + DRAIN_MARGIN_S, False
    while True:
        try:
            return _bound(listen.host, listen.port)
        except OSError as fault:
            # After a SIGKILL of the supervisor its receivers let go of the port as soon as they have noticed.
            ending = RECEIVER in running(locks) or (lately and time.monotonic() - begun < LATELY_S)
            if not ending or time.monotonic() > deadline or stopping.asked:
                raise Stop(
                    f"listen: {listen.host}:{listen.port} can't be opened ({fault.strerror}): "
                    "stop what uses the port, or change listen.host / listen.port"
                ) from fault
        if not told:
            log.info("the receivers of an earlier start are still ending: waiting for the port")
            told = True
        stopping.wait(LOOK_S)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        # Closed connections of an earlier start don't keep the port; a second listener is still refused.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
        # Several processes wait on it: one that was too late must not block in accept.
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
